"""A server that follows the registry's aliases: what ``crosseai-serve deploy --watch`` does.

The aliases are the wish: ``champion`` is what clients shall use, ``candidate`` is loaded beside it while it is being
tried. Whoever promotes a model moves aliases, and needs no access to the server's files. What no alias wants any more
stays until no client has asked for it for a while.

Each change is first loaded into the running server, then written to ``config.pbtxt``. So a server that is killed at any
moment starts again with the versions that it had, and a version that does not load leaves no trace.
"""

import fcntl
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crosseai.contract import (
    CANDIDATE,
    CHAMPION,
    MODEL_FILENAME,
    ContractError,
    CrossEAIError,
    InputError,
    ServerUnavailable,
)
from crosseai.serve.config import (
    PLAN_FILENAME,
    Runtime,
    ServedVersion,
    read_champion,
    read_config,
    served_filename,
    write_config,
)
from crosseai.serve.control import Control
from crosseai.serve.registry import REGISTERED_NAME, aliased_versions, fetch, plan_of, report_deployment
from crosseai.serve.repository import champion_of, copy_version, list_versions, model_folder, versions_of

logger = logging.getLogger(__name__)

LOCK = ".deploy.lock"

_LONGEST_SLEEP_S = 0.25
"""After which it is asked whether to stop: a signal that is only remembered ends no sleep."""
RETRY_S = 60
"""How long a version that could not be fetched or loaded is left alone."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a server serves.

    Parameters
    ----------
    versions
        The loaded versions.
    champion
        The one that clients are told to use; None leaves them the newest.
    """

    versions: Mapping[int, ServedVersion]
    champion: int | None


