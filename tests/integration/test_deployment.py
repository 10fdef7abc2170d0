"""A real server that follows the aliases of a real registry."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.grpc as grpc
from click.testing import CliRunner
from mlflow import MlflowClient

from crosseai.contract import CANDIDATE, CHAMPION, DEPLOYMENT_ERROR_TAG, PREVIOUS, ServerUnavailable
from crosseai.serve.cli import main
from crosseai.serve.config import write_config
from crosseai.serve.control import Control, VersionStatus
from crosseai.serve.deployment import LOCK, Deployment
from crosseai.serve.deployment import watch as watch_server
from crosseai.serve.embedded import EmbeddedTriton
from crosseai.serve.repository import champion_of, place_version, sha256_of, versions_of
from crosseai.serve.signals import remember_signals
from tests.eventually import DEADLINE_S, eventually
from tests.registered import register_tiny_model, remove_aliases
from tests.tiny_model import TINY_SPEC

COMMAND = Path(sys.executable).with_name("crosseai-serve")


@pytest.fixture
def client(store: Path) -> Iterator[MlflowClient]:
    """The registry: version 1 is the champion, before and after a test."""
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    client.set_registered_model_alias("crosseai", CHAMPION, "1")
    yield client
    remove_aliases(client)


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[str]:
    with EmbeddedTriton(models) as server:
        yield server.grpc_url


@pytest.fixture
def deployment(models: Path, server: str, client: MlflowClient) -> Deployment:
    deployment = Deployment(models, Control(server), grace_s=0)
    assert state(deployment) == ([1], 1)
    return deployment


def state(deployment: Deployment) -> tuple[list[int], int | None]:
    """Loaded versions and champion after one round."""
    loaded = deployment.converge()
    return sorted(loaded.versions), loaded.champion


def on_disk(models: Path) -> tuple[list[int], int | None]:
    return sorted(versions_of(models, "crosseai")), champion_of(models, "crosseai")


def ask(server: str, version: int) -> int:
    """Version that answers."""
    image = grpc.InferInput("image", (1, 1, 32, 32), "UINT8")
    image.set_data_from_numpy(np.zeros((1, 1, 32, 32), np.uint8))
    targets = grpc.InferInput("targets", (1, 1), "INT64")
    targets.set_data_from_numpy(np.zeros((1, 1), np.int64))
    with grpc.InferenceServerClient(server) as connection:
        answer = connection.infer("crosseai", [image, targets], model_version=str(version))
    return int(answer.get_response().model_version)


def test_a_promotion_and_a_rollback_by_aliases_alone(deployment, client, models, server):
    client.set_registered_model_alias("crosseai", CANDIDATE, "2")
    assert state(deployment) == on_disk(models) == ([1, 2], 1)
    assert ask(server, 2) == 2
    client.set_registered_model_alias("crosseai", PREVIOUS, "1")
    client.set_registered_model_alias("crosseai", CHAMPION, "2")
    client.delete_registered_model_alias("crosseai", CANDIDATE)
    assert state(deployment) == on_disk(models) == ([2], 2)
    assert (models / "crosseai" / "1").is_dir(), "the way back"
    client.set_registered_model_alias("crosseai", CHAMPION, "1")
    assert state(deployment) == on_disk(models) == ([1], 1)
    assert not (models / "crosseai" / "2").exists()


def test_a_server_without_the_champion_gets_it_beside_what_it_has(deployment, client, server):
    client.set_registered_model_alias("crosseai", CHAMPION, "3")
    patient = Deployment(deployment._repository, Control(server), grace_s=DEADLINE_S)
    assert state(patient) == ([1, 3], 3)


def test_a_candidate_is_never_taken_for_the_champion(deployment, client, models, server, store):
    """Not even on a server that has been told of none: clients would use the newest version."""
    spec = versions_of(models, "crosseai")[1].spec
    Control(server).load_configuration(write_config(spec, versions_of(models, "crosseai"), champion=None))
    client.delete_registered_model_alias("crosseai", CHAMPION)
    client.set_registered_model_alias("crosseai", CANDIDATE, "2")
    assert state(deployment) == ([1, 2], 1)
    client.delete_registered_model_alias("crosseai", CANDIDATE)
    client.set_registered_model_alias("crosseai", CHAMPION, "1")
    eventually(lambda: state(deployment) == ([1], 1))


def test_a_server_that_serves_nothing_gets_the_champion(deployment, client, models, server):
    with grpc.InferenceServerClient(server) as connection:
        connection.unload_model("crosseai")
        eventually(lambda: not connection.is_model_ready("crosseai"))
    shutil.rmtree(models / "crosseai")
    assert state(deployment) == on_disk(models) == ([1], 1)
    assert ask(server, 1) == 1


def test_a_version_in_use_stays_until_its_clients_have_left(client, models, server, deployment):
    client.set_registered_model_alias("crosseai", CANDIDATE, "2")
    assert state(deployment) == ([1, 2], 1)
    deployment = Deployment(models, Control(server), grace_s=1)
    client.delete_registered_model_alias("crosseai", CANDIDATE)
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        assert ask(server, 2) == 2
        assert state(deployment) == ([1, 2], 1)
    eventually(lambda: state(deployment) == ([1], 1))


def test_without_a_champion_nothing_is_unloaded(deployment, client):
    client.delete_registered_model_alias("crosseai", CHAMPION)
    assert state(deployment) == ([1], 1)


@pytest.mark.parametrize("alias", [CANDIDATE, CHAMPION])
def test_a_tampered_version_changes_nothing_and_is_reported(deployment, client, models, alias):
    client.set_model_version_tag("crosseai", "2", "onnx_sha256", "0" * 64)
    client.set_registered_model_alias("crosseai", alias, "2")
    assert state(deployment) == on_disk(models) == ([1], 1)
    assert "expected model.onnx with the SHA-256 0000" in error_of(client, 2)
    good = MlflowClient().get_model_version("crosseai", "2").source
    sha256 = subprocess.run(["sha256sum", f"{good.removeprefix('file://')}/model.onnx"], capture_output=True, text=True)
    client.set_model_version_tag("crosseai", "2", "onnx_sha256", sha256.stdout.split()[0])
    assert state(deployment) == ([1], 1), "not tried again at once"
    fresh = Deployment(models, deployment._server, grace_s=0)
    assert 2 in fresh.converge().versions
    assert error_of(client, 2) == ""


def test_a_version_that_does_not_load_changes_nothing(deployment, client, models, store):
    source = store / "artifacts" / "broken"
    version = register_tiny_model(client, source, seed=5)
    replace(TINY_SPEC, operating_points=(0.1,) * 8).save(source)  # another spec than the one in the graph
    client.set_registered_model_alias("crosseai", CANDIDATE, str(version))
    assert state(deployment) == on_disk(models) == ([1], 1)
    assert "load failed for model 'crosseai'" in error_of(client, version)
    client.set_registered_model_alias("crosseai", CHAMPION, "3")
    assert state(deployment) == ([3], 3), "the others go on"


def test_a_version_with_other_tensors_is_refused(deployment, client, store):
    version = register_tiny_model(client, store / "artifacts" / "larger", replace(TINY_SPEC, input_size=64))
    client.set_registered_model_alias("crosseai", CANDIDATE, str(version))
    assert state(deployment) == ([1], 1)
    assert "cannot be served beside the others" in error_of(client, version)


def register_plan_of(version: int, client: MlflowClient, folder: Path) -> None:
    plan = folder / "model.plan"
    plan.write_bytes(b"only TensorRT could make a real one")
    onnx_sha256 = client.get_model_version("crosseai", str(version)).tags["onnx_sha256"]
    record = json.dumps({"sha256": sha256_of(plan), "onnx_sha256": onnx_sha256})
    plan.with_name("model.plan.json").write_text(record)
    command = ["register-plan", f"models:/crosseai/{version}", str(plan), "--target", "h200"]
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, result.stdout) == (0, f"version {version} has a plan for h200\n"), result.output


def test_a_plan_needs_a_server_with_tensorrt(deployment, client, models, server, tmp_path):
    def plans() -> Deployment:
        return Deployment(models, Control(server), grace_s=0, runtime="tensorrt", plans="h200")

    client.set_registered_model_alias("crosseai", CANDIDATE, "2")
    assert state(plans()) == on_disk(models) == ([1], 1)
    assert "expected a TensorRT plan for 'h200', found none" in error_of(client, 2)
    register_plan_of(2, client, tmp_path)
    assert state(plans()) == on_disk(models) == ([1], 1)
    assert "expected a server of model.plan, found one of model.onnx" in error_of(client, 2)

    with grpc.InferenceServerClient(server) as connection:
        connection.unload_model("crosseai")
        eventually(lambda: not connection.is_model_ready("crosseai"))
    shutil.rmtree(models / "crosseai")
    client.set_registered_model_alias("crosseai", CHAMPION, "2")
    assert state(plans()) == ([], None)
    assert "backend 'tensorrt'" in error_of(client, 2)
    client.set_registered_model_alias("crosseai", CHAMPION, "1")
    client.delete_registered_model_alias("crosseai", CANDIDATE)
    assert state(Deployment(models, Control(server), grace_s=0)) == on_disk(models) == ([1], 1)


def error_of(client: MlflowClient, version: int) -> str:
    tags = client.get_model_version("crosseai", str(version)).tags
    return "; ".join(problem for tag, problem in tags.items() if tag.startswith(DEPLOYMENT_ERROR_TAG))


def test_a_server_that_is_away(client, models, unused_port):
    with pytest.raises(ServerUnavailable):
        Deployment(models, Control(f"127.0.0.1:{unused_port}"), grace_s=0).converge()


@pytest.fixture
def watch() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``crosseai-serve deploy --watch``, which ends in order."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [str(COMMAND), "deploy", "--watch", "--interval", "0.2", *map(str, arguments)]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        process.communicate(timeout=DEADLINE_S)


def test_a_killed_server_comes_back_with_what_was_promoted(client, store, tmp_path, watch):
    """And the agent, which is running all the time, goes on with it."""
    models = tmp_path / "models"
    place_version(models, store / "artifacts" / "seed-1", 1)
    with EmbeddedTriton(models) as first:
        address = first.grpc_url
        agent = watch("--repository", models, "--server", address, "--grace", 0)
        client.set_registered_model_alias("crosseai", CANDIDATE, "3")
        client.set_registered_model_alias("crosseai", CHAMPION, "2")
        eventually(lambda: on_disk(models) == ([2, 3], 2))
        (triton,) = psutil.Process(first.pid).children()
        os.kill(triton.pid, signal.SIGKILL)
        with pytest.raises(ServerUnavailable):
            first.wait(DEADLINE_S)
    with EmbeddedTriton(models, grpc_port=int(address.rpartition(":")[2])) as again:
        assert {(v.version, v.state) for v in Control(again.grpc_url).status()} == {("2", "READY"), ("3", "READY")}
        client.delete_registered_model_alias("crosseai", CANDIDATE)
        eventually(lambda: on_disk(models) == ([2], 2))
    agent.terminate()
    _, stderr = agent.communicate(timeout=DEADLINE_S)
    assert agent.returncode == 0
    assert "Traceback" not in stderr
    assert "serves [2, 3], champion 2" in stderr


def test_one_agent_for_a_repository(client, models, server, watch):
    watch("--repository", models, "--server", server)
    eventually((models / LOCK).exists)
    second = watch("--repository", models, "--server", server)
    _, stderr = second.communicate(timeout=DEADLINE_S)
    assert second.returncode == 1
    assert "expected no other `crosseai-serve deploy --watch` on it, found one" in stderr


class Told(Control):
    """Sends this process a signal in the midst of a round."""

    def status(self) -> list[VersionStatus]:
        signal.raise_signal(signal.SIGTERM)
        return super().status()


class ToldTwice(Told):
    """And another one."""

    def status(self) -> list[VersionStatus]:
        signal.raise_signal(signal.SIGTERM)
        return super().status()


@pytest.fixture
def watch_until_told(models, server) -> Iterator[Callable[[type[Told]], None]]:
    """Watch in this process, which gets signals in its first round."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def watch_it(kind: type[Told]) -> None:
        stop = remember_signals(tie_to_parent=False)
        options = {"grace_s": 0, "interval_s": DEADLINE_S, "runtime": "onnxruntime"}
        watch_server(models, kind(server), told_to_stop=stop, **options)

    yield watch_it
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_told_to_stop_a_round_is_brought_to_its_end(client, models, watch_until_told):
    client.set_registered_model_alias("crosseai", CHAMPION, "2")
    watch_until_told(Told)
    assert on_disk(models)[1] == 2


def test_told_twice_it_stops_at_once(client, watch_until_told):
    with pytest.raises(KeyboardInterrupt):
        watch_until_told(ToldTwice)
