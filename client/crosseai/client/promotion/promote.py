"""A version becomes champion, step by step; whatever fails, the old one goes on serving.

Only aliases of the registry are moved here. The agent beside each server (``crosseai-serve deploy --watch``) follows
them: it loads the candidate beside the champion, names the new champion, and unloads the old one once its clients have
left. So a promotion needs no access to the servers' files, and a server that was away catches up by itself.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from crosseai.client.credentials import Credentials
from crosseai.client.embedded import embedded_server
from crosseai.client.promotion.agent import Agent
from crosseai.client.promotion.audit import Audit
from crosseai.client.promotion.canary import check_answers
from crosseai.client.promotion.gates import USUAL_GATES, GateResult, Gates, check_records, require
from crosseai.client.promotion.reference import check_reference
from crosseai.client.promotion.registry import Fetched, Registry
from crosseai.client.promotion.servers import Server
from crosseai.contract import CANDIDATE, CHAMPION, PREVIOUS, ContractError, InputError, ServerError, ServerUnavailable

CANARY_REQUESTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where and how to promote.

    Parameters
    ----------
    servers
        gRPC addresses, each with an agent that follows the registry. Without any, the canary runs on an embedded server
        and only the registry is changed.
    credentials
        For the servers.
    repository
        Model repository of the only server, where this machine can write it: the agent then runs here for the time.
    grace_s
        For that agent: how long the old version stays after its last request, in seconds.
    timeout_s
        How long a server may take for each change, in seconds.
    log
        The audit log.
    reason
        Why, for the record.
    """

    servers: Sequence[str] = ()
    credentials: Credentials = field(default_factory=Credentials)
    repository: Path | None = None
    grace_s: float = 60.0
    timeout_s: float = 300.0
    log: Path = field(default_factory=lambda: Path("promotions.jsonl"))
    reason: str = ""


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
        Stop before anything is changed: after the gates that need no server.
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
    _Switch(registry, version, champion, champion, site, gates, "promote", tell).run(dry_run=dry_run)


