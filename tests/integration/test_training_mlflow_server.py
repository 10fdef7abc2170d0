"""Training against a real MLflow server with a SQLite store and an artifact folder of its own."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("mlflow")

from mlflow import MlflowClient

from crosseai.contract import InputError
from crosseai.training import load_checkpoint
from crosseai.training.cli import main
from crosseai.training.tracking import resolve_checkpoint, training_run
from tests.mlflow_server import free_port, mlflow_server
from tests.nih_layout import write_data_set

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow-server")


@pytest.fixture(scope="module")
def server_url(server_folder: Path) -> Iterator[str]:
    with mlflow_server(server_folder, str(server_folder / "artifacts")) as url:
        yield url


def test_a_run_is_recorded_by_the_server_and_its_checkpoint_comes_back(
    server_url: str, server_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_data_set(tmp_path / "nih", patients=40)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server_url)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    monkeypatch.chdir(tmp_path)
    small = ["--config", "phantoms", "--width", "4", "--input-size", "32", "--epochs", "1"]
    fit = ["fit", "--data", str(data), *small, "--output", "out"]
    fitted = CliRunner().invoke(main, fit)
    assert fitted.exit_code == 0, fitted.output
    uri = fitted.stdout.splitlines()[-1]
    fetched = resolve_checkpoint(uri)
    assert load_checkpoint(fetched)[1] == load_checkpoint(tmp_path / "out/checkpoint")[1]
    assert list((server_folder / "artifacts").rglob("checkpoint/model.safetensors"))
    assert not (tmp_path / "mlflow.db").exists(), "nothing is kept beside the server"
    client = MlflowClient(server_url)
    run = client.get_run(uri.removeprefix("runs:/"))
    assert "system/cpu_utilization_percentage" in run.data.metrics
    assert {source.tags[0].value for source in run.inputs.dataset_inputs} == {"training", "validation", "test"}
    card = Path(client.download_artifacts(run.info.run_id, "model_card.md", str(tmp_path)))
    assert run.data.tags["split_sha256"] in card.read_text()
    assert len(client.list_artifacts(run.info.run_id, "plots")) == 4

    evaluated = CliRunner().invoke(main, ["evaluate", "--data", str(data), "--model", uri])
    assert evaluated.exit_code == 0, evaluated.output
    assert evaluated.stdout.splitlines()[1:] == fitted.stdout.splitlines()[1:-1]


def test_a_server_that_is_away_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    data = write_data_set(tmp_path / "nih", patients=40)
    for arguments in (
        ["fit", "--config", "phantoms", "--width", "4", "--input-size", "32"],
        ["evaluate", "--model", "runs:/" + 32 * "a"],
    ):
        result = CliRunner().invoke(main, [*arguments, "--data", str(data)])
        assert result.exit_code == 2, result.output
        assert "127.0.0.1" in result.stderr
        assert "Traceback" not in result.output


def test_a_server_that_goes_away_is_a_clear_error_and_hides_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = ExitStack()
    url = server.enter_context(mlflow_server(tmp_path, str(tmp_path / "artifacts")))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match=r"end of runs:/\w+: MLflow at http.* answers"), training_run({}, {}):
        with pytest.raises(ZeroDivisionError), training_run({}, {}) as failing:
            server.close()
            1 / 0  # noqa: B018
        assert f"{failing.uri}: MLflow does not answer" in caplog.text
