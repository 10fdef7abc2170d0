"""A real network on real radiographs."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from crosseai.contract import MODEL_FILENAME, ModelSpec
from crosseai.export import verify
from crosseai.imaging import preprocess, read_radiograph

pytestmark = pytest.mark.slow


def test_parity_on_real_radiographs(real_model: Path, shared_data: Path) -> None:
    module_spec = importlib.util.spec_from_file_location("nih_resnet50", shared_data / "weights" / "model.py")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    spec = ModelSpec.load(real_model)
    files = sorted((shared_data / "nih" / "images").glob("*.png"))[:4]
    images = np.stack([preprocess(read_radiograph(file), spec) for file in files])
    parity = verify(
        real_model / MODEL_FILENAME,
        module.load(str(shared_data / "weights" / "nih_resnet50_v1.safetensors")),
        spec,
        images,
    )
    assert all(p.holds for p in parity), parity
    errors = {p.output: p.error for p in parity}
    assert max(errors["logits"], errors["activations"], errors["activation_gradients"]) <= 2e-5
    assert errors["input_gradients"] <= 1e-2
