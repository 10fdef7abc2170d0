"""From a checkpoint to a registered version, and back."""

import hashlib
import json
import re
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


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(networks.residual(), SPEC, folder)
    return folder


def run(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_export_registers_a_version_that_mlflow_loads(checkpoint, tmp_path, monkeypatch):
    store = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    output = run("onnx", "--model", checkpoint, "--output", tmp_path / "exported")
    assert "registered as models:/crosseai/1" in output
    spec = ModelSpec.load(tmp_path / "exported")
    assert spec.feature_shape == (128, 1, 1)
    assert spec.weights_sha256 == ModelSpec.load(checkpoint).weights_sha256

    version = MlflowClient(store).get_model_version("crosseai", "1")
    exported = (tmp_path / "exported" / "model.onnx").read_bytes()
    assert version.tags["onnx_sha256"] == hashlib.sha256(exported).hexdigest()
    mlflow.set_tracking_uri(store)
    folder = Path(mlflow.artifacts.download_artifacts("models:/crosseai/1", dst_path=str(tmp_path / "version")))
    assert (folder / "model.onnx").read_bytes() == exported
    assert ModelSpec.load(folder) == spec
    flavour = mlflow.models.Model.load(str(folder))
    assert flavour.signature.inputs.input_names() == ["image", "targets"]
    assert flavour.signature.outputs.input_names() == [o.name for o in spec.outputs]

    feeds = {"image": sample_images(32, 2), "targets": np.array([[-1], [3]])}
    predicted = mlflow.pyfunc.load_model(str(folder)).predict(feeds)
    assert predicted["logits"].shape == (2, 8)
    assert predicted["explained"][1, 0] == 3
    assert ModelSpec.load(resolve_checkpoint("models:/crosseai/1")) == ModelSpec.load(checkpoint)


def test_verify_prints_a_table_and_refuses_another_model(checkpoint, tmp_path):
    run("onnx", "--model", checkpoint, "--output", tmp_path, "--no-register")
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model_spec.json"}
    table = run("verify", tmp_path, "--model", checkpoint)
    assert re.search(r"^input_gradients +\d\.\de-\d\d.* ok$", table, re.MULTILINE)

    other = networks.residual()
    other.head[0].weight.data.mul_(1.01)
    save_checkpoint(other, SPEC, tmp_path / "other")
    refused = CliRunner().invoke(main, ["verify", str(tmp_path), "--model", str(tmp_path / "other")])
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