class Deployment:
    """Brings one server to what the registry's aliases say.

    Parameters
    ----------
    repository
        The server's model repository, which is this deployment's alone: versions that are neither loaded nor have an
        alias are deleted from it.
    server
        The server.
    grace_s
        How long a version without an alias stays after its last request, in seconds. Longer than any pause that a
        client makes between two requests.
    runtime
        What runs the model there.
    plans
        With the runtime ``tensorrt``: the target whose plans the server can load.
    """

    def __init__(
        self,
        repository: Path,
        server: Control,
        *,
        grace_s: float,
        runtime: Runtime = "onnxruntime",
        plans: str | None = None,
    ) -> None:
        self._repository = repository
        self._server = server
        self._grace_s = grace_s
        self._runtime = runtime
        self._plans = plans
        self._served_file: str | None = None
        self._idle_since: dict[int, float] = {}
        self._refused_at: dict[int, float] = {}

    def converge(self) -> Loaded:
        """Make one round: load what is missing, name the champion, unload what is drained.

        A version that cannot be fetched or loaded is reported at the registry and left out for a minute; the others go
        on. Without a champion that is loaded, nothing is unloaded.

        Returns
        -------
        Loaded
            What the server serves now.

        Raises
        ------
        InputError
            If the registry cannot be read.
        ServerError
            If the server does not answer, or a champion that it has loaded cannot be named.
        """
        aliases = aliased_versions()
        champion = aliases.get(CHAMPION)
        wanted = [aliases[alias] for alias in (CHAMPION, CANDIDATE) if alias in aliases]
        recent = time.monotonic() - RETRY_S
        self._refused_at = {v: at for v, at in self._refused_at.items() if v in wanted and at > recent}
        loaded = self._loaded()
        for version in wanted:
            if version not in loaded.versions and version not in self._refused_at:
                loaded = self._add(version, loaded, champion)
        if champion in loaded.versions:
            drained = self._drained(loaded.versions.keys() - set(wanted))
            kept = {number: version for number, version in loaded.versions.items() if number not in drained}
            loaded = self._change(loaded, Loaded(kept, champion))
            self._delete_all_but({*kept, *aliases.values()})
        return loaded

    def _loaded(self) -> Loaded:
        ready = [v for v in self._server.status() if (v.model, v.state) == (REGISTERED_NAME, "READY")]
        if not ready:
            return Loaded({}, None)
        config = self._server.configuration(REGISTERED_NAME)
        self._served_file = served_filename(config)
        return Loaded(read_config(config), read_champion(config))

    def _add(self, version: int, loaded: Loaded, champion: int | None) -> Loaded:
        """Load one more version, or report why that is impossible; clients never take a candidate for the champion."""
        try:
            with fetch(f"models:/{REGISTERED_NAME}/{version}") as fetched:
                plan = None if self._plans is None else plan_of(fetched, self._plans)
                self._check_runtime(loaded)
                placed = copy_version(self._repository, fetched.folder, version, plan)
            if placed.spec.name != REGISTERED_NAME:
                raise ContractError(f"model spec: expected the name {REGISTERED_NAME!r}, found {placed.spec.name!r}")
            versions = {**loaded.versions, version: placed}
            named = champion if champion in versions else loaded.champion or max(loaded.versions, default=None)
            changed = self._change(loaded, Loaded(versions, named))
        except ServerUnavailable:
            raise
        except (CrossEAIError, OSError) as error:
            logger.error("version %d cannot be served: %s", version, error)  # noqa: TRY400 - a message, no traceback
            self._refused_at[version] = time.monotonic()
            report_deployment(version, str(self._server), f"{self._server}: {error}")
            return loaded
        report_deployment(version, str(self._server), None)
        return changed

    def _check_runtime(self, loaded: Loaded) -> None:
        """All versions of a Triton model run in one backend."""
        wanted = MODEL_FILENAME if self._plans is None else PLAN_FILENAME
        if loaded.versions and self._served_file != wanted:
            raise ContractError(
                f"expected a server of {wanted}, found one of {self._served_file}; unload the model there, and empty "
                "the repository"
            )

    def _change(self, old: Loaded, new: Loaded) -> Loaded:
        """Load a set of versions into the server, then make it the one that it starts with."""
        spec = next(iter(new.versions.values())).spec
        if new != old:
            self._server.load_configuration(write_config(spec, new.versions, new.champion, runtime=self._runtime))
            logger.info("%s serves %s, champion %s", self._server, sorted(new.versions), new.champion)
        on_disk = Loaded(versions_of(self._repository, REGISTERED_NAME), champion_of(self._repository, REGISTERED_NAME))
        if new != on_disk:
            list_versions(self._repository, spec, new.versions, new.champion, self._runtime)
        return new

    def _drained(self, unwanted: AbstractSet[int]) -> set[int]:
        """Of versions that nobody wants any more, those that got no request during the grace time."""
        now = time.time()
        asked = self._server.last_requests(REGISTERED_NAME) if unwanted else {}
        self._idle_since = {v: max(self._idle_since.get(v, now), asked.get(v, 0)) for v in unwanted}
        return {version for version, since in self._idle_since.items() if now - since >= self._grace_s}

    def _delete_all_but(self, kept: set[int]) -> None:
        for folder in model_folder(self._repository, REGISTERED_NAME).iterdir():
            if folder.is_dir() and folder.name.isdecimal() and int(folder.name) not in kept:
                shutil.rmtree(folder)


def watch(
    repository: Path,
    server: Control,
    *,
    grace_s: float,
    interval_s: float,
    runtime: Runtime,
    told_to_stop: Callable[[], bool],
    plans: str | None = None,
) -> None:
    """Bring a server to what the aliases say, again and again, until this process is told to stop.

    Parameters
    ----------
    repository, server, grace_s, runtime, plans
        As for :class:`Deployment`.
    interval_s
        Pause between two rounds, in seconds.
    told_to_stop
        Whether this process has been told to stop; the round ends then.

    Raises
    ------
    InputError
        If another process does so for this repository.
    """
    with _only_one(repository):
        deployment, said = Deployment(repository, server, grace_s=grace_s, runtime=runtime, plans=plans), ""
        while not told_to_stop():
            try:
                deployment.converge()
                said = ""
            except CrossEAIError as error:  # the registry or the server is away for a while
                if str(error) != said:
                    logger.error("%s", error)  # noqa: TRY400 - a message, no traceback
                said = str(error)
            end = time.monotonic() + interval_s
            while not told_to_stop() and (left := end - time.monotonic()) > 0:
                time.sleep(min(left, _LONGEST_SLEEP_S))
    logger.info("crosseai-serve has stopped")


@contextmanager
def _only_one(repository: Path) -> Iterator[None]:
    """Hold a repository for one deployment.

    Raises
    ------
    InputError
        If another one holds it.
    """
    repository.mkdir(parents=True, exist_ok=True)
    with (repository / LOCK).open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{repository}: expected no other `crosseai-serve deploy --watch` on it, found one"
            ) from error
        yield
