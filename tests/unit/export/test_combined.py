"""The combined graph, run by PyTorch, against eager autograd with hooks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from crosseai.contract import InputError, ModelSpec
from crosseai.export.capture import capture
from crosseai.export.combined import CombinedGraph, gradient_maps
from crosseai.export.reference import EagerReference
from crosseai.export.verify import sample_images
from tests.unit.export import networks

SIZE = 32
OURS = ModelSpec(input_size=SIZE)
DENSE = ModelSpec(
    input_size=SIZE, classes=("a", "b", "c"), channels=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), layer="block2"
)
TINY = ModelSpec(input_size=16, classes=("a", "b", "c"), layer="features")
IMAGES = torch.from_numpy(sample_images(SIZE, 4))


def combine(model: nn.Module | ExportedProgram, spec: ModelSpec) -> CombinedGraph:
    return CombinedGraph(capture(model, spec.layer, spec.channels, spec.input_size), spec).eval()


def explain(graph: CombinedGraph, images: torch.Tensor, targets: list[list[int]]) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return dict(zip([o.name for o in OURS.outputs], graph(images, torch.tensor(targets)), strict=True))


@pytest.fixture(scope="module")
def tiny() -> CombinedGraph:
    return combine(networks.tiny(), TINY)


TINY_IMAGES = torch.from_numpy(sample_images(16, 3))


@pytest.mark.parametrize(
    ("model", "spec"),
    [
        (networks.residual(), OURS),
        (networks.residual(triplet_attention=False), OURS),
        (networks.residual(), ModelSpec(input_size=SIZE, layer="layer3")),
        (networks.dense(), DENSE),
        (networks.residual(), replace(OURS, heatmap="gradcam", gradient="plain")),
        (networks.dense(), replace(DENSE, heatmap="layercam", gradient="deconvnet")),
        (networks.tiny(), ModelSpec(input_size=SIZE, classes=("a", "b", "c"), layer="features", heatmap="cam")),
    ],
    ids=["attention", "plain", "another layer", "dense", "Grad-CAM, gradient", "LayerCAM, deconvnet", "CAM"],
)
def test_every_output_equals_eager_autograd(model, spec):
    targets = np.array([[0, 2], [1, 1], [2, 0], [0, 1]])
    found = explain(combine(model, spec), IMAGES, targets.tolist())
    reference = EagerReference(model, spec, torch.float32)
    for k in range(targets.shape[1]):
        expected = reference.explain(IMAGES.numpy(), targets[:, k])
        pairs = {name: found[name][:, k] for name in ("activation_gradients", "input_gradients", "heatmaps")}
        pairs |= {name: found[name] for name in ("logits", "activations")}
        for name, tensor in pairs.items():
            want = getattr(expected, name)
            assert tensor.shape == want.shape
            assert (tensor - want).norm() <= 1e-3 * want.norm(), name
        assert (found["gradient_maps"][:, k].float() - expected.gradient_maps).abs().max() <= 1


def test_an_exported_program_gives_the_same_as_its_module():
    model = networks.tiny()
    program = torch.export.export(model, (torch.zeros(2, 1, 16, 16),), dynamic_shapes=({0: Dim.DYNAMIC},))
    targets = [[0], [1], [2]]
    found, expected = (explain(combine(m, TINY), TINY_IMAGES, targets) for m in (program, model))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    reference = EagerReference(program, TINY, torch.float32).explain(TINY_IMAGES.numpy(), np.array([0, 1, 2]))
    torch.testing.assert_close(found["input_gradients"][:, 0], reference.input_gradients)


def test_minus_one_is_the_class_of_that_rank(tiny):
    found = explain(tiny, TINY_IMAGES, [[-1, -1, -1, -1]] * 3)
    ranking = found["logits"].argsort(1, descending=True)
    assert torch.equal(found["explained"][:, :3], ranking)
    assert (found["explained"][:, 3] == -1).all()  # there is no fourth class
    assert not found["input_gradients"][:, 3].any()


def test_the_ranking_is_that_of_the_calibrated_probabilities():
    spec = replace(TINY, calibration_slopes=(0.1, 1.0, 3.0), calibration_intercepts=(-1.0, 0.0, 2.0))
    found = explain(combine(networks.tiny(), spec), TINY_IMAGES, [[-1] * 3] * 3)
    expected = np.argsort(-spec.probabilities(found["logits"].numpy()), axis=1)
    assert found["explained"].tolist() == expected.tolist()
    assert found["explained"].tolist() != found["logits"].argsort(1, descending=True).tolist()


def test_unknown_classes_give_zeros_and_spare_the_others(tiny):
    found = explain(tiny, TINY_IMAGES, [[3, 1], [-2, 1], [2**40, 1]])
    alone = explain(tiny, TINY_IMAGES, [[1], [1], [1]])
    assert found["explained"][:, 0].tolist() == [3, -2, 2**40]
    for name in ("heatmaps", "gradient_maps", "activation_gradients", "input_gradients"):
        assert not found[name][:, 0].any()
        torch.testing.assert_close(found[name][:, 1], alone[name][:, 0])


def test_repeated_classes_and_the_order_of_the_batch_do_not_matter(tiny):
    targets = [[0, 1, 0], [2, 1, 2], [1, 1, 1]]
    found = explain(tiny, TINY_IMAGES, targets)
    reverse = explain(tiny, TINY_IMAGES.flip(0), targets[::-1])
    for name, tensor in found.items():
        torch.testing.assert_close(reverse[name].flip(0), tensor)
        if name not in ("logits", "activations"):
            torch.testing.assert_close(tensor[:, 0], tensor[:, 2])


def test_a_blind_network_gives_zeros():
    model = networks.tiny()
    model.features[0].weight.data.zero_()
    model.features[0].bias.data.fill_(-1)  # every ReLU is closed
    found = explain(combine(model, TINY), TINY_IMAGES, [[0], [1], [2]])
    for name in ("heatmaps", "gradient_maps", "activations", "input_gradients"):
        assert not found[name].any()
        assert torch.isfinite(found[name].float()).all()


def test_gradient_maps_span_all_levels_whatever_the_scale():
    gradients = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    maps = gradient_maps(gradients)
    assert maps.dtype == torch.uint8
    assert (maps.amin((2, 3)) == 0).all()
    assert (maps.amax((2, 3)) == 255).all()
    assert torch.equal(gradient_maps(gradients * -1e-30), maps)
    assert not gradient_maps(torch.full((1, 1, 8, 8), 0.25)).any()


def test_an_operator_without_a_rule_is_named_with_its_place():
    class Unusual(networks.Tiny):
        def forward(self, x):
            return self.head(torch.cumsum(self.features(x), 2).mean((2, 3)))

    graph = combine(Unusual().eval(), TINY)
    with pytest.raises(
        InputError, match=r"aten\.cumsum.*the model itself \(node 'cumsum', .*test_combined\.py:\d+\).*README"
    ):
        explain(graph, TINY_IMAGES, [[0], [0], [0]])


def test_a_layer_that_the_logits_ignore_is_refused():
    class Ignoring(networks.Tiny):
        def forward(self, x):
            return self.head(x.mean((2, 3)).expand(-1, 4)) + 0 * self.features(x).detach().mean()

    with pytest.raises(InputError):
        explain(combine(Ignoring().eval(), TINY), TINY_IMAGES, [[0], [0], [0]])
