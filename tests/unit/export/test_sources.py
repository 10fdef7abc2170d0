"""The eager sources of maps against Captum, pytorch-grad-cam and what their papers promise."""

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tests.torchvision_cpu  # noqa: F401  before pytorch_grad_cam, which imports torchvision
from crosseai.contract import InputError, ModelSpec
from crosseai.contract.spec import GradientMethod, HeatmapMethod
from crosseai.export.reference import EagerReference
from crosseai.export.sources import (
    GRADIENTS,
    HEATMAPS,
    GradientSource,
    ReLURule,
    integrated_gradients,
    reverse_pass,
    smoothgrad,
)
from crosseai.export.verify import sample_images
from tests.unit.export import networks
from tests.unit.export.test_parity import assert_close, normalised

captum_attr = pytest.importorskip("captum.attr", reason="Captum is not installed")
grad_cam = pytest.importorskip("pytorch_grad_cam", reason="pytorch-grad-cam is not installed")

SPEC = ModelSpec(input_size=64)
IMAGES = sample_images(64, 3)
CLASSES = np.array([3, 1, 4])


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return networks.residual()


def explain(model: nn.Module, heatmap: HeatmapMethod | None = None, gradient: GradientSource | None = None) -> Any:
    return EagerReference(model, SPEC, torch.float32, heatmap=heatmap, gradient=gradient).explain(IMAGES, CLASSES)


def test_the_registries_have_what_a_spec_may_name() -> None:
    assert set(HEATMAPS) == set(get_args(HeatmapMethod))
    assert set(get_args(GradientMethod)) < set(GRADIENTS) == set(get_args(GradientSource))


@pytest.mark.parametrize(("method", "theirs"), [("gradcam", "GradCAM"), ("layercam", "LayerCAM")])
def test_heat_maps_are_those_of_pytorch_grad_cam(model: nn.Module, method: HeatmapMethod, theirs: str) -> None:
    """To rounding, before it scales them; Grad-CAM++ has its epsilon, see ``test_parity.py``."""
    found = explain(model, method).heatmaps.numpy()
    with getattr(grad_cam, theirs)(model, [model.layer4]) as explainer:
        expected = unscaled(explainer, model, normalised(torch.from_numpy(IMAGES), SPEC), CLASSES.tolist())
    assert found.shape == (3, 2, 2)
    assert_close(found, expected, 1e-5)


def unscaled(explainer: Any, model: nn.Module, image: Tensor, classes: Sequence[int]) -> np.ndarray:
    """What pytorch-grad-cam computes before it scales and enlarges."""
    targets = [grad_cam.utils.model_targets.ClassifierOutputTarget(c) for c in classes]
    explainer(image, targets)
    recorded = explainer.activations_and_grads
    activations, gradients = recorded.activations[0].numpy(), recorded.gradients[0].numpy()
    return np.maximum(explainer.get_cam_image(image, model.layer4, targets, activations, gradients, False), 0)


class LinearHead(nn.Module):
    """Our network with the head that CAM needs."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = networks.residual()
        self.layer4 = self.trunk.layer4
        self.trunk.head = nn.Identity()
        torch.manual_seed(3)
        self.fc = nn.Linear(128, 8)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.trunk(x))
        return logits


def test_cam_is_the_classes_weights_times_the_activations_and_grad_cam_its_positive_part() -> None:
    """Selvaraju et al., section 3.1: Grad-CAM is CAM but for a factor of ``h w`` and its ReLU."""
    model = LinearHead().eval()
    found = explain(model, "cam")
    weights = model.fc.weight[torch.from_numpy(CLASSES)].detach()
    expected = torch.einsum("ndhw,nd->nhw", found.activations, weights)
    torch.testing.assert_close(found.heatmaps, expected, rtol=1e-4, atol=1e-5)
    assert (found.heatmaps < 0).any()
    with grad_cam.GradCAM(model, [model.layer4]) as explainer:
        theirs = unscaled(explainer, model, normalised(torch.from_numpy(IMAGES), SPEC), CLASSES.tolist())
    assert_close(found.heatmaps.clamp(min=0).numpy(), 4 * theirs, 1e-4)


@pytest.mark.parametrize("layer", ["layer4", "layer3"])
def test_a_head_without_cam_is_refused(model: nn.Module, layer: str) -> None:
    """Our own head has a hidden layer; behind ``layer3`` there are convolutions, whatever the head."""
    network = model if layer == "layer4" else LinearHead().eval().trunk
    spec = ModelSpec(input_size=64, layer=layer, heatmap="cam", classes=tuple(map(str, range(128))))
    with pytest.raises(InputError, match=f"global average pooling and one linear layer after '{layer}'"):
        EagerReference(network, spec, torch.float64).explain(IMAGES, CLASSES)


def test_a_frozen_network_is_explained_as_any(model: nn.Module) -> None:
    frozen = networks.residual().requires_grad_(False)
    found, expected = explain(frozen), explain(model)
    torch.testing.assert_close(found.heatmaps, expected.heatmaps)
    torch.testing.assert_close(found.input_gradients, expected.input_gradients)


def test_an_unknown_layer_is_refused(model: nn.Module) -> None:
    with pytest.raises(InputError, match="expected a layer 'layer9'"):
        EagerReference(model, ModelSpec(layer="layer9"), torch.float32)


CAPTUM = {
    "guided": lambda model: captum_attr.GuidedBackprop(model),
    "deconvnet": lambda model: captum_attr.Deconvolution(model),
    "plain": lambda model: captum_attr.Saliency(model),
}


@pytest.mark.parametrize("method", CAPTUM)
@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations:UserWarning")
def test_gradients_are_captums(model: nn.Module, method: GradientMethod) -> None:
    """Captum's Saliency is the absolute gradient unless told otherwise."""
    options = {"abs": False} if method == "plain" else {}
    image = normalised(torch.from_numpy(IMAGES), SPEC).requires_grad_(True)
    expected = CAPTUM[method](model).attribute(image, target=CLASSES.tolist(), **options)
    assert_close(explain(model, gradient=method).input_gradients.numpy(), expected.detach().numpy(), 1e-5)


