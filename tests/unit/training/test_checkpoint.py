"""Checkpoints survive the round trip, and refuse what is not theirs."""

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from crosseai.contract import Architecture, ContractError, InputError, ModelSpec
from crosseai.training import build_model, load_checkpoint, save_checkpoint
from crosseai.training.checkpoint import WeightsReport, load_weights

SPEC = ModelSpec(architecture=Architecture("resnet14", width=4), input_size=64, feature_shape=(128, 2, 2))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    folder = tmp_path / "checkpoint"
    save_checkpoint(build_model("resnet14", width=4).to(memory_format=torch.channels_last), SPEC, folder)
    return folder


def test_round_trip(checkpoint: Path) -> None:
    torch.manual_seed(0)
    original = build_model("resnet14", width=4)
    model, spec = load_checkpoint(checkpoint)
    assert not model.training
    assert spec == replace(SPEC, weights_sha256=spec.weights_sha256)
    assert len(spec.weights_sha256) == 64
    assert {file.name for file in checkpoint.iterdir()} == {"model.safetensors", "model_spec.json"}
    for name, tensor in original.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_other_weights_than_the_specs_are_refused(checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(ContractError, match=r"model\.safetensors: expected SHA-256"):
        load_checkpoint(checkpoint)


def test_weights_of_another_architecture_are_refused(checkpoint: Path) -> None:
    spec = ModelSpec.load(checkpoint)
    replace(spec, architecture=Architecture("resnet14", width=8)).save(checkpoint)
    with pytest.raises(ContractError, match="do not fit"):
        load_checkpoint(checkpoint)


def test_missing_parts_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(ContractError, match=r"expected a file model\.safetensors"):
        load_checkpoint(checkpoint)
    with pytest.raises(ContractError, match=r"model_spec\.json"):
        load_checkpoint(tmp_path)


def test_a_network_of_ones_own_comes_back_into_its_own_code(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    save_checkpoint(network, ModelSpec(), tmp_path)
    with pytest.raises(ContractError, match="expected a spec with an architecture, or the network itself"):
        load_checkpoint(tmp_path)
    copy = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    model, _ = load_checkpoint(tmp_path, copy)
    assert model is copy
    assert all(torch.equal(tensor, copy.state_dict()[name]) for name, tensor in network.state_dict().items())
    with pytest.raises(ContractError, match="do not fit the network"):
        load_checkpoint(tmp_path, nn.Conv2d(1, 2, 3))


def test_a_full_disk_leaves_the_old_checkpoint(checkpoint: Path) -> None:
    before = {file.name: file.read_bytes() for file in checkpoint.iterdir()}
    program = f"""
import resource
from pathlib import Path
from crosseai.contract import OutputError
from crosseai.training import build_model, load_checkpoint, save_checkpoint
folder = Path({str(checkpoint)!r})
model, spec = load_checkpoint(folder)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    save_checkpoint(build_model("resnet14", width=4), spec, folder)
except OutputError as error:
    print(error)
"""
    finished = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "model.safetensors: cannot be written: File too large; the file before is intact" in finished.stdout
    assert {file.name: file.read_bytes() for file in checkpoint.iterdir()} == before


def published_state(width: int = 4) -> dict[str, torch.Tensor]:
    """As the authors of triplet attention publish it: a colour stem, their own head, a DataParallel prefix."""
    state = build_model("resnet14", width=width).state_dict()
    state = {
        name: torch.randn_like(tensor, dtype=torch.float32) for name, tensor in state.items() if "head" not in name
    }
    state["conv1.weight"] = torch.randn(width, 3, 7, 7)
    state["fc.weight"], state["fc.bias"] = torch.randn(1000, 32 * width), torch.randn(1000)
    return {f"module.{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize("form", ["safetensors", "torch", "nested"])
def test_published_weights_load_by_their_own_names(tmp_path: Path, form: str) -> None:
    state = published_state()
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth.tar")
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if form == "nested" else state, path)
    model = build_model("resnet14", width=4)
    report = load_weights(model, path)
    name = "layer2.0.triplet_attention.hc.conv.conv.weight"
    assert torch.equal(model.state_dict()[name], state[f"module.{name}"])
    assert set(report.fresh) == {"head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias"}
    assert set(report.unused) == {"fc.weight", "fc.bias"}
    assert set(report.loaded) | set(report.fresh) == set(model.state_dict())


def test_the_report_names_what_did_not_match() -> None:
    report = WeightsReport(
        ("conv1.weight", "bn1.bias", "bn1.num_batches_tracked"), ("head.0.weight", "head.0.bias"), ("fc.weight",)
    )
    assert str(report) == "2 of 4 tensors loaded; fresh: head.0; unused: fc"
    assert str(WeightsReport(("w",), (), ())) == "1 of 1 tensors loaded; fresh: none; unused: none"


@pytest.mark.parametrize(
    ("published", "current"),
    [  # github.com/landskape-ai/triplet-attention: the code that the ImageNet weights were made by, and the later one
        ("ChannelGateH.spatial.conv.weight", "cw.conv.conv.weight"),
        ("ChannelGateW.spatial.bn.bias", "hc.conv.bn.bias"),
        ("SpatialGate.spatial.bn.running_mean", "hw.conv.bn.running_mean"),
        ("hw.conv.conv.weight", "hw.conv.conv.weight"),
    ],
)
def test_names_of_published_triplet_attention(tmp_path: Path, published: str, current: str) -> None:
    model, name = build_model("resnet14", width=4), f"layer3.0.triplet_attention.{current}"
    value = torch.randn_like(model.state_dict()[name])
    save_file({f"module.layer3.0.triplet_attention.{published}": value}, tmp_path / "w.safetensors")
    assert load_weights(model, tmp_path / "w.safetensors").loaded == (name,)
    assert torch.equal(model.state_dict()[name], value)


@pytest.mark.parametrize("old", ["norm.1.running_var", "conv.2.weight"])
def test_names_of_torchvisions_first_densenets(tmp_path: Path, old: str) -> None:
    model = build_model("densenet121", width=4, triplet_attention=False)
    name = f"features.denseblock3.denselayer24.{old.replace('.1.', '1.').replace('.2.', '2.')}"
    value = torch.rand_like(model.state_dict()[name])
    torch.save({f"features.denseblock3.denselayer24.{old}": value}, tmp_path / "w.pth")
    assert load_weights(model, tmp_path / "w.pth").loaded == (name,)
    assert torch.equal(model.state_dict()[name], value)


def test_a_colour_stem_sees_a_gray_image_as_three_equal_channels(tmp_path: Path) -> None:
    state = published_state()
    save_file(state, tmp_path / "weights.safetensors")
    model = build_model("resnet14", width=4)
    load_weights(model, tmp_path / "weights.safetensors")
    gray = torch.randn(1, 1, 32, 32)
    colour = state["module.conv1.weight"]
    expected = torch.nn.functional.conv2d(gray.expand(-1, 3, -1, -1), colour, stride=2, padding=3)
    torch.testing.assert_close(model.conv1(gray), expected, rtol=1e-4, atol=1e-4)


class Payload:
    """Would run code when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("executed",))


def test_pickled_code_is_not_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"conv1.weight": Payload()}, path)
    with pytest.raises(InputError, match="expected a file of tensors"):
        load_weights(build_model("resnet14", width=4), path)
    path.write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(InputError, match="expected a file of tensors"):
        load_weights(build_model("resnet14", width=4), path)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not tensors at all", b"\x08\0\0\0\0\0\0\0{}      "])
@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_broken_weight_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="expected"):
        load_weights(build_model("resnet14", width=4), tmp_path / name)


def test_weights_that_share_nothing_are_refused(tmp_path: Path) -> None:
    save_file({"encoder.weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"encoder\.weight"):
        load_weights(build_model("resnet14", width=4), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="expected a file of tensors"):
        load_weights(build_model("resnet14", width=4), tmp_path / "absent.safetensors")
