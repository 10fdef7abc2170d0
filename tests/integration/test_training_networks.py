"""Networks of one's own and published weights, from training to the exported graph."""

import csv
import importlib.util
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch.export import Dim

pytest.importorskip("mlflow")

from crosseai.contract import CHESTXRAY8, ModelSpec
from crosseai.export import export_onnx
from crosseai.training import load_checkpoint
from crosseai.training.cli import main
from crosseai.training.config import FitConfig
from crosseai.training.densenet import DenseNet
from crosseai.training.fit import fit
from tests.nih_layout import COLUMNS, write_data_set
from tests.unit.export.networks import DenseStyle, attentive, randomised

CONFIG = FitConfig(input_size=64, epochs=1, batch_size=8)


@pytest.fixture(autouse=True)
def _work_there(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path_factory.getbasetemp() / 'networks.db'}")


def test_a_colour_network_of_ones_own_is_trained_and_exported(tmp_path: Path) -> None:
    spec = ModelSpec(
        classes=CHESTXRAY8[:3],
        channels=3,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        input_size=64,
        layer="block2",
        feature_shape=(16, 8, 8),
    )
    torch.manual_seed(0)
    data = write_data_set(tmp_path / "data", patients=20)
    report = fit(data, CONFIG, network=(DenseStyle(), spec), output=tmp_path / "out")
    assert report is not None
    assert report.best_epoch.contrastive > 0
    model, spec = load_checkpoint(tmp_path / "out/checkpoint", DenseStyle())
    module = export_onnx(model, spec, tmp_path / "module.onnx", layer=spec.layer)
    assert all(parity.holds for parity in module.parity)

    program = torch.export.export(model, (torch.zeros(2, 3, 64, 64),), dynamic_shapes=({0: Dim("N")},))
    torch.export.save(program, tmp_path / "model.pt2")
    exported = export_onnx(torch.export.load(tmp_path / "model.pt2"), spec, tmp_path / "pt2.onnx", layer=spec.layer)
    assert all(parity.holds for parity in exported.parity)


@pytest.mark.parametrize("network", ["resnet18", "densenet"])
def test_the_registrys_other_networks_can_be_exported(tmp_path: Path, network: str) -> None:
    torch.manual_seed(0)
    model = attentive("resnet18", 4) if network == "resnet18" else DenseNet((1, 2, 1, 1), 8, 8)
    spec = ModelSpec(input_size=64, layer=model.explained_layer)
    report = export_onnx(randomised(model), spec, tmp_path / "model.onnx", layer=spec.layer)
    assert all(parity.holds for parity in report.parity)


@pytest.fixture
def few_real_radiographs(shared_data: Path, tmp_path: Path) -> Path:
    """Forty of them: enough patients for every part."""
    source, folder = shared_data / "nih", tmp_path / "nih"
    (folder / "images").mkdir(parents=True)
    with next(source.glob("Data_Entry_2017*.csv")).open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))[:40]
    with (folder / "Data_Entry_2017.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        (folder / "images" / row["Image Index"]).symlink_to(source / "images" / row["Image Index"])
    return folder


def test_fine_tuning_from_real_weights_on_real_radiographs(
    shared_data: Path, few_real_radiographs: Path, tmp_path: Path
) -> None:
    weights = shared_data / "weights" / "nih_resnet50_v1.safetensors"
    command = ["fit", "--data", str(few_real_radiographs), "--weights", str(weights), "--output", str(tmp_path / "out")]
    options = ["--config=paper", "--no-triplet-attention", "--input-size=64", "--epochs=1", "--batch-size=8"]
    result = CliRunner().invoke(main, [*command, *options])
    assert result.exit_code == 0, result.output
    assert "weights: 265 of 269 tensors loaded; fresh: head.0, head.2; unused: fc" in result.stderr
    model, spec = load_checkpoint(tmp_path / "out/checkpoint")
    assert spec.architecture.name == "resnet50"
    assert model.head[0].weight.isfinite().all()


def test_fine_tuning_the_network_that_the_weights_belong_to(
    shared_data: Path, few_real_radiographs: Path, tmp_path: Path
) -> None:
    code = importlib.util.spec_from_file_location("real_network", shared_data / "weights" / "model.py")
    module = importlib.util.module_from_spec(code)
    code.loader.exec_module(module)
    spec = ModelSpec(mean=(module.MEAN,), std=(module.STD,), input_size=64, feature_shape=(2048, 2, 2))
    report = fit(few_real_radiographs, CONFIG, network=(module.load(), spec), output=tmp_path / "out")
    assert report is not None
    trained, _ = load_checkpoint(tmp_path / "out/checkpoint", module.ResNet50V1())
    assert not torch.equal(trained.fc.weight, module.load().fc.weight)