def rollback(model: str, site: Site, *, tell: Callable[[str], None] = lambda _: None) -> int:
    """Make the previous champion the champion again, without gates, but not without canary.

    The present champion is not looked at: it may be what is broken. Afterwards there is no previous one: another
    rollback would lead forward again.

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
    _Switch(registry, version, aliases.get(CHAMPION), None, site, Gates(), "rollback", tell).run()
    return version


class _Switch:
    """One change of the champion; ``previous`` is what the alias of this name shall say afterwards."""

    def __init__(
        self,
        registry: Registry,
        version: int,
        champion: int | None,
        previous: int | None,
        site: Site,
        gates: Gates,
        action: Literal["promote", "rollback"],
        tell: Callable[[str], None],
    ) -> None:
        if site.repository is not None and len(site.servers) != 1:
            raise InputError(f"repository: expected exactly one server that uses it, found {len(site.servers)}")
        self._registry, self._site, self._gates, self._tell = registry, site, gates, tell
        self._version, self._champion, self._previous = version, champion, previous
        self._action = action
        self._servers = [Server(address, site.credentials) for address in site.servers]
        listed = registry.listed(version)
        facts = {"action": action, "why": site.reason, "champion_before": champion, "onnx_sha256": listed.sha256}
        self._audit = Audit(registry, site.log, version, facts)
        self._agent: Agent | None = None

    def run(self, *, dry_run: bool = False) -> None:
        with ExitStack() as resources:
            folder = Path(resources.enter_context(TemporaryDirectory(prefix="crosseai-promote-")))
            new, old = self._fetch(folder)
            with self._step("gates") as found:
                self._require(check_records(self._gates, new, old), found)
            if dry_run:
                return
            if self._servers:
                if self._site.repository is not None:
                    agent = Agent(self._site.repository, self._site.servers[0], grace_s=self._site.grace_s)
                    self._agent = resources.enter_context(agent)
                self._change_servers(new, old)
            else:
                self._try_embedded(new)
                with self._step("alias"):
                    self._move_alias()

    def _fetch(self, folder: Path) -> tuple[Fetched, Fetched | None]:
        with self._step("fetch") as found:
            new = self._registry.fetch(self._version, folder / "new")
            judged = self._champion if self._action == "promote" else None
            old = None if judged is None else self._registry.fetch(judged, folder / "old")
            found["champion_sha256"] = old.listed.sha256 if old else ""
            return new, old

    def _change_servers(self, new: Fetched, old: Fetched | None) -> None:
        previous = self._registry.aliases().get(PREVIOUS)
        self._registry.forget_deployment_errors(self._version)
        try:
            for server in self._servers:
                self._load(server)
            for server in self._servers:
                self._canary(server, new, old)
            self._measure()
            with self._step("alias"):
                self._move_alias()
            for server in self._servers:
                self._follow(server)
        except BaseException:
            if self._registry.aliases().get(CHAMPION) == self._version:
                self._registry.point(CHAMPION, self._champion)
                self._registry.point(PREVIOUS, previous)
            raise
        finally:
            if self._registry.aliases().get(CANDIDATE) == self._version:
                self._registry.point(CANDIDATE, None)
        if self._agent is not None and self._champion is not None:
            self._drain(self._servers[0], self._champion)

    def _load(self, server: Server) -> None:
        """Have the version loaded beside the champion."""
        with self._step(f"load {server}"):
            server.served(self._registry.name)  # a server that is away is noticed at once
            self._registry.point(CANDIDATE, self._version)
            server.wait_until(f"version {self._version} to be loaded", self._is_loaded(server), self._site.timeout_s)

    def _is_loaded(self, server: Server) -> Callable[[], bool]:
        def is_loaded() -> bool:
            problems = self._registry.deployment_errors(self._version).values()
            if problems:
                raise ServerError(f"version {self._version} was not loaded: {'; '.join(problems)}")
            if self._agent is not None:
                self._agent.check()
            expected = self._registry.listed(self._version).sha256
            found = server.served(self._registry.name, self._version).sha256
            if found != expected:
                raise ContractError(
                    f"{server}: expected version {self._version} with SHA-256 {expected}, found {found}"
                )
            return True

        return is_loaded

    def _canary(self, server: Server, new: Fetched, old: Fetched | None) -> None:
        """The recorded images through both versions: the old one tells whether the server itself is well."""
        with self._step(f"canary {server}") as found:
            try:
                self._compare(server, new, old, found)
            except ServerUnavailable:  # the agent may have been unloading it, left from an earlier attempt
                server.wait_until(
                    f"version {self._version} to be loaded", self._is_loaded(server), self._site.timeout_s
                )
                self._compare(server, new, old, found)

    def _compare(self, server: Server, new: Fetched, old: Fetched | None, found: dict[str, Any]) -> None:
        latency = self._gates.latency
        factor, requests = self._gates.canary.factor, latency.requests if latency else CANARY_REQUESTS
        if old is not None and old.golden is not None and server.has_loaded(old.spec.name, old.listed.version):
            found["champion"] = check_answers(server, old, factor=factor, requests=requests).as_record()
        report = check_answers(server, new, factor=factor, requests=requests)
        found["candidate"] = report.as_record()
        if latency is not None:
            self._require([GateResult("latency", report.p95_ms <= latency.p95_ms, f"{report.p95_ms:.1f} ms")], found)

    def _measure(self) -> None:
        """The gates that need both versions to score the reference set."""
        if self._gates.mean_auc is None and self._gates.mean_iou is None:
            return
        with self._step("reference") as found:
            new, champion = (self._who(n) if n is not None else None for n in (self._version, self._champion))
            self._require(check_reference(self._gates, new or {}, champion), found)

    def _who(self, version: int) -> dict[str, Any]:
        if self._servers:
            return {
                "server": self._servers[0].address,
                "model_version": str(version),
                "credentials": self._site.credentials,
            }
        return {"model": f"models:/{self._registry.name}/{version}"}

    def _try_embedded(self, new: Fetched) -> None:
        """Without servers: canary and measurements on servers of this machine."""
        with embedded_server(f"models:/{self._registry.name}/{self._version}") as address:
            self._canary(Server(address, Credentials()), new, None)
        self._measure()

    def _move_alias(self) -> None:
        """The moment of the change; refused if somebody else has changed something meanwhile."""
        aliases = self._registry.aliases()
        expected = {CHAMPION: self._champion, **({CANDIDATE: self._version} if self._servers else {})}
        for alias, version in expected.items():
            if aliases.get(alias) != version:
                raise InputError(f"alias {alias}: expected version {version}, found {aliases.get(alias)} meanwhile")
        self._registry.point(CHAMPION, self._version)
        self._registry.point(PREVIOUS, self._previous)

    def _follow(self, server: Server) -> None:
        """Wait until clients that connect are sent to the new champion."""

        def names_it() -> bool:
            return server.served(self._registry.name).version == str(self._version)

        with self._step(f"switch {server}"):
            server.wait_until(f"version {self._version} to be the champion", names_it, self._site.timeout_s)

    def _drain(self, server: Server, old: int) -> None:
        """Wait until the old version is unloaded; clients that still use it keep it, and that is no failure."""
        name = self._registry.name
        with self._step(f"drain {server}") as found:
            found["version_drained"] = old
            wait_s = self._site.grace_s + self._site.timeout_s
            try:
                server.wait_until(f"version {old} to be unloaded", lambda: not server.has_loaded(name, old), wait_s)
            except ServerError as error:
                found["still_in_use"] = str(error)

    def _require(self, results: list[GateResult], found: dict[str, Any]) -> None:
        found["gates"] = {r.gate: {"holds": r.holds, "found": r.found} for r in results} | found.get("gates", {})
        for result in results:
            self._tell(f"  {result.gate}: {result.found}{'' if result.holds else '  REFUSED'}")
        require(results)

    @contextmanager
    def _step(self, name: str) -> Iterator[dict[str, Any]]:
        with self._audit.step(name) as found:
            yield found
        self._tell(name)
