"""Against Captum and pytorch-grad-cam, on ties, and for any targets."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.export import Dim

import tests.torchvision_cpu  # noqa: F401  before pytorch_grad_cam, which imports torchvision
from crosseai.contract import ModelSpec
from crosseai.export.combined import CombinedGraph
from crosseai.export.reference import EagerReference
from crosseai.export.verify import sample_images
from tests.unit.export import networks
from tests.unit.export.test_combined import DENSE, IMAGES, OURS, TINY, TINY_IMAGES, combine, explain

captum_attr = pytest.importorskip("captum.attr", reason="Captum is not installed")
grad_cam = pytest.importorskip("pytorch_grad_cam", reason="pytorch-grad-cam is not installed")

PER_CLASS = ("heatmaps", "gradient_maps", "activation_gradients", "input_gradients")


def normalised(images: Tensor, spec: ModelSpec) -> Tensor:
    mean, std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in (spec.mean, spec.std))
    return (images.float() / 255 - mean) / std


@pytest.mark.parametrize("triplet_attention", [False, True])
def test_input_gradients_are_captums_guided_backpropagation(triplet_attention):
    model = networks.residual(triplet_attention=triplet_attention)
    targets = [[0, 2], [1, 1], [2, 0], [0, 1]]
    found = explain(combine(model, OURS), IMAGES, targets)["input_gradients"]
    for k in range(2):
        image = normalised(IMAGES, OURS).requires_grad_(True)
        with pytest.warns(UserWarning, match="Setting backward hooks on ReLU activations"):
            expected = captum_attr.GuidedBackprop(model).attribute(image, target=[row[k] for row in targets])
        assert (found[:, k] - expected).norm() <= 1e-3 * expected.norm()


def with_epsilon(activations: np.ndarray, gradients: np.ndarray, epsilon: float) -> np.ndarray:
    """Equation 19 of the paper with an epsilon in the denominator, in float64."""
    a, g = activations.astype(np.float64), gradients.astype(np.float64)
    denominator = 2 * g**2 + a.sum((2, 3), keepdims=True) * g**3 + epsilon
    alpha = np.divide(g**2, denominator, out=np.zeros_like(g), where=denominator != 0)
    weights = (alpha * np.maximum(g, 0)).sum((2, 3), keepdims=True)
    return np.maximum((weights * a).sum(1), 0)


@pytest.mark.parametrize("scale", [1e-2, 1e4])
def test_heat_maps_are_those_of_pytorch_grad_cam_but_for_its_epsilon(scale):
    """pytorch-grad-cam adds 1e-6 to the denominator of alpha, which only gradients far above 1e-3 can ignore."""
    model = networks.residual()
    model.head[-1].weight.data.mul_(scale)
    classes = [3, 1, 4, 1]
    found = explain(combine(model, OURS), IMAGES, [[c] for c in classes])["heatmaps"][:, 0].double().numpy()
    with grad_cam.GradCAMPlusPlus(model, [model.layer4]) as cam:
        targets = [grad_cam.utils.model_targets.ClassifierOutputTarget(c) for c in classes]
        cam(normalised(IMAGES, OURS), targets)
        recorded = cam.activations_and_grads
        activations, gradients = recorded.activations[0].numpy(), recorded.gradients[0].numpy()
        theirs = np.maximum(cam.get_cam_image(None, model.layer4, targets, activations, gradients), 0)
    assert_close(theirs, with_epsilon(activations, gradients, 1e-6), 1e-5)
    assert_close(found, with_epsilon(activations, gradients, 0), 1e-4)
    difference = np.linalg.norm(theirs - found) / np.linalg.norm(found)
    assert difference < 1e-4 if scale > 1 else difference > 1e-2


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert np.linalg.norm(expected) > 0
    assert np.linalg.norm(found - expected) <= tolerance * np.linalg.norm(expected)


class Tied(nn.Module):
    """Small whole numbers throughout, so that ties are exact: max pooling, the largest of channels, and ``amax``."""

    def __init__(self, gate: str) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.head = nn.Linear(8, 3)
        self.gate = gate
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data = torch.randint(-1, 2, parameter.shape, generator=generator).float()

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        largest = x.amax(1, keepdim=True) if self.gate == "amax" else x.max(1, keepdim=True).values
        if self.gate == "max and mean":  # what the mean sends back, the same for all channels, comes first
            largest = largest + x.mean(1, keepdim=True)
        y = x * largest if self.gate in ("max", "amax") else largest.expand(-1, 4, -1, -1)
        return self.head(torch.cat([y.sum((2, 3)), y.amax((2, 3))], 1))


@pytest.mark.parametrize("gate", ["max", "max alone", "max and mean", "amax"])
def test_ties_are_broken_as_pytorch_breaks_them(gate):
    """``max_pool2d`` and ``max(dim)`` send the gradient to the first maximum; ``amax`` shares it among all."""
    model = Tied(gate).eval()
    spec = ModelSpec(input_size=16, classes=("a", "b", "c"), layer="features", mean=(0.0,), std=(1.0,))
    images = torch.randint(0, 2, (3, 1, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8) * 255
    images[:, :, :5] = 0  # a black border
    found = explain(combine(model, spec), images, [[0, 1, 2]] * 3)
    reference = EagerReference(model, spec, torch.float64)
    for k in range(3):
        expected = reference.explain(images.numpy(), np.full(3, k))
        for name in ("activation_gradients", "input_gradients"):
            torch.testing.assert_close(found[name][:, k].double(), getattr(expected, name), rtol=1e-5, atol=1e-5)


@cache
def tiny_graph() -> CombinedGraph:
    return combine(networks.tiny(), TINY)


@settings(max_examples=30)
@given(data=st.data(), count=st.integers(1, 4), explained=st.integers(1, 5))
def test_any_targets_in_any_batch(data, count, explained):
    """Repeated, ranked and unknown classes, more than there are: each as if it were explained alone."""
    rows = data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    row = st.lists(st.integers(-3, 5), min_size=explained, max_size=explained)
    targets = data.draw(st.lists(row, min_size=count, max_size=count))
    found = explain(tiny_graph(), TINY_IMAGES[rows], targets)
    alone = explain(tiny_graph(), TINY_IMAGES, [[0, 1, 2]] * 3)
    ranking = alone["logits"].argsort(1, descending=True)
    for n, image in enumerate(rows):
        torch.testing.assert_close(found["logits"][n], alone["logits"][image])
        for k, target in enumerate(targets[n]):
            ranked = int(ranking[image, k]) if k < 3 else -1
            expected = ranked if target == -1 else target
            assert found["explained"][n, k] == expected
            for name in PER_CLASS:
                if 0 <= expected < 3:
                    level = 1.0 if name == "gradient_maps" else 1e-5
                    want = alone[name][image, expected].float()
                    torch.testing.assert_close(found[name][n, k].float(), want, rtol=1e-4, atol=level)
                else:
                    assert not found[name][n, k].any()


@pytest.mark.parametrize(("build", "spec"), [(networks.tiny, TINY), (networks.dense, DENSE)], ids=["gray", "colour"])
def test_a_saved_program_explains_as_its_module_does(build, spec, tmp_path):
    shape = (2, spec.channels, spec.input_size, spec.input_size)
    program = torch.export.export(build(), (torch.zeros(shape),), dynamic_shapes=({0: Dim.DYNAMIC},))
    torch.export.save(program, tmp_path / "model.pt2")
    images = torch.from_numpy(sample_images(spec.input_size, 3))
    targets = [[0, -1], [1, -1], [2, -1]]
    loaded = torch.export.load(tmp_path / "model.pt2")
    found, expected = (explain(combine(model, spec), images, targets) for model in (loaded, build()))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor)
