"""A version becomes champion, or the one before it again; whatever fails, the old one goes on serving.

Only aliases of the registry are moved here. The agent beside each server (``crosseai-serve deploy --watch``) follows
them: it loads the candidate beside the champion, names the new champion, and unloads the old one once its clients have
left. So a promotion needs no access to the servers' files, and a server that was away catches up by itself.
"""

from collections.abc import Callable

from crosseai.client.promotion.gates import USUAL_GATES, Gates
from crosseai.client.promotion.registry import Registry
from crosseai.client.promotion.servers import Site
from crosseai.client.promotion.switch import Change, Switch
from crosseai.contract import CHAMPION, PREVIOUS, InputError


def promote(
    model: str,
    version: int,
    site: Site,
    *,
    gates: Gates = USUAL_GATES,
    dry_run: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Make a registered version the champion, on every server or on none.

    Parameters
    ----------
    model, version
        Name and version in the registry.
    site
        Where.
    gates
        What the version must show first.
    dry_run
        Stop before anything is changed, after the gates that need no server, and record nothing.
    tell
        Gets one line for each step that is done.

    Raises
    ------
    InputError
        If the version does not exist or is champion already, or the registry fails.
    ContractError
        If a checksum, a gate or an answer is not what it must be.
    ServerError
        If a server does not follow.
    """
    registry = Registry(model)
    champion = registry.aliases().get(CHAMPION)
    if champion == version:
        raise InputError(f"{model}: expected another version than the champion, which {version} is already")
    change = Change(action="promote", version=version, champion=champion, judged=champion, previous=champion)
    Switch(registry, change, site, gates, tell, dry_run=dry_run).run()


def rollback(model: str, site: Site, *, tell: Callable[[str], None] = lambda _: None) -> int:
    """Make the previous champion the champion again, without gates, but not without canary.

    The present champion is not looked at: it may be what is broken. Afterwards there is no previous one: another
    rollback would lead forward again. Nor is there one after a promotion that was killed while it moved the aliases.

    Parameters
    ----------
    model, site, tell
        As for :func:`promote`.

    Returns
    -------
    int
        The version.

    Raises
    ------
    InputError, ContractError, ServerError
        As :func:`promote`; InputError also if there is no previous version.
    """
    registry = Registry(model)
    aliases = registry.aliases()
    if PREVIOUS not in aliases or aliases[PREVIOUS] == aliases.get(CHAMPION):
        raise InputError(f"{model}: expected a version with the alias {PREVIOUS!r}, found none; promote one by number")
    version = aliases[PREVIOUS]
    change = Change(action="rollback", version=version, champion=aliases.get(CHAMPION), judged=None, previous=None)
    Switch(registry, change, site, Gates(), tell).run()
    return version
