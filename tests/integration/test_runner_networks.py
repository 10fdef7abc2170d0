"""What the embedded server computes with, for exported networks of every family, against plain ONNX Runtime."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from crosseai.contract import MODEL_FILENAME, ModelSpec
from crosseai.export import export_onnx
from crosseai.export.verify import sample_images
from crosseai.serve.environment import KERNELS
from crosseai.training import build_model
from tests.unit.export import networks
from tests.unit.export.test_architectures import CLASSES, NETWORKS
from triton_models.backends.onnxruntime.cpu.runner import Runner

SIZE = 64


def assert_same_answers(file: Path, spec: ModelSpec, tolerance: float = 5e-4) -> None:
    whole = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    outputs = [tensor.name for tensor in spec.outputs]
    for images, explained in ((1, 1), (2, 3)):
        feed = {
            "image": sample_images(spec.input_size, images),
            "targets": np.tile(np.arange(explained) - 1, (images, 1)),
        }
        expected = whole.run(outputs, feed)
        for threads in (1, 3):  # image by image, and all at once
            runner = Runner(file, threads, batched=True, kernels=KERNELS)
            for name, found, wanted in zip(outputs, runner.run(outputs, feed), expected, strict=True):
                assert wanted.any() or name == "explained", f"{name}: nothing to compare"
                difference = np.linalg.norm(found.astype(float) - wanted)
                bound = tolerance * np.linalg.norm(wanted.astype(float))
                # a level more or less where a pixel lies between two
                assert difference <= bound + (name == "gradient_maps") * np.sqrt(wanted.size) / 4, name


FAMILIES = ["DenseNet", "MobileNet v3"]
"""Of torchvision; the others are wired alike."""


@pytest.mark.parametrize("name", FAMILIES)
def test_published_families(name, tmp_path):
    build, layer, channels = NETWORKS[f"torchvision {name}"]
    torch.manual_seed(0)
    spec = ModelSpec(input_size=SIZE, classes=CLASSES, channels=channels, mean=(0.5,) * channels, std=(0.2,) * channels)
    report = export_onnx(networks.randomised(build()), spec, tmp_path / "model.onnx", layer=layer)
    assert_same_answers(report.path, report.spec)


def test_our_own_network(small_model):
    assert_same_answers(small_model / MODEL_FILENAME, ModelSpec.load(small_model))


def test_half_precision(tmp_path):
    torch.manual_seed(0)
    model = networks.randomised(build_model("resnet14", triplet_attention=False, classes=3, width=16))
    report = export_onnx(model, ModelSpec(input_size=SIZE, classes=CLASSES), tmp_path / "model.onnx", precision="fp16")
    assert_same_answers(report.path, report.spec, 2e-2)
