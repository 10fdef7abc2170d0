"""Training by two processes, of torchrun and of Ray, and training that is killed."""

import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
import torch
from click.testing import CliRunner, Result

pytest.importorskip("mlflow")

from mlflow import MlflowClient

from crosseai.contract import tracking_uri
from crosseai.training import load_checkpoint
from crosseai.training.cli import main
from crosseai.training.processes import ALONE
from tests.integration.shared_step import losses_and_gradients
from tests.nih_layout import write_data_set

TRAIN = (sys.executable, "-c", "from crosseai.training.cli import main; main()")
FIT = (
    *("--config", "phantoms", "--width", "4", "--input-size", "32", "--epochs", "5"),
    *("--triplet-attention", "--cross-entropy-weight", "0.8", "--seed", "3"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data_set(tmp_path_factory.mktemp("nih"), patients=40)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the MLflow store; making the database takes seconds, so the tests share it."""
    return tmp_path_factory.mktemp("workplace")


@pytest.fixture(autouse=True)
def _work_there(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def torchrun(repository: Path, *arguments: str) -> None:
    """Run a program in two processes that find each other on a free port."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *arguments]
    environment = os.environ | {"PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def fit(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["fit", *arguments])
    assert result.exit_code == 0, result.output
    return result


def test_two_processes_compute_what_one_does(repository: Path, tmp_path: Path) -> None:
    torchrun(repository, str(repository / "tests/integration/shared_step.py"), str(tmp_path / "shared.pt"))
    shared, alone = torch.load(tmp_path / "shared.pt", weights_only=True), losses_and_gradients(ALONE)
    assert shared.keys() == alone.keys()
    assert alone["losses"].min() > 0
    for name, expected in alone.items():
        torch.testing.assert_close(
            shared[name], expected, rtol=1e-4, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.fixture(scope="module")
def trained_by_two(repository: Path, data: Path, workplace: Path) -> Path:
    """What two processes of torchrun leave."""
    output = workplace / "two"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        torchrun(repository, "--no-python", *TRAIN, "fit", "--data", str(data), *FIT, "--output", str(output))
    return output


def test_two_processes_train_and_record_one_run(trained_by_two: Path) -> None:
    output = trained_by_two
    _, spec = load_checkpoint(output / "checkpoint")
    client = MlflowClient(tracking_uri())
    runs = client.search_runs([client.get_experiment_by_name("crosseai").experiment_id])
    assert [run.info.status for run in runs if run.info.start_time >= runs[0].info.start_time] == ["FINISHED"]
    assert (output / "run").read_text().strip() == f"runs:/{runs[0].info.run_id}"
    assert spec.weights_sha256


def test_two_workers_of_ray_train_what_two_processes_do(data: Path, trained_by_two: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray.train")
    options = ("--engine", "ray", "--workers", "2", "--output", str(tmp_path))
    command = [*TRAIN, "fit", "--data", str(data), *FIT, *options]
    finished = subprocess.run(command, check=False, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines()[-1] == (tmp_path / "run").read_text().strip()
    assert "epoch   5" in finished.stderr
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path, trained_by_two)]
    assert metrics[0] == metrics[1]
    specs = [load_checkpoint(folder / "checkpoint")[1] for folder in (tmp_path, trained_by_two)]
    assert specs[0] == specs[1], "SHA-256 of weights"


@pytest.mark.parametrize("address", ["somewhere", "ray://127.0.0.1:6379", ":6379"])
def test_an_address_of_no_cluster_is_refused(data: Path, address: str) -> None:
    pytest.importorskip("ray.train")
    options = ("--engine", "ray", "--workers", "1", "--ray-address", address)
    result = CliRunner().invoke(main, ["fit", "--data", str(data), *FIT, *options])
    assert result.exit_code == 2
    assert "expected HOST:PORT or auto" in result.stderr


@pytest.mark.parametrize("speaks_grpc", [False, True])
def test_another_server_is_not_taken_for_a_cluster(data: Path, speaks_grpc: bool) -> None:
    pytest.importorskip("ray.train")
    with ExitStack() as held:
        if speaks_grpc:
            server = grpc.server(held.enter_context(ThreadPoolExecutor(1)))
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            held.callback(lambda: server.stop(None).wait())
        else:
            port = held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        options = ("--engine", "ray", "--workers", "1", "--ray-address", f"127.0.0.1:{port}")
        result = CliRunner().invoke(main, ["fit", "--data", str(data), *FIT, *options])
    assert result.exit_code == 2
    assert f"Ray at 127.0.0.1:{port}: expected the head of a cluster" in result.stderr


def test_an_interrupted_fit_of_ray_does_not_pass_for_a_finished_one(data: Path) -> None:
    pytest.importorskip("ray.train")
    options = ("--epochs", "500", "--engine", "ray", "--workers", "1")
    command = [*TRAIN, "fit", "--data", str(data), *FIT, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("epoch   1" in line for line in process.stderr)
        process.terminate()
        stdout, stderr = process.communicate()
    assert process.returncode == 1, stderr
    assert "Aborted!" in stderr
    assert "runs:/" not in stdout


def test_a_killed_run_goes_on_as_if_nothing_had_happened(data: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    fit("--data", str(data), *FIT, "--output", str(whole))
    command = [*TRAIN, "fit", "--data", str(data), *FIT, "--output", str(killed)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any(line.startswith("epoch   3") for line in process.stderr)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    result = fit("--data", str(data), *FIT, "--output", str(killed), "--resume")
    assert "epoch   1" not in result.stderr
    assert "epoch   5" in result.stderr
    assert json.loads((killed / "metrics.json").read_text()) == json.loads((whole / "metrics.json").read_text())
    assert load_checkpoint(killed / "checkpoint")[1] == load_checkpoint(whole / "checkpoint")[1], "SHA-256 of weights"

    client = MlflowClient(tracking_uri())
    one, other = (
        client.get_run((folder / "run").read_text().strip().removeprefix("runs:/")) for folder in (whole, killed)
    )
    assert other.info.status == "FINISHED"
    histories = [
        {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "train_loss")}
        for run in (one, other)
    ]
    assert histories[0] == histories[1]
    assert sorted(histories[0]) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "--resume needs the --output"),
        (["--engine", "ray"], "--engine ray needs --workers"),
        (["--workers", "2"], "need --engine ray"),
        (["--resume", "--output", "new"], "expected a run to resume"),
        (["--config", "absent.toml"], "expected one of"),
        (["--epochs", "0"], "expected epochs >= 1"),
        (["--architecture", "vgg"], "architecture: expected one of"),
    ],
)
def test_what_cannot_be_begun_is_refused(data: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["fit", "--data", str(data), *arguments])
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_lost_loss_ends_the_run_and_keeps_the_names(data: Path, tmp_path: Path) -> None:
    arguments = [*FIT, "--optimizer", "sgd", "--learning-rate", "1e30", "--output", str(tmp_path)]
    result = CliRunner().invoke(main, ["fit", "--data", str(data), *arguments])
    assert result.exit_code == 2
    assert "lost_batch.txt; a lower learning rate may help" in result.stderr
    names = (tmp_path / "lost_batch.txt").read_text().splitlines()
    assert 0 < len(names) <= 16
    assert all((data / "images" / name).is_file() for name in names)
    run_id = (tmp_path / "run").read_text().strip().removeprefix("runs:/")
    client = MlflowClient(tracking_uri())
    assert client.get_run(run_id).info.status == "FAILED"
    assert "lost_batch.txt" in {artifact.path for artifact in client.list_artifacts(run_id)}
