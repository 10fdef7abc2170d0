"""Verification: what it accepts and what it refuses."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from crosseai.contract import ContractError, ModelSpec
from crosseai.contract.golden import Golden
from crosseai.export.capture import capture
from crosseai.export.combined import CombinedGraph
from crosseai.export.verify import Parity, Run, agree, compare, onnx_runtime, record, require, sample_images
from tests.unit.export import networks

Outputs = dict[str, npt.NDArray]

SPEC = ModelSpec(input_size=16, classes=("a", "b", "c"), layer="features", feature_shape=(4, 7, 7))


@pytest.fixture(scope="module")
def graph() -> CombinedGraph:
    return CombinedGraph(capture(networks.tiny(), SPEC.layer, 1, SPEC.input_size), SPEC).eval()


@pytest.fixture(scope="module")
def golden() -> Golden:
    return record(networks.tiny(), SPEC, source="runs:/1")


def spoilt(graph: CombinedGraph, spoil: Callable[[Outputs, npt.NDArray], None]) -> Run:
    """What the graph computes, spoilt by a function that is told the targets."""

    def run(images: npt.NDArray, targets: npt.NDArray) -> Outputs:
        with torch.no_grad():
            tensors = graph(torch.from_numpy(images.copy()), torch.from_numpy(targets.copy()))
        outputs = {t.name: tensor.numpy().copy() for t, tensor in zip(SPEC.outputs, tensors, strict=True)}
        spoil(outputs, targets)
        return outputs

    return run


def outcome(
    graph: CombinedGraph, golden: Golden, spoil: Callable[[Outputs, npt.NDArray], None], spec: ModelSpec = SPEC
) -> dict[str, bool]:
    """Which outputs hold when what the graph computes is spoilt, given the targets that it was asked for."""
    return {parity.output: parity.holds for parity in compare(spoilt(graph, spoil), spec, golden)}


def test_the_graph_of_the_model_holds(graph, golden):
    assert all(outcome(graph, golden, lambda _outputs, _targets: None).values())


@pytest.mark.parametrize("name", [output.name for output in SPEC.outputs if output.name != "explained"])
def test_one_wrong_output_is_noticed_and_no_other(graph, golden, name):
    def spoil(outputs: Outputs, _: npt.NDArray) -> None:
        outputs[name][:] = outputs[name][::-1] * 0.5 + 1

    assert [n for n, holds in outcome(graph, golden, spoil).items() if not holds] == [name]


def test_a_graph_must_agree_on_one_set_of_images(graph):
    right = spoilt(graph, lambda _outputs, _targets: None)

    def wrong_on_the_first(images: npt.NDArray, targets: npt.NDArray) -> Outputs:
        outputs, first = right(images, targets), sample_images(SPEC.input_size)
        if any(np.array_equal(image, other) for image in images for other in first):
            outputs["input_gradients"] *= 2
        return outputs

    golden, parity = agree(wrong_on_the_first, networks.tiny(), SPEC)
    assert all(output.holds for output in parity)
    np.testing.assert_array_equal(golden.images, sample_images(SPEC.input_size, seed=1))
    for run, spec in (
        (wrong_on_the_first, replace(SPEC, precision="fp16")),
        (spoilt(graph, lambda outputs, _: outputs.update(input_gradients=outputs["input_gradients"] * 2)), SPEC),
    ):
        with pytest.raises(ContractError, match="input_gradients: expected"):
            agree(run, networks.tiny(), spec)


def test_nan_is_noticed(graph, golden):
    def spoil(outputs: Outputs, _: npt.NDArray) -> None:
        outputs["heatmaps"][0, 0, 0, 0] = np.nan

    assert not outcome(graph, golden, spoil)["heatmaps"]


def test_a_wrong_ranking_is_noticed(graph, golden):
    def spoil(outputs: Outputs, targets: npt.NDArray) -> None:
        if (targets == -1).all():
            outputs["explained"] = outputs["explained"][:, ::-1].copy()

    assert not outcome(graph, golden, spoil)["explained"]


def test_maps_of_another_class_than_the_ranked_one_are_noticed(graph, golden):
    def spoil(outputs: Outputs, targets: npt.NDArray) -> None:
        if (targets == -1).all():
            outputs["heatmaps"] = outputs["heatmaps"][:, ::-1].copy()

    assert not outcome(graph, golden, spoil)["heatmaps"]


def test_missing_outputs_and_wrong_types_are_refused(graph, golden):
    with pytest.raises(ContractError, match="expected an output 'logits'"):
        outcome(graph, golden, lambda outputs, _: outputs.pop("logits"))
    with pytest.raises(ContractError, match=r"'logits': expected float32.*found float64"):
        outcome(graph, golden, lambda outputs, _: outputs.update(logits=outputs["logits"].astype(np.float64)))


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    for graph in (tmp_path / "model.onnx", tmp_path / "absent.onnx", b"no model"):
        with pytest.raises(ContractError, match="ONNX Runtime cannot load it"):
            onnx_runtime(graph)


def test_golden_outputs_survive_the_file(golden, tmp_path):
    golden.save(tmp_path)
    loaded = Golden.load(tmp_path, SPEC)
    assert (loaded.source, loaded.eager_errors) == ("runs:/1", golden.eager_errors)
    assert np.array_equal(loaded.images, golden.images)
    assert np.array_equal(loaded.targets, golden.targets)
    assert all(np.array_equal(loaded.outputs[name], array) for name, array in golden.outputs.items())


@pytest.mark.parametrize("spoil", ["missing", "garbage", "incomplete", "objects"])
def test_golden_files_that_are_not_whole_are_refused(golden, tmp_path: Path, spoil):
    file = golden.save(tmp_path)
    if spoil == "missing":
        file.unlink()
    elif spoil == "garbage":
        file.write_bytes(b"no arrays")
    else:
        with np.load(file) as arrays:
            kept = {name: arrays[name] for name in arrays if name != "logits"}
        np.savez(file, **kept, **({"logits": np.array([{}], object)} if spoil == "objects" else {}))
    with pytest.raises(ContractError, match="expected the explanations recorded by the export"):
        Golden.load(tmp_path, SPEC)


def test_golden_outputs_of_another_model_are_refused(golden, tmp_path):
    golden.save(tmp_path)
    with pytest.raises(ContractError, match="'image': expected"):
        Golden.load(tmp_path, replace(SPEC, input_size=32))


def test_an_error_within_tolerance_or_near_that_of_pytorch_holds():
    assert Parity("logits", error=1e-6, eager_error=1e-7, tolerance=2e-5).holds
    assert Parity("input_gradients", error=1e-3, eager_error=9e-4, tolerance=5e-4).holds
    assert not Parity("input_gradients", error=3e-3, eager_error=9e-4, tolerance=5e-4).holds
    assert not Parity("logits", error=float("nan"), eager_error=0.0, tolerance=2e-5).holds


def test_every_failed_output_is_listed():
    failed = [Parity(name, error=0.5, eager_error=0.0, tolerance=0.1) for name in ("logits", "heatmaps")]
    with pytest.raises(ContractError, match=r"logits: expected <= 0\.1, found 0\.5; heatmaps"):
        require([*failed, Parity("activations", 0.0, 0.0, 0.1)])
    require([])


def test_sample_images_fill_the_gray_range_and_are_nowhere_constant():
    images = sample_images(64, 3)
    assert images.shape == (3, 1, 64, 64)
    assert images.dtype == np.uint8
    assert len(np.unique(images)) > 150
    windows = np.lib.stride_tricks.sliding_window_view(images, (4, 4), axis=(2, 3))
    assert (windows.max((-1, -2)) > windows.min((-1, -2))).all()
    assert np.array_equal(images, sample_images(64, 3))
