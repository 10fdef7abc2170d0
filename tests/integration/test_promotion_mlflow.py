"""Deployments by MLflow's own command, with a real registry, a real server and its agent."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient
from mlflow.deployments import get_deploy_client
from mlflow.deployments.cli import commands
from mlflow.exceptions import MlflowException

from crosseai.contract import CHAMPION, PREVIOUS
from crosseai.serve.embedded import EmbeddedTriton
from tests.eventually import DEADLINE_S
from tests.registered import aliases, remove_aliases
from tests.tiny_model import TINY_SPEC

COMMANDS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[str]:
    """A server with an agent beside it."""
    with EmbeddedTriton(models) as server:
        command = [COMMANDS / "crosseai-serve", "deploy", "--watch", "--repository", models, "--server"]
        agent = subprocess.Popen([*map(str, command), server.grpc_url, "--interval", "0.2"], stderr=subprocess.DEVNULL)
        yield server.grpc_url
        agent.terminate()
        agent.wait(DEADLINE_S)


@pytest.fixture
def client(store: Path) -> MlflowClient:
    """The registry, without any alias."""
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    remove_aliases(client)
    return client


def deployments(*arguments: object) -> Result:
    """Run ``mlflow deployments``."""
    return CliRunner().invoke(commands, [str(argument) for argument in arguments])


def test_create_update_get_predict_and_delete(server, store, client, tmp_path):
    target = ("-t", f"crosseai-triton://{server}", "--name", "crosseai")
    config = ("-C", f"audit_log={tmp_path}/log.jsonl", "-C", f"timeout={DEADLINE_S}", "-C", "reason=habit")
    created = deployments("create", *target, "-m", "models:/crosseai/1", *config)
    assert (created.exit_code, "onnx deployment crosseai is created" in created.stdout) == (0, True), created.output
    assert aliases(client) == {CHAMPION: 1}

    (tmp_path / "gates.yaml").write_text("latency: {p95_ms: 60000, requests: 2}\nparity: true\n")
    gate = ("-C", f"gate={tmp_path}/gates.yaml")
    updated = deployments("update", *target, "-m", "models:/crosseai/2", *config, *gate)
    assert updated.exit_code == 0, updated.output
    assert aliases(client) == {CHAMPION: 2, PREVIOUS: 1}
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {record["why"] for record in records} == {"habit"}
    assert any("latency" in record.get("gates", {}) for record in records)

    described = deployments("get", *target).stdout
    assert "champion: 2" in described
    assert "previous: 1" in described
    assert f"'{server}': 'champion 2, version 2 loaded'" in described
    (listed,) = ast.literal_eval(deployments("list", *target[:2]).stdout.splitlines()[-1])
    assert (listed["name"], listed["champion"]) == ("crosseai", 2)

    images = np.random.default_rng(3).integers(0, 256, (2, 1, TINY_SPEC.input_size, TINY_SPEC.input_size), np.uint8)
    (tmp_path / "input.json").write_text(json.dumps([{"image": image.tolist(), "targets": [3]} for image in images]))
    predicted = deployments("predict", *target, "-I", tmp_path / "input.json", "-O", tmp_path / "output.json")
    assert predicted.exit_code == 0, predicted.output
    found = json.loads((tmp_path / "output.json").read_text())["predictions"]
    session = ort.InferenceSession(store / "artifacts" / "seed-2" / "model.onnx")
    feed = {"image": images, "targets": np.full((2, 1), 3)}
    for name, expected in zip(found, session.run(list(found), feed), strict=True):
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-4, err_msg=name)

    deleted = deployments("delete", *target, *config)
    assert deleted.exit_code == 0, deleted.output
    assert aliases(client) == {CHAMPION: 1}
    again = deployments("delete", *target, *config)
    assert again.exit_code == 1
    assert "expected a version with the alias 'previous', found none" in str(again.exception)
    assert aliases(client) == {CHAMPION: 1}


def test_what_cannot_be_done_is_said(server, client, tmp_path):
    plugin = get_deploy_client(f"crosseai-triton://{server}")
    config = {"audit_log": tmp_path / "log.jsonl"}
    assert plugin.list_deployments() == []
    plugin.delete_deployment("crosseai")
    for ask, message in (
        (lambda: plugin.get_deployment("crosseai"), "expected a champion, found none"),
        (lambda: plugin.update_deployment("other", "models:/crosseai/2", config=config), "expected the name of the"),
        (lambda: plugin.create_deployment("crosseai", "runs:/1/model", config=config), "expected NAME/VERSION"),
        (
            lambda: plugin.create_deployment("crosseai", "models:/crosseai/99", config=config),
            "crosseai/99: the registry",
        ),
        (
            lambda: plugin.create_deployment("crosseai", "models:/crosseai/2", config={"x": 1}),
            "config: expected some of",
        ),
        (
            lambda: plugin.create_deployment("crosseai", "models:/crosseai/2", config={"grace": "x"}),
            "config: could not",
        ),
        (lambda: plugin.update_deployment("crosseai"), "expected a model URI"),
        (lambda: plugin.predict("crosseai", {"targets": [[1]]}), "expected image"),
        (lambda: plugin.predict("crosseai", {"image": [[[[0.5]]]]}), "expected image of integers that fit uint8"),
        (lambda: plugin.predict("crosseai", {"image": [[[[256]]]]}), "expected image of integers that fit uint8"),
        (lambda: get_deploy_client("crosseai-triton").predict("crosseai", {}), "expected a server"),
        (lambda: get_deploy_client("crosseai-triton://a:1?token=x"), "Target: crosseai-triton://HOST:PORT"),
    ):
        with pytest.raises(MlflowException, match=message):
            ask()
    assert aliases(client) == {}
    client.set_registered_model_alias("crosseai", CHAMPION, "1")
    with pytest.raises(MlflowException, match="version 1 is the champion; `update` promotes another one"):
        plugin.create_deployment("crosseai", "models:/crosseai/2", config=config)


def test_run_local(store):
    command = [COMMANDS / "mlflow", "deployments", "run-local", "-t", "crosseai-triton", "--name", "crosseai"]
    pipe = subprocess.PIPE
    with subprocess.Popen([*map(str, command), "-m", "models:/crosseai/3"], stdout=pipe, stderr=pipe) as process:
        line = json.loads(process.stdout.readline())
        assert (line["model"], line["version"]) == ("crosseai", "3")
        process.terminate()


def test_help():
    assert "Target: crosseai-triton://HOST:PORT" in deployments("help", "-t", "crosseai-triton").stdout
