"""One change of the champion, step by step, on every server or on none."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from crosseai.client.promotion.agent import Agent
from crosseai.client.promotion.audit import Audit
from crosseai.client.promotion.canary import check_answers
from crosseai.client.promotion.gates import GateResult, Gates, check_records, require
from crosseai.client.promotion.reference import check_reference
from crosseai.client.promotion.registry import Fetched, Registry
from crosseai.client.promotion.servers import Server, Site
from crosseai.client.servers.credentials import NO_CREDENTIALS
from crosseai.client.servers.embedded import embedded_server
from crosseai.contract import (
    CANDIDATE,
    CHAMPION,
    PREVIOUS,
    ContractError,
    CrossEAIError,
    InferenceTimeout,
    InputError,
    ServerError,
    ServerUnavailable,
)

CANARY_REQUESTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a switch shall bring about.

    Parameters
    ----------
    action
        What it is called in the record.
    version
        The version that is to become champion.
    champion
        The present one, if any.
    judged
        The version that the gates compare the new one with, if any.
    previous
        What the alias ``previous`` shall say afterwards.
    """

    action: Literal["promote", "rollback"]
    version: int
    champion: int | None
    judged: int | None
    previous: int | None


class Switch:
    """One change of the champion, from the registry to the servers.

    Parameters
    ----------
    registry, change, site, gates
        Of what, to what, where, and what the new version must show.
    tell
        Gets one line for each step that is done.
    dry_run
        Do only what changes nothing, and record nothing.

    Raises
    ------
    InputError
        If the version does not exist, or a repository does not go with the servers.
    """

    def __init__(
        self,
        registry: Registry,
        change: Change,
        site: Site,
        gates: Gates,
        tell: Callable[[str], None],
        *,
        dry_run: bool = False,
    ) -> None:
        if site.repository is not None and len(site.servers) != 1:
            raise InputError(f"repository: expected exactly one server that uses it, found {len(site.servers)}")
        self._registry, self._site, self._gates, self._tell = registry, site, gates, tell
        self._change, self._dry_run = change, dry_run
        self._version, self._champion = change.version, change.champion
        self._servers = [Server(address, site.credentials) for address in site.servers]
        sha256 = registry.listed(change.version).sha256
        facts = {"action": change.action, "why": site.reason, "champion_before": change.champion, "onnx_sha256": sha256}
        self._audit = Audit(registry, None if dry_run else site.log, change.version, facts)
        self._agent: Agent | None = None
        self._aliases_before: Mapping[str, int] | None = None

    def run(self) -> None:
        """Do it.

        Raises
        ------
        InputError, ContractError, ServerError
            As :func:`crosseai.client.promotion.promote.promote`.
        """
        with ExitStack() as resources:
            folder = Path(resources.enter_context(TemporaryDirectory(prefix="crosseai-promote-")))
            new, old = self._fetch(folder)
            with self._step("gates") as found:
                self._require(check_records(self._gates, new, old), found)
            if self._dry_run:
                return
            if self._site.repository is not None:
                where = (self._site.repository, self._site.servers[0], self._site.credentials)
                self._agent = resources.enter_context(Agent(*where, grace_s=self._site.grace_s))
            with self._all_or_nothing():
                if self._servers:
                    self._change_servers(new, old)
                else:
                    self._try_embedded(new)
            if self._agent is not None and self._champion is not None:
                self._drain(self._servers[0], self._champion)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Whatever fails, the aliases are what they were, and it is said what each server serves."""
        try:
            yield
        except BaseException as error:
            if self._aliases_before is not None:
                self._undo(self._aliases_before)
            if isinstance(error, CrossEAIError):
                for server in self._servers:
                    self._tell(f"  {server}: {server.state(self._registry.name, self._version)}")
            raise
        finally:
            if self._registry.aliases().get(CANDIDATE) == self._version:
                self._registry.point(CANDIDATE, None)

    def _undo(self, before: Mapping[str, int]) -> None:
        """Move the aliases back, unless somebody else has promoted meanwhile; servers that had followed do so again."""
        with self._step("undo"):
            if self._registry.aliases().get(CHAMPION) in (self._champion, self._version):
                self._registry.set_champion(self._champion, before.get(PREVIOUS))
            if self._champion is not None:
                for server in self._servers:
                    self._await_return(server)

    def _await_return(self, server: Server) -> None:
        """Wait until a server does not send clients to the version; one that cannot be asked is not waited for."""

        def has_left() -> bool:
            try:
                return server.served(self._registry.name).version != str(self._version)
            except CrossEAIError:
                return True

        with suppress(InferenceTimeout):
            server.wait_until("the old champion", has_left, self._site.timeout_s)

    def _fetch(self, folder: Path) -> tuple[Fetched, Fetched | None]:
        with self._step("fetch") as found:
            new = self._registry.fetch(self._version, folder / "new")
            judged = self._change.judged
            old = None if judged is None else self._registry.fetch(judged, folder / "old")
            found["champion_sha256"] = old.listed.sha256 if old else ""
            return new, old

    def _change_servers(self, new: Fetched, old: Fetched | None) -> None:
        """One server after the other, and the first failure ends it."""
        self._registry.forget_deployment_errors(self._version)
        for server in self._servers:
            self._load(server)
        for server in self._servers:
            self._canary(server, new, old)
        self._measure()
        self._move_alias()
        for server in self._servers:
            self._follow(server)

    def _load(self, server: Server) -> None:
        """Have the version loaded beside the champion."""
        with self._step(f"load {server}"):
            server.check()  # one that is away is noticed at once
            self._registry.point(CANDIDATE, self._version)
            server.wait_until(f"version {self._version} to be loaded", self._is_loaded(server), self._site.timeout_s)

    def _is_loaded(self, server: Server) -> Callable[[], bool]:
        def is_loaded() -> bool:
            problems = self._registry.deployment_errors(self._version).values()
            if problems:
                raise ServerError(f"version {self._version} was not loaded: {'; '.join(problems)}")
            if self._agent is not None:
                self._agent.check()
            expected = self._registry.listed(self._version).served_sha256
            found = server.served(self._registry.name, self._version).sha256
            if found not in expected:
                which = f"version {self._version} with SHA-256 {' or '.join(sorted(expected))}"
                raise ContractError(f"{server}: expected {which}, found {found}")
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
        """Without servers: canary and measurements on a server of this machine."""
        with embedded_server(f"models:/{self._registry.name}/{self._version}") as address:
            self._canary(Server(address, NO_CREDENTIALS), new, None)
        self._measure()
        self._move_alias()

    def _move_alias(self) -> None:
        """The moment of the change; refused if somebody else has changed something meanwhile."""
        with self._step("alias"):
            aliases = self._registry.aliases()
            expected = {CHAMPION: self._champion, **({CANDIDATE: self._version} if self._servers else {})}
            for alias, version in expected.items():
                if aliases.get(alias) != version:
                    raise InputError(f"alias {alias}: expected version {version}, found {aliases.get(alias)} meanwhile")
            self._aliases_before = aliases
            self._registry.set_champion(self._version, self._change.previous)

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
