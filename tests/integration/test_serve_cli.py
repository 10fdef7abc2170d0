"""The command ``crosseai-serve``, with real processes and a real server."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import tritonclient.grpc as grpc
from click.testing import CliRunner
from mlflow import MlflowClient

from crosseai.contract import MODEL_FILENAME
from crosseai.serve.cli import main
from crosseai.serve.repository import place_version
from tests.tiny_model import write_tiny_model

COMMAND = Path(sys.executable).with_name("crosseai-serve")
DEADLINE_S = 60


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An MLflow store with two versions, the first of which is the champion."""
    folder = tmp_path_factory.mktemp("mlflow")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    client.create_registered_model("crosseai")
    for seed in (1, 2):
        client.create_model_version("crosseai", write_tiny_model(folder / str(seed), seed=seed).as_uri())
    client.set_registered_model_alias("crosseai", "champion", "1")
    return f"sqlite:///{folder}/mlflow.db"


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``crosseai-serve up``; its temporary files go to ``tmp_path/tmp``."""
    started: list[subprocess.Popen[str]] = []
    (tmp_path / "tmp").mkdir()

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [COMMAND, "up", *map(str, arguments)]
        environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment, cwd=tmp_path))
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        process.communicate(timeout=DEADLINE_S)


def ready(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stdout is not None
    line: dict[str, str] = json.loads(process.stdout.readline())
    return line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_up_serves_until_it_is_told_to_stop(up, tmp_path, model, number):
    process = up("--model", model)
    line = ready(process)
    assert sorted(line) == ["grpc_url", "http_url", "model", "version"]
    assert (line["model"], line["version"]) == ("crosseai", "1")
    with grpc.InferenceServerClient(line["grpc_url"]) as client:
        assert client.is_model_ready("crosseai", "1")
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, stdout) == (0, "")
    assert "Traceback" not in stderr
    assert not list((tmp_path / "tmp").iterdir())


def test_up_says_when_the_server_dies(up, tmp_path, model):
    process = up("--model", model)
    ready(process)
    (guardian,) = psutil.Process(process.pid).children()
    guardian.children()[0].kill()
    _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 3
    assert "was ended by SIGKILL" in stderr
    assert not list((tmp_path / "tmp").iterdir())


def test_a_killed_up_leaves_nothing(up, tmp_path, model):
    process = up("--model", model)
    ready(process)
    (guardian,) = psutil.Process(process.pid).children()
    triton = guardian.children()
    process.kill()
    _, alive = psutil.wait_procs([guardian, *triton], timeout=DEADLINE_S)
    assert not alive
    assert not list((tmp_path / "tmp").iterdir())


PARENT = """
import subprocess, sys, threading
def start():
    global child
    child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
    child.stdout.readline()
thread = threading.Thread(target=start)
thread.start()
thread.join()
print(child.pid, flush=True)
sys.stdin.read()
"""


def test_up_ends_with_its_parent(tmp_path, model):
    """With the process, that is, not with the thread that started it."""
    command = [sys.executable, "-c", PARENT, str(COMMAND), "up", "--model", str(model), "--tie-to-parent"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        (guardian,) = child.children()
        assert not threading.Event().wait(0.6)
        assert child.is_running()
        parent.kill()
    _, alive = psutil.wait_procs([child, guardian], timeout=DEADLINE_S)
    assert not alive


def test_up_serves_a_repository_as_it_is(up, tmp_path, model):
    for version in (2, 7):
        place_version(tmp_path / "models", model, version)
    line = ready(up("--repository", tmp_path / "models"))
    assert line["version"] == "7"
    result = CliRunner().invoke(main, ["status", "--server", line["grpc_url"]])
    assert result.exit_code == 0
    assert [row.split()[:3] for row in result.stdout.splitlines()[1:]] == [
        ["crosseai", "2", "READY"],
        ["crosseai", "7", "READY"],
    ]


def test_up_serves_the_champion(up, store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert ready(up())["version"] == "1"


def test_deploy_adds_a_version_to_a_running_server(up, tmp_path, store):
    models = tmp_path / "models"
    environment = {"MLFLOW_TRACKING_URI": store}
    first = ["deploy", "--repository", str(models)]
    result = CliRunner().invoke(main, first, env=environment)
    assert (result.exit_code, result.stdout) == (0, f"crosseai version 1 is in {models}\n")
    server = ready(up("--repository", models))["grpc_url"]
    second = ["deploy", "--model", "models:/crosseai/2", "--repository", str(models), "--server", f"grpc://{server}"]
    result = CliRunner().invoke(main, second, env=environment)
    assert result.exit_code == 0, result.output
    assert (result.exit_code, result.stdout) == (0, f"crosseai version 2 is in {models}, and loaded\n")
    with grpc.InferenceServerClient(server) as connection:
        assert all(connection.is_model_ready("crosseai", version) for version in ("1", "2"))


def test_deploy_to_a_server_of_another_repository_is_noticed(up, tmp_path, model):
    place_version(tmp_path / "served", model, 3)
    server = ready(up("--repository", tmp_path / "served"))["grpc_url"]
    command = ["deploy", "--model", str(model), "--repository", str(tmp_path / "other"), "--server", server]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 3
    assert "expected version 1 of 'crosseai' to be ready" in result.output


def test_errors_have_a_message_and_a_status(tmp_path, model):
    (tmp_path / MODEL_FILENAME).write_bytes(b"no spec beside it")
    for arguments, status, message in (
        (["status", "--server", "127.0.0.1:9"], 3, "Triton at 127.0.0.1:9:"),
        (["status"], 2, "Missing option '--server'"),
        (["deploy", "--repository", "r", "--runtime", "onnxruntime+tensorrt"], 2, "--runtime need --watch"),
        (["deploy", "--repository", "r", "--grace", "60"], 2, "--grace, --interval and --runtime need --watch"),
        (["deploy", "--repository", "r", "--interval", "2"], 2, "--grace, --interval and --runtime need --watch"),
        (["deploy", "--repository", "r", "--plans", "h200"], 2, "--runtime tensorrt and --plans need each other"),
        (["up", "--model", str(tmp_path)], 1, "model spec: expected a file"),
        (["up", "--repository", str(tmp_path)], 1, "expected a Triton model repository"),
        (["up", "--grpc-port", "0"], 2, "is not in the range"),
        (["deploy", "--model", "models:/crosseai/1", "--repository", "r"], 1, "expected an MLflow store"),
    ):
        result = CliRunner().invoke(main, arguments, env={"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/none.db"})
        assert (result.exit_code, message in result.output) == (status, True), result.output
        assert "Traceback" not in result.output
        assert not result.stdout


def test_doctor(monkeypatch, tmp_path):
    result = CliRunner().invoke(main, ["doctor", "--install"])
    assert result.exit_code == 0, result.output
    assert result.output.count("ok ") == 4
    monkeypatch.setenv("CROSSEAI_CACHE_DIR", str(tmp_path))
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1
    assert "build it with `crosseai-serve doctor --install`" in result.output
