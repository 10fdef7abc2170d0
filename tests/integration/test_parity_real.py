"""The trained network on real radiographs, against the libraries that people use."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import tests.torchvision_cpu  # noqa: F401  before pytorch_grad_cam, which imports torchvision
from crosseai.contract import MODEL_FILENAME, ModelSpec
from crosseai.training.folder import read_folder
from tests.unit.export.test_combined import combine, explain
from tests.unit.export.test_parity import assert_close, normalised, with_epsilon
from tests.unit.export.test_sources import CAPTUM, unscaled

captum_attr = pytest.importorskip("captum.attr", reason="Captum is not installed")
grad_cam = pytest.importorskip("pytorch_grad_cam", reason="pytorch-grad-cam is not installed")
pytestmark = pytest.mark.slow

CLASSES = np.array([[1, 7], [0, 1]])


def test_captum_and_grad_cam_agree(
    real_model: Path, real_network: tuple[nn.Module, ModelSpec], shared_data: Path
) -> None:
    """Ties in black borders are broken by rounding, which limits the agreement of input gradients."""
    model, spec = real_network
    images = read_folder(shared_data / "nih" / "images", spec, count=2)
    session = onnxruntime.InferenceSession(real_model / MODEL_FILENAME, providers=["CPUExecutionProvider"])
    gradients, maps = session.run(["input_gradients", "heatmaps"], {"image": images, "targets": CLASSES})
    image = normalised(torch.from_numpy(images), spec)
    for k, classes in enumerate(CLASSES.T.tolist()):
        with pytest.warns(UserWarning, match="Setting backward hooks on ReLU activations"):
            expected = captum_attr.GuidedBackprop(model).attribute(image.clone().requires_grad_(True), target=classes)
        assert_close(gradients[:, k], expected.detach().numpy(), 1e-2)
        with grad_cam.GradCAMPlusPlus(model, [model.layer4]) as cam:
            cam(image, [grad_cam.utils.model_targets.ClassifierOutputTarget(c) for c in classes])
            recorded = cam.activations_and_grads
            activations, true = recorded.activations[0].numpy(), recorded.gradients[0].numpy()
            theirs = np.maximum(cam.get_cam_image(None, model.layer4, None, activations, true), 0)
        assert_close(theirs, with_epsilon(activations, true, 1e-6), 1e-5)
        assert_close(maps[:, k], with_epsilon(activations, true, 0), 1e-4)


@pytest.mark.parametrize(
    ("heatmap", "theirs", "gradient"), [("gradcam", "GradCAM", "plain"), ("layercam", "LayerCAM", "deconvnet")]
)
@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations:UserWarning")
def test_the_other_maps_are_those_of_the_libraries(
    real_network: tuple[nn.Module, ModelSpec], shared_data: Path, heatmap: str, theirs: str, gradient: str
) -> None:
    """The combined graph, run by PyTorch; ties again limit the agreement of input gradients."""
    model, spec = real_network
    images = read_folder(shared_data / "nih" / "images", spec, count=2)
    graph = combine(model, replace(spec, heatmap=heatmap, gradient=gradient))
    found = explain(graph, torch.from_numpy(images), CLASSES[:, :1].tolist())
    image, classes = normalised(torch.from_numpy(images), spec), CLASSES[:, 0].tolist()
    options = {"abs": False} if gradient == "plain" else {}
    expected = CAPTUM[gradient](model).attribute(image.clone().requires_grad_(True), target=classes, **options)
    assert_close(found["input_gradients"][:, 0].numpy(), expected.detach().numpy(), 1e-2)
    with getattr(grad_cam, theirs)(model, [model.layer4]) as explainer:
        assert_close(found["heatmaps"][:, 0].numpy(), unscaled(explainer, model, image, classes), 1e-4)
