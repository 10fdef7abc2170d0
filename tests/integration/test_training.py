"""Training end to end: command line, MLflow's SQLite store, checkpoint, evaluation."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("mlflow")

from mlflow import MlflowClient

from crosseai.contract import CHESTXRAY8, InputError, tracking_uri
from crosseai.training import load_checkpoint
from crosseai.training.cli import main
from crosseai.training.tracking import resolve_checkpoint, training_run
from tests.nih_layout import write_data_set

FIT = (
    *("--config", "phantoms", "--width", "4", "--input-size", "32", "--epochs", "2"),
    *("--triplet-attention", "--batch-size", "16", "--seed", "3"),
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


@pytest.fixture(scope="module")
def fitted(data: Path, workplace: Path) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
        result = CliRunner().invoke(main, ["fit", "--data", str(data), *FIT, "--output", "out"])
    assert result.exit_code == 0, result.output
    return result


def run_id(fitted: Result) -> str:
    uri = fitted.stdout.splitlines()[-1]
    assert uri.startswith("runs:/")
    return uri.removeprefix("runs:/")


def test_fit_prints_the_table_and_ends_with_the_run(fitted: Result) -> None:
    lines = fitted.stdout.splitlines()
    assert lines[0].startswith("test AUC (weights of epoch ")
    assert [line.split()[0] for line in lines[2:-2]] == [*CHESTXRAY8, "mean"]
    assert lines[-4].endswith("  0.789")
    assert lines[-3].endswith("  0.696; SCALP 0.839")
    assert "epoch   2  loss" in fitted.stderr
    run_id(fitted)


def test_the_run_records_what_made_it(fitted: Result, data: Path, workplace: Path) -> None:
    client = MlflowClient(f"sqlite:///{workplace / 'mlflow.db'}")
    run = client.get_run(run_id(fitted))
    assert run.info.status == "FINISHED"
    assert run.info.artifact_uri.startswith((workplace / "mlartifacts").as_uri())
    assert run.data.params["seed"] == "3"
    assert run.data.params["width"] == "4"
    assert run.data.params["architecture"] == "resnet14"
    if (Path(__file__).parents[2] / ".git").exists():
        assert len(run.data.tags["mlflow.source.git.commit"]) == 40
    assert len(run.data.tags["split_sha256"]) == 64
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "train_loss")] == [1, 2]
    assert len(client.get_metric_history(run.info.run_id, "validation_auc")) == 2
    assert 0 <= run.data.metrics["test_auc_Mass"] <= 1
    assert "system/cpu_utilization_percentage" in run.data.metrics
    assert run.data.metrics["test_auc_low"] <= run.data.metrics["test_auc"] <= run.data.metrics["test_auc_high"]


def test_the_run_records_its_data(fitted: Result, data: Path, workplace: Path) -> None:
    run = MlflowClient(f"sqlite:///{workplace / 'mlflow.db'}").get_run(run_id(fitted))
    used = {source.tags[0].value: source.dataset for source in run.inputs.dataset_inputs}
    assert set(used) == {"training", "validation", "test"}
    assert all(json.loads(dataset.source)["uri"] == str(data) for dataset in used.values())
    assert sum(json.loads(dataset.profile)["images"] for dataset in used.values()) == 120
    assert sum(json.loads(dataset.profile)["patients"] for dataset in used.values()) == 40
    features = json.loads(used["test"].schema)["mlflow_tensorspec"]["features"]
    assert json.loads(features)[0]["tensor-spec"] == {"dtype": "uint8", "shape": [-1, 1, 32, 32]}


def test_the_run_keeps_its_report(fitted: Result, data: Path, workplace: Path) -> None:
    client = MlflowClient(f"sqlite:///{workplace / 'mlflow.db'}")
    kept = {artifact.path for artifact in client.list_artifacts(run_id(fitted))}
    assert kept == {
        *("checkpoint", "plots", "examples", "model_card.md", "environment.txt"),
        *("metrics.json", "split.csv", "predictions.csv", "corrupted.csv"),
    }
    plots = {artifact.path for artifact in client.list_artifacts(run_id(fitted), "plots")}
    assert plots == {f"plots/{name}.png" for name in ("roc", "precision_recall", "calibration", "confusion")}
    assert len(client.list_artifacts(run_id(fitted), "examples")) == 8
    artifacts = {artifact.path for artifact in client.list_artifacts(run_id(fitted), "checkpoint")}
    assert artifacts == {f"checkpoint/{name}" for name in ("model.safetensors", "model_spec.json", "training.json")}


def test_output_folder(fitted: Result, data: Path) -> None:
    model, spec = load_checkpoint(Path("out/checkpoint"))
    assert not model.training
    assert spec.input_size == 32
    assert spec.feature_shape == (128, 1, 1)
    assert any(point != 0.5 for point in spec.operating_points)
    assert any(intercept != 0 for intercept in spec.calibration_intercepts)
    assert json.loads(Path("out/metrics.json").read_text())["best_epoch"] in (1, 2)
    with Path("out/split.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 120
    parts: dict[str, set[str]] = {}
    for row in rows:
        parts.setdefault(row["image_id"].split("_")[0], set()).add(row["part"])
    assert all(len(of_patient) == 1 for of_patient in parts.values())


def test_evaluation_repeats_the_figures_of_the_run(fitted: Result, data: Path) -> None:
    tables = []
    for model in (f"runs:/{run_id(fitted)}", "out/checkpoint"):
        result = CliRunner().invoke(main, ["evaluate", "--data", str(data), "--model", model])
        assert result.exit_code == 0, result.output
        tables.append(result.stdout.splitlines()[1:])
    assert tables[0] == tables[1] == fitted.stdout.splitlines()[1:-1]


def test_evaluation_of_unseen_data_takes_all_of_it(fitted: Result, tmp_path: Path) -> None:
    other = write_data_set(tmp_path, patients=5, seed=9)
    result = CliRunner().invoke(main, ["evaluate", "--data", str(other), "--model", "out/checkpoint", "--part", "all"])
    assert result.exit_code == 0, result.output
    assert "all AUC (15 images of 5 patients)" in result.stdout


def test_official_lists_are_honoured_and_a_corrupted_image_is_listed(fitted: Result, tmp_path: Path) -> None:
    data = write_data_set(tmp_path / "nih", patients=40)
    names = sorted(path.name for path in (data / "images").iterdir())
    held_out = {name for name in names if int(name[:8]) < 10}
    (data / "test_list.txt").write_text("\n".join(held_out))
    (data / "train_val_list.txt").write_text("\n".join(set(names) - held_out))
    (data / "images" / names[4]).write_bytes(b"no image")
    result = CliRunner().invoke(main, ["fit", "--data", str(data), *FIT, "--output", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    with (tmp_path / "out/split.csv").open(newline="") as file:
        parts = {row["image_id"]: row["part"] for row in csv.DictReader(file)}
    assert {name for name, part in parts.items() if part == "test"} == held_out - {names[4]}
    assert set(parts) == set(names) - {names[4]}
    with (tmp_path / "out/corrupted.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["image_id"] == names[4]
    evaluate = ["evaluate", "--data", str(data), "--model", str(tmp_path / "out/checkpoint")]
    evaluated = CliRunner().invoke(main, evaluate)
    assert evaluated.stdout.splitlines()[1:] == result.stdout.splitlines()[1:-1]
    (data / "test_list.txt").unlink()
    (data / "train_val_list.txt").unlink()
    without_lists = CliRunner().invoke(main, evaluate)
    assert without_lists.exit_code == 2
    assert "the model was trained with an official split" in without_lists.stderr


def test_the_same_seed_gives_the_same_weights(fitted: Result, data: Path) -> None:
    result = CliRunner().invoke(main, ["fit", "--data", str(data), *FIT, "--output", "again"])
    assert result.exit_code == 0, result.output
    _, first = load_checkpoint(Path("out/checkpoint"))
    _, second = load_checkpoint(Path("again/checkpoint"))
    assert first == second, "the spec holds the SHA-256 of the weights"


def test_training_can_start_from_given_weights(fitted: Result, data: Path) -> None:
    weights = "out/checkpoint/model.safetensors"
    result = CliRunner().invoke(main, ["fit", "--data", str(data), *FIT, "--epochs", "1", "--weights", weights])
    assert result.exit_code == 0, result.output


def test_a_registered_version_leads_to_its_run(fitted: Result) -> None:
    client = MlflowClient(tracking_uri())
    client.create_registered_model("crosseai")
    client.create_model_version("crosseai", f"runs:/{run_id(fitted)}/checkpoint", run_id(fitted))
    client.set_registered_model_alias("crosseai", "champion", "1")
    expected = load_checkpoint(resolve_checkpoint(f"runs:/{run_id(fitted)}"))[1]
    for uri in ("models:/crosseai/1", "models:/crosseai@champion", f"runs:/{run_id(fitted)}/checkpoint"):
        assert load_checkpoint(resolve_checkpoint(uri))[1] == expected


@pytest.mark.parametrize(
    "uri", ["runs:/0123456789abcdef0123456789abcdef", "models:/crosseai/77", "models:/crosseai", "no/such/folder"]
)
def test_models_that_do_not_exist_are_refused(fitted: Result, uri: str) -> None:
    with pytest.raises(InputError, match=rf"(model|checkpoint of) {uri}: "):
        resolve_checkpoint(uri)


@pytest.mark.parametrize(("raised", "status"), [(ValueError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_an_interrupted_run_says_so(fitted: Result, data: Path, raised: BaseException, status: str) -> None:
    with pytest.raises(type(raised)), training_run({}, {}) as run:
        run.log_metrics({"train_loss": 1.0, "validation_auc": math.nan})
        raise raised
    recorded = MlflowClient(tracking_uri()).get_run(run.run_id)
    assert recorded.info.status == status
    assert recorded.data.metrics == {"train_loss": 1.0}


def test_a_terminated_process_records_its_run_as_killed(fitted: Result, data: Path) -> None:
    command = [sys.executable, "-c", "from crosseai.training.cli import main; main()", "fit", "--data", str(data), *FIT]
    with subprocess.Popen([*command, "--epochs", "100000"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any(line.startswith("epoch   1") for line in process.stderr)
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 1
    client = MlflowClient(tracking_uri())
    newest = client.search_runs([client.get_experiment_by_name("crosseai").experiment_id], max_results=1)[0]
    assert newest.data.params["epochs"] == "100000"
    assert newest.info.status == "KILLED"


def test_usage_errors_end_with_two_and_one_message(data: Path, tmp_path: Path) -> None:
    (data / "not_a_model").mkdir(exist_ok=True)
    for arguments, message in (
        (["fit", "--data", str(tmp_path)], "expected the listing of one layout: Data_Entry_2017_v2020.csv"),
        (["fit", "--data", str(data), "--learning-rate", "0"], "expected learning_rate > 0"),
        (["evaluate", "--data", str(data), "--model", str(tmp_path)], "expected a checkpoint folder"),
        (["fit", "--data", str(data), *FIT, "--output", str(data / "Data_Entry_2017.csv")], "results: cannot write"),
        (["fit"], "Missing option '--data'"),
    ):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2
        assert message in result.stderr
        assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["phantoms", "fit", "evaluate"])
def test_every_option_is_explained(command: str) -> None:
    assert main.commands[command].help
    for option in main.commands[command].params:
        assert getattr(option, "help", None), option.name
