"""One promotion over two real servers, all or nothing; and what is left of one that is killed."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from mlflow import MlflowClient

from crosseai.client.promotion.promote import promote, rollback
from crosseai.client.promotion.registry import Registry
from crosseai.client.promotion.servers import Server, Site
from crosseai.client.servers.credentials import NO_CREDENTIALS
from crosseai.contract import CHAMPION, PREVIOUS, InferenceTimeout, InputError, ServerError
from crosseai.serve.control import Control
from crosseai.serve.embedded import EmbeddedTriton
from crosseai.serve.repository import place_version
from tests.eventually import DEADLINE_S, eventually
from tests.registered import aliases, remove_aliases

COMMAND = str(Path(sys.executable).with_name("crosseai-serve"))
PATIENCE_S = 15
"""How long a promotion waits for an agent that has ended; its server loads a tiny model in less."""

DIES = """
import os, signal
from crosseai.client.cli import main
from crosseai.client.promotion.registry import Registry
from crosseai.contract import CHAMPION, PREVIOUS

point = Registry.point

def point_and_die(self, alias, version):
    point(self, alias, version)
    if alias in (CHAMPION, PREVIOUS):
        os.kill(os.getpid(), signal.SIGKILL)

Registry.point = point_and_die
main()
"""
"""``crosseai-client``, killed after the first of the two moves."""

Agents = dict[str, subprocess.Popen[bytes]]


@pytest.fixture(scope="module")
def repositories(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Addresses of two servers, and the model repository of each."""
    folders = [tmp_path_factory.mktemp("models") for _ in range(2)]
    for folder in folders:
        place_version(folder, store / "artifacts" / "seed-1", 1)
    with ExitStack() as resources:
        yield {resources.enter_context(EmbeddedTriton(folder)).grpc_url: folder for folder in folders}


@pytest.fixture
def client(store: Path) -> MlflowClient:
    """The registry; version 1 is the champion, and no other has an alias."""
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    remove_aliases(client)
    client.set_registered_model_alias("crosseai", CHAMPION, "1")
    return client


@pytest.fixture
def agents(repositories: dict[str, Path], client: MlflowClient) -> Iterator[Agents]:
    """The agent beside each server, by address; the servers serve version 1 alone."""
    agents = {server: watch(server, folder) for server, folder in repositories.items()}
    eventually(lambda: all(serves_alone(server, 1) for server in agents))
    yield agents
    for agent in agents.values():
        stop(agent)


def watch(server: str, repository: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [COMMAND, "deploy", "--watch", "--repository", str(repository), "--server", server]
    return subprocess.Popen([*command, "--interval", "0.2", "--grace", "0", *options], stderr=subprocess.DEVNULL)


def serves_alone(server: str, version: int) -> bool:
    ready = [v.version for v in Control(server).status() if v.state == "READY"]
    return ready == [str(version)] == [Server(server, NO_CREDENTIALS).served("crosseai").version]


def stop(agent: subprocess.Popen[bytes]) -> None:
    agent.terminate()
    try:
        agent.wait(DEADLINE_S)
    finally:
        agent.kill()


def test_both_are_promoted_and_both_come_back(client, agents, tmp_path):
    first, second = agents
    site, said = Site(servers=[first, second], log=tmp_path / "log.jsonl", timeout_s=DEADLINE_S), []
    promote("crosseai", 2, site, tell=said.append)
    servers = [f"{step} {server}" for step in ("load", "canary") for server in agents]
    assert [line for line in said if not line.startswith("  ")] == [
        *("fetch", "gates", *servers, "alias"),
        *(f"switch {server}" for server in agents),
    ]
    eventually(lambda: all(serves_alone(server, 2) for server in agents))
    assert aliases(client) == {CHAMPION: 2, PREVIOUS: 1}

    assert rollback("crosseai", site) == 1
    eventually(lambda: all(serves_alone(server, 1) for server in agents))
    assert aliases(client) == {CHAMPION: 1}


def test_where_the_second_cannot_load_it_the_first_keeps_the_old_one(client, agents, repositories, tmp_path):
    first, second = agents
    stop(agents[second])
    agents[second] = watch(second, repositories[second], "--runtime", "tensorrt", "--plans", "none")
    site, said = Site(servers=[first, second], log=tmp_path / "log.jsonl", timeout_s=DEADLINE_S), []
    with pytest.raises(ServerError, match=f"version 2 was not loaded: {second}: "):
        promote("crosseai", 2, site, tell=said.append)
    assert aliases(client) == {CHAMPION: 1}
    kept, refused = said[-2:]
    assert kept.startswith(f"  {first}: champion 1, version 2 ")
    assert refused == f"  {second}: champion 1, version 2 not loaded"
    eventually(lambda: all(serves_alone(server, 1) for server in agents))


def test_where_the_second_does_not_follow_the_first_gets_back_the_old_one(client, agents, tmp_path):
    first, second = agents
    client.set_registered_model_alias("crosseai", PREVIOUS, "3")
    said = []

    def tell(line: str) -> None:
        said.append(line)
        if line == f"canary {second}":
            stop(agents[second])

    site = Site(servers=[first, second], log=tmp_path / "log.jsonl", timeout_s=PATIENCE_S)
    with pytest.raises(InferenceTimeout, match=f"switch {second}: .*expected version 2 to be the champion"):
        promote("crosseai", 2, site, tell=tell)
    assert said[-4:] == [
        f"switch {first}",
        "undo",
        *(f"  {server}: champion 1, version 2 loaded" for server in agents),
    ]
    assert aliases(client) == {CHAMPION: 1, PREVIOUS: 3}
    eventually(lambda: serves_alone(first, 1))


@pytest.mark.parametrize(
    ("before", "command"),
    [
        ({CHAMPION: 1, PREVIOUS: 3}, ["promote", "crosseai/2", "--to", "champion"]),
        ({CHAMPION: 2, PREVIOUS: 1}, ["rollback"]),
    ],
    ids=["promote", "rollback"],
)
def test_killed_between_the_aliases(client, agents, tmp_path, before, command):
    for alias, version in before.items():
        client.set_registered_model_alias("crosseai", alias, str(version))
    log = tmp_path / "log.jsonl"
    where = ["--server", ",".join(agents), "--audit-log", str(log), "--timeout", str(DEADLINE_S)]
    killed = subprocess.run([sys.executable, "-c", DIES, *command, *where], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = aliases(client)
    assert (left[CHAMPION], left[PREVIOUS]) == (1, 1)

    site = Site(servers=[*agents], log=log, timeout_s=DEADLINE_S)
    with pytest.raises(InputError, match="expected a version with the alias 'previous', found none"):
        rollback("crosseai", site)
    promote("crosseai", 2, site)
    assert aliases(client) == {CHAMPION: 2, PREVIOUS: 1}
    eventually(lambda: all(serves_alone(server, 2) for server in agents))


def test_a_registry_that_fails_between_the_aliases_gets_back_the_first(client, tmp_path, monkeypatch):
    client.set_registered_model_alias("crosseai", PREVIOUS, "3")
    point: Callable[..., None] = Registry.point

    def fail(self: Registry, alias: str, version: int | None) -> None:
        if (alias, version) == (CHAMPION, 2):
            raise InputError("the registry is away")
        point(self, alias, version)

    monkeypatch.setattr(Registry, "point", fail)
    with pytest.raises(InputError, match="alias: the registry is away"):
        promote("crosseai", 2, Site(log=tmp_path / "log.jsonl"))
    assert aliases(client) == {CHAMPION: 1, PREVIOUS: 3}
