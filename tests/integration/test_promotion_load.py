"""No request is lost when the champion changes."""

import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from mlflow import MlflowClient

from crosseai.client.promotion.promote import promote, rollback
from crosseai.client.promotion.servers import Site
from crosseai.contract import CHAMPION
from crosseai.serve.control import Control
from crosseai.serve.deployment import Deployment
from crosseai.serve.embedded import EmbeddedTriton
from crosseai.serve.repository import place_version
from tests.load import Load
from tests.registered import make_registry

CHANGES = 20
GRACE_S = 1.0
INTERVAL_S = 0.05


@pytest.fixture
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[int, Path]:
    """Folders of three registered versions, the first of which is the champion."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    make_registry(tmp_path, seeds=(1, 2, 3)).set_registered_model_alias("crosseai", CHAMPION, "1")
    return {version: tmp_path / "artifacts" / f"seed-{version}" for version in (1, 2, 3)}


@pytest.fixture
def server(tmp_path: Path, artifacts: dict[int, Path]) -> Iterator[str]:
    """A server that an agent in a thread of this process keeps at what the aliases say."""
    place_version(tmp_path / "models", artifacts[1], 1)
    stopping = threading.Event()
    with EmbeddedTriton(tmp_path / "models") as triton:
        deployment = Deployment(tmp_path / "models", Control(triton.grpc_url), grace_s=GRACE_S)
        deployment.converge()

        def follow() -> None:
            while not stopping.wait(INTERVAL_S):
                deployment.converge()

        agent = threading.Thread(target=follow)
        agent.start()
        yield triton.grpc_url
        stopping.set()
        agent.join()


@pytest.mark.slow
def test_no_request_is_lost_and_no_version_is_wrong(server, artifacts, tmp_path):
    site = Site(servers=[server], log=tmp_path / "log.jsonl", timeout_s=60)
    champion, answered = 1, []
    with Load(server, artifacts, {champion}) as load:
        for change in range(CHANGES):
            successor = 1 if change % 2 else 2 + change // 2 % 2
            load.champions = {champion, successor}
            if change % 2:
                assert rollback("crosseai", site) == successor
            else:
                promote("crosseai", successor, site)
            champion = successor
            load.champions = {champion}
            answered.append(len(load.answers))
    assert load.failures == []
    assert all(later > earlier for earlier, later in pairwise(answered))
    assert {version for _, _, version in load.answers} == {1, 2, 3}
    assert MlflowClient().get_registered_model("crosseai").aliases == {CHAMPION: 1}
