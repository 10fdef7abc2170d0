"""A real network on real radiographs."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from torch import nn

from crosseai import postproc
from crosseai.contract import MODEL_FILENAME, ModelSpec
from crosseai.export import export_onnx, verify
from crosseai.export.verify import onnx_runtime
from crosseai.training.folder import read_folder

pytestmark = pytest.mark.slow


def test_parity_on_real_radiographs(
    real_model: Path, real_network: tuple[nn.Module, ModelSpec], shared_data: Path
) -> None:
    spec = ModelSpec.load(real_model)
    images = read_folder(shared_data / "nih" / "images", spec, count=4)
    parity = verify(real_model / MODEL_FILENAME, real_network[0], spec, images)
    assert all(p.holds for p in parity), parity
    errors = {p.output: p.error for p in parity}
    assert max(errors["logits"], errors["activations"], errors["activation_gradients"]) <= 2e-5
    assert errors["input_gradients"] <= 1e-2


def test_half_precision_keeps_most_boxes_of_float32(
    real_model: Path, real_network: tuple[nn.Module, ModelSpec], shared_data: Path, tmp_path: Path
) -> None:
    half = export_onnx(*real_network, tmp_path / MODEL_FILENAME, precision="fp16")
    assert half.size_bytes < 0.51 * (real_model / MODEL_FILENAME).stat().st_size
    images = read_folder(shared_data / "nih" / "images", half.spec, count=8)
    expected = onnx_runtime(real_model / MODEL_FILENAME)(images, np.full((8, 3), -1))
    found = onnx_runtime(half.path)(images, expected["explained"])
    boxes = [_boxes(outputs["heatmaps"], outputs["gradient_maps"], half.spec) for outputs in (found, expected)]
    assert boxes[0].shape == (24, 4)
    # Where two candidates score alike, any change picks the other: benchmarks/precision.md has the whole picture.
    overlap = _iou(*boxes)
    assert (overlap == 1).mean() >= 0.4
    assert overlap.mean() >= 0.8


def _boxes(heatmaps: npt.NDArray[np.float32], maps: npt.NDArray[np.uint8], spec: ModelSpec) -> npt.NDArray[np.int32]:
    """One box a heat map, ``[N * K, 4]``."""
    flat = [np.ascontiguousarray(array.reshape(-1, *array.shape[2:])) for array in (heatmaps, maps)]
    return postproc.localize(*flat, **spec.boxes.keywords())[0]


def _iou(a: npt.NDArray[np.int32], b: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Intersection over union, row by row."""
    shared = (np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])).clip(0).prod(1)
    areas = [(box[:, 2:] - box[:, :2]).prod(1) for box in (a, b)]
    return shared / (areas[0] + areas[1] - shared)
