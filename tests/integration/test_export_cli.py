"""From a checkpoint to a registered version, and back."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from crosseai.contract import Architecture, ModelSpec
from crosseai.export.cli import main
from crosseai.export.verify import sample_images
from crosseai.training import save_checkpoint
from crosseai.training.tracking import resolve_checkpoint
from tests.unit.export import networks

SPEC = ModelSpec(input_size=32, architecture=Architecture("resnet14", triplet_attention=True, width=4))


def run(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(networks.residual(), SPEC, folder)
    return folder


@pytest.fixture(scope="module")
def store(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An MLflow store with one exported version, and the exporter's folder ``exported`` beside it."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        output = run("onnx", "--model", checkpoint, "--output", folder / "exported")
        assert "registered as models:/crosseai/1" in output
        yield folder


def test_output_folder_holds_the_graph_and_its_spec(store, checkpoint):
    assert {path.name for path in (store / "exported").iterdir()} == {"model.onnx", "model_spec.json"}
    spec = ModelSpec.load(store / "exported")
    assert spec.feature_shape == (128, 1, 1)
    assert spec.weights_sha256 == ModelSpec.load(checkpoint).weights_sha256


def test_registered_version_is_the_exported_file(store, tmp_path):
    uri = f"sqlite:///{store}/mlflow.db"
    version = MlflowClient(uri).get_model_version("crosseai", "1")
    exported = (store / "exported" / "model.onnx").read_bytes()
    assert version.tags["onnx_sha256"] == hashlib.sha256(exported).hexdigest()
    source = "models:/crosseai/1"
    folder = Path(mlflow.artifacts.download_artifacts(source, dst_path=str(tmp_path), tracking_uri=uri))
    assert (folder / "model.onnx").read_bytes() == exported
    spec = ModelSpec.load(folder)
    assert spec == ModelSpec.load(store / "exported")

    signature = mlflow.models.Model.load(str(folder)).signature
    assert signature.inputs.input_names() == ["image", "targets"]
    assert signature.outputs.input_names() == [o.name for o in spec.outputs]
    feeds = {"image": sample_images(32, 2), "targets": np.array([[-1], [3]])}
    predicted = mlflow.pyfunc.load_model(str(folder)).predict(feeds)
    assert predicted["logits"].shape == (2, 8)
    assert predicted["explained"][1, 0] == 3


def test_registered_version_leads_back_to_its_checkpoint(store, checkpoint):
    assert ModelSpec.load(resolve_checkpoint("models:/crosseai/1")) == ModelSpec.load(checkpoint)


def test_verify_prints_a_table_and_refuses_another_model(store, checkpoint, tmp_path):
    table = run("verify", store / "exported", "--model", checkpoint)
    assert re.search(r"^input_gradients +\d\.\de-\d\d.* ok$", table, re.MULTILINE)
    other = networks.residual()
    other.head[0].weight.data.mul_(1.01)
    save_checkpoint(other, SPEC, tmp_path)
    refused = CliRunner().invoke(main, ["verify", str(store / "exported"), "--model", str(tmp_path)])
    assert refused.exit_code == 2
    assert "differs from eager PyTorch: logits" in refused.output


@pytest.mark.parametrize("content", ["{}", json.dumps({"name": "x"})])
def test_a_folder_that_is_no_checkpoint_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "model_spec.json").write_text(content)
    result = CliRunner().invoke(main, ["onnx", "--model", str(tmp_path), "--output", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "expected the fields" in result.output


def test_missing_layer_is_refused(checkpoint, tmp_path):
    result = CliRunner().invoke(
        main, ["onnx", "--model", str(checkpoint), "--output", str(tmp_path), "--layer", "layer9", "--no-register"]
    )
    assert result.exit_code == 2
    assert "expected one of" in result.output
    assert "layer4" in result.output
    assert not (tmp_path / "model.onnx").exists()
