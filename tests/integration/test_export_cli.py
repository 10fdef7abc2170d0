"""From a checkpoint to a registered version, and back."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from crosseai.client.promotion.canary import askable
from crosseai.client.promotion.gates import Gates, check_records
from crosseai.client.promotion.registry import Registry
from crosseai.contract import Architecture, ModelSpec
from crosseai.contract.golden import Golden
from crosseai.export.cli import _source, main
from crosseai.export.verify import TOLERANCES, sample_images
from crosseai.training import save_checkpoint
from crosseai.training.tracking import resolve_checkpoint
from tests.unit.export import networks

SPEC = ModelSpec(input_size=32, architecture=Architecture("resnet14", triplet_attention=False, width=4))


def run(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(networks.residual(triplet_attention=False), SPEC, folder)
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
    assert {path.name for path in (store / "exported").iterdir()} == {"golden.npz", "model.onnx", "model_spec.json"}
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


def test_registered_version_can_be_promoted(store, tmp_path):
    """It has all that the gates and the canary of a promotion ask for."""
    version = Registry("crosseai").fetch(1, tmp_path)
    results = check_records(Gates(signature=True, compatible=True, parity=True), version, None)
    assert [(result.gate, result.holds) for result in results] == [
        (n, True) for n in ("signature", "compatible", "parity")
    ]
    assert version.golden is not None
    golden = askable(version.golden, version.spec)
    assert golden.outputs["heatmaps"].shape[:2] == golden.targets.shape
    assert golden.targets.size


def test_registered_version_leads_back_to_its_checkpoint(store, checkpoint):
    assert ModelSpec.load(resolve_checkpoint("models:/crosseai/1")) == ModelSpec.load(checkpoint)


def test_verify_needs_nothing_but_the_folder(store, tmp_path):
    version = mlflow.artifacts.download_artifacts(
        "models:/crosseai/1", dst_path=str(tmp_path), tracking_uri=f"sqlite:///{store}/mlflow.db"
    )
    for folder in (store / "exported", version):
        table = run("verify", folder)
        assert re.search(r"^input_gradients +\d\.\de-\d\d.* ok$", table, re.MULTILINE)
        assert "agrees with PyTorch on 3 images" in table


def test_verify_refuses_another_model(store, checkpoint, tmp_path):
    run("verify", store / "exported", "--model", checkpoint)
    other = networks.residual(triplet_attention=False)
    other.head[0].weight.data.mul_(1.01)
    save_checkpoint(other, SPEC, tmp_path)
    refused = CliRunner().invoke(main, ["verify", str(store / "exported"), "--model", str(tmp_path)])
    assert refused.exit_code == 2
    assert re.search(r"^logits .* NO$", refused.output, re.MULTILINE)
    assert "differs from eager PyTorch: logits" in refused.output


def test_verify_on_radiographs_finds_the_model_that_the_export_recorded(store, tmp_path):
    generator = np.random.default_rng(0)
    for name in ("a.png", "deeper/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), generator.integers(0, 256, (40, 50), np.uint8))
    (tmp_path / "listing.csv").write_text("no radiograph")
    assert "agrees with PyTorch on 2 images" in run("verify", store / "exported", "--images", tmp_path)
    assert "agrees with PyTorch on 1 images" in run("verify", store / "exported", "--images", tmp_path, "--count", 1)


def test_the_recorded_source_of_a_registered_model_is_its_run(store, checkpoint):
    run_id = MlflowClient(f"sqlite:///{store}/mlflow.db").get_model_version("crosseai", "1").run_id
    assert _source("models:/crosseai/1") == _source(f"runs:/{run_id}") == f"runs:/{run_id}"
    assert _source(str(checkpoint)) == str(checkpoint)


def test_verify_without_a_recorded_source_asks_for_the_model(store, tmp_path):
    spec = ModelSpec.load(store / "exported")
    replace(Golden.load(store / "exported", spec), source="").save(tmp_path)
    spec.save(tmp_path)
    refused = CliRunner().invoke(main, ["verify", str(tmp_path), "--images", str(tmp_path)])
    assert refused.exit_code == 2
    assert "expected --model" in refused.output


def test_verify_names_what_is_missing_or_broken(store, tmp_path):
    for name in ("model_spec.json", "golden.npz"):
        shutil.copy(store / "exported" / name, tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"no model")
    refused = CliRunner().invoke(main, ["verify", str(tmp_path)])
    assert (refused.exit_code, "ONNX Runtime cannot load it" in refused.output) == (2, True)
    (tmp_path / "golden.npz").write_bytes(b"no arrays")
    refused = CliRunner().invoke(main, ["verify", str(tmp_path)])
    assert (refused.exit_code, "expected the explanations recorded by the export" in refused.output) == (2, True)


def test_a_graph_beyond_its_tolerance_is_neither_written_nor_registered(store, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(TOLERANCES["fp16"], "activations", 1e-9)
    arguments = ["onnx", "--model", str(checkpoint), "--output", str(tmp_path), "--precision", "fp16"]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 2
    assert "differs from eager PyTorch: activations: expected <= 1e-09" in refused.output
    assert list(tmp_path.iterdir()) == []
    versions = MlflowClient(f"sqlite:///{store}/mlflow.db").search_model_versions("name = 'crosseai'")
    assert [int(version.version) for version in versions] == [1]


def test_the_kinds_of_maps_are_options_and_travel_with_the_model(checkpoint, tmp_path):
    arguments = ["--model", checkpoint, "--output", tmp_path, "--no-register", "--heatmap"]
    run("onnx", *arguments, "layercam", "--gradient", "plain")
    spec = ModelSpec.load(tmp_path)
    assert (spec.heatmap, spec.gradient) == ("layercam", "plain")
    assert "agrees with PyTorch on 3 images" in run("verify", tmp_path, "--model", checkpoint)
    refused = CliRunner().invoke(main, ["onnx", *map(str, arguments), "cam"])
    assert (refused.exit_code, "heat map cam: expected global average pooling" in refused.output) == (2, True)
    assert ModelSpec.load(tmp_path) == spec


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
