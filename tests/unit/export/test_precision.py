"""The float16 trunk, run by PyTorch, which rounds every value: the same explanations, and no overflow."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crosseai.contract import InputError, ModelSpec
from crosseai.export.capture import capture
from crosseai.export.combined import CombinedGraph
from crosseai.export.precision import lower, unscaled
from crosseai.export.reference import EagerReference
from crosseai.export.verify import TOLERANCES, sample_images
from tests.unit.export import networks

aten = torch.ops.aten
OURS = ModelSpec(input_size=32)
DENSE = ModelSpec(
    input_size=32, classes=("a", "b", "c"), channels=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), layer="block2"
)
GATED = ModelSpec(input_size=16, classes=("a", "b", "c"), layer="last")
TINY = ModelSpec(input_size=16, classes=("a", "b", "c"), layer="features")


def half(model: nn.Module, spec: ModelSpec) -> CombinedGraph:
    classifier = capture(model, spec.layer, spec.channels, spec.input_size)
    return CombinedGraph(lower(classifier, torch.float16), spec).eval()


def explain(graph: CombinedGraph, spec: ModelSpec, targets: list[list[int]]) -> dict[str, Tensor]:
    images = torch.from_numpy(sample_images(spec.input_size, len(targets)))
    with torch.no_grad():
        return dict(zip([o.name for o in spec.outputs], graph(images, torch.tensor(targets)), strict=True))


class Gated(nn.Module):
    """What adds up or picks within the trunk: a squeeze-and-excitation gate, and the maximum over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 6, 3)
        self.gate, self.last, self.head = nn.Conv2d(6, 6, 1), nn.ReLU(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True))) + x.amax(1, keepdim=True)
        return self.head(nn.functional.adaptive_avg_pool2d(self.last(self.body(x)), 1).flatten(1))


def gated() -> nn.Module:
    torch.manual_seed(3)
    return Gated().eval()


@pytest.mark.parametrize(
    ("model", "spec"),
    [
        (networks.residual(), OURS),
        (networks.residual(triplet_attention=False), ModelSpec(input_size=64, layer="layer3")),
        (networks.dense(), DENSE),
        (gated(), GATED),
    ],
    ids=["attention", "earlier layer", "dense", "gated"],
)
def test_explanations_are_those_of_float64(model, spec):
    targets = np.array([[0, 2], [1, 1], [2, 0]])
    found = explain(half(model, spec), spec, targets.tolist())
    reference = EagerReference(model, spec, torch.float64)
    for k in range(targets.shape[1]):
        expected = reference.explain(sample_images(spec.input_size, 3), targets[:, k])
        for name in ("logits", "activations", "activation_gradients", "heatmaps", "input_gradients"):
            tensor, want = found[name], getattr(expected, name)
            tensor = tensor if name in ("logits", "activations") else tensor[:, k]
            assert tensor.dtype == torch.float32
            assert (tensor - want).norm() <= TOLERANCES["fp16"][name] * want.norm(), name


def test_the_trunk_is_narrow_and_the_head_is_not():
    model = gated()
    classifier = lower(capture(model, "last", 1, 16), torch.float16)
    values = CombinedGraph(classifier, GATED)._forward_values(torch.zeros(1, 1, 16, 16))
    dtypes = {node: value.dtype for node, value in values.items() if isinstance(value, Tensor)}
    by_operator = {
        str(operator): {dtype for node, dtype in dtypes.items() if node.target is operator}
        for operator in (aten.conv2d.default, aten.mul.Tensor, aten.mean.dim, aten.linear.default)
    }
    assert by_operator == {
        "aten.conv2d.default": {torch.float16},
        "aten.mul.Tensor": {torch.float16},
        "aten.mean.dim": {torch.float32},
        "aten.linear.default": {torch.float32},
    }
    assert classifier.activations is classifier.head
    assert dtypes[classifier.activations] == dtypes[classifier.logits] == torch.float32
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_gradients_of_any_size_keep_their_maps(factor):
    """float16 ends at 6e-8 and 65504: the gradient's scale stays out of it."""
    model, scaled = gated(), gated()
    scaled.head.weight.data.mul_(factor)
    found, usual = (explain(half(m, GATED), GATED, [[0, 2]] * 2) for m in (scaled, model))
    torch.testing.assert_close(found["input_gradients"] / factor, usual["input_gradients"], rtol=1e-2, atol=1e-9)
    assert (found["gradient_maps"].int() - usual["gradient_maps"].int()).abs().max() <= 1


def test_a_class_that_nothing_speaks_for_gives_zeros():
    model = networks.tiny()
    model.head.weight.data[1] = 0
    found = explain(half(model, TINY), TINY, [[1, 0, 7]])
    for name in ("heatmaps", "gradient_maps", "input_gradients"):
        assert not found[name][:, 0].any()
        assert found[name][:, 1].any()
        assert not found[name][:, 2].any()


def test_scale_and_direction_make_the_gradient():
    gradient = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 1e-9
    gradient[2] = 0
    direction, scale = unscaled(gradient)
    assert direction.abs().amax((1, 2, 3)).tolist() == [1, 1, 0, 1]
    torch.testing.assert_close(direction * scale, gradient, rtol=1e-6, atol=0)


def test_a_weight_beyond_the_range_is_refused_with_its_place():
    model = networks.tiny()
    model.features[0].weight.data[0, 0, 0, 0] = 1e5
    with pytest.raises(InputError, match=r"range of torch\.float16, found 1e\+05 at features\.0"):
        half(model, TINY)


def test_a_model_without_a_last_feature_map_is_refused():
    class Forked(networks.Tiny):
        def forward(self, x):
            return super().forward(x) + x.mean((2, 3))

    with pytest.raises(InputError, match="one feature map"):
        half(Forked().eval(), TINY)