def test_smoothgrad_is_captums_noise_tunnel_with_the_same_noise(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Captum draws the copies of an image together, with one deviation for all images; ours depends on the image."""
    image = normalised(torch.from_numpy(IMAGES[:1]), SPEC)
    deviation = float(0.1 * (image.max() - image.min()))
    noise = torch.randn(7, *image.shape, generator=torch.Generator().manual_seed(5))[:, 0]
    monkeypatch.setattr(torch, "normal", lambda mean, std: mean + std * noise)
    tunnel = captum_attr.NoiseTunnel(captum_attr.Saliency(model))
    options = {"nt_type": "smoothgrad", "nt_samples": 7, "stdevs": deviation, "abs": False}
    expected = tunnel.attribute(image.requires_grad_(True), target=3, **options)
    found = smoothgrad(lambda x: model(x)[:, 3], image.detach(), samples=7, noise=0.1, seed=5)
    assert_close(found.numpy(), expected.detach().numpy(), 1e-5)


def test_integrated_gradients_are_captums(model: nn.Module) -> None:
    """With Captum's midpoint rule, to rounding; its default is another quadrature."""
    image = normalised(torch.from_numpy(IMAGES), SPEC)
    black = normalised(torch.zeros(1, 1, 1, 1), SPEC)
    options = {"baselines": black.expand(1, 1, 64, 64), "n_steps": 50, "method": "riemann_middle"}
    expected = captum_attr.IntegratedGradients(model).attribute(image, target=CLASSES.tolist(), **options)
    assert_close(explain(model, gradient="integrated").input_gradients.numpy(), expected.detach().numpy(), 1e-4)


def test_integrated_gradients_add_up_to_the_difference_from_a_black_image() -> None:
    """Completeness, proposition 1 of the paper."""
    model = networks.residual().double()
    image = normalised(torch.from_numpy(IMAGES[:1]), SPEC).double()
    black = normalised(torch.zeros(1, 1, 1, 1), SPEC).double()

    def score(x: Tensor) -> Tensor:
        chosen: Tensor = model(x)[:, 2]
        return chosen

    found = integrated_gradients(score, image, black, steps=400).sum((1, 2, 3))
    expected = score(image) - score(black.expand(1, 1, 64, 64))
    torch.testing.assert_close(found, expected.detach(), rtol=2e-2, atol=1e-5)


def test_smoothgrad_without_noise_is_the_gradient_and_the_noise_is_always_the_same(model: nn.Module) -> None:
    image = normalised(torch.from_numpy(IMAGES), SPEC)

    def score(x: Tensor) -> Tensor:
        chosen: Tensor = model(x)[:, 0]
        return chosen

    torch.testing.assert_close(smoothgrad(score, image, samples=2, noise=0.0), reverse_pass(score, image))
    noisy = smoothgrad(score, image, samples=3)
    torch.testing.assert_close(smoothgrad(score, image[2:], samples=3), noisy[2:])
    assert not torch.allclose(noisy, smoothgrad(score, image, samples=3, seed=1))


RELUS = {
    "module": nn.ReLU(),
    "in-place module": nn.ReLU(inplace=True),
    "function": F.relu,
    "in-place function": torch.relu_,
    "method": lambda x: x.relu(),
    "operator": torch.ops.aten.relu.default,
}


@pytest.mark.parametrize("name", RELUS)
@pytest.mark.parametrize(
    ("method", "expected"),
    [("plain", [0.0, 0.0, -3.0, 3.0]), ("guided", [0.0, 0.0, 0.0, 3.0]), ("deconvnet", [3.0, 0.0, 0.0, 3.0])],
)
def test_every_way_to_write_a_relu_follows_the_rule(name: str, method: GradientMethod, expected: list[float]) -> None:
    """The input of the ReLU also has another reader, whose gradient no rule touches."""
    leaf = torch.tensor([-1.0, -1.0, 2.0, 2.0], requires_grad=True)
    doubled = leaf * 2
    other = doubled.sum()
    with ReLURule(method):
        output = RELUS[name](doubled)
        assert output.tolist() == [0, 0, 4, 4]
        total = (output * torch.tensor([3.0, -3.0, -3.0, 3.0])).sum() + other
    (found,) = torch.autograd.grad(total, leaf)
    assert (found / 2 - 1).tolist() == expected
