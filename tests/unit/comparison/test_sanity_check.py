"""The sanity check: what it compares, and explanations that fail it and pass it."""

import copy

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import spearmanr
from torch import Tensor, nn

from crosseai.comparison.sanity_check import rank_correlation, sanity_check
from crosseai.contract import InputError, ModelSpec
from crosseai.export.verify import sample_images
from tests.unit.export import networks

SPEC = ModelSpec(classes=("a", "b", "c"), input_size=32, layer="features")
IMAGES, CLASSES = sample_images(32, 2), np.array([0, 1])
MAPS = hnp.arrays(np.float32, (2, 4, 4), elements=st.integers(0, 6).map(float))


@given(MAPS, MAPS)
def test_rank_correlation_is_spearmans(maps: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> None:
    for found, a, b in zip(rank_correlation(maps, others), maps, others, strict=True):
        constant = (a.min() == a.max(), b.min() == b.max())
        expected = float(all(constant)) if any(constant) else spearmanr(a.ravel(), b.ravel()).statistic
        assert found == pytest.approx(expected)


class Edges(nn.Module):
    """A network whose map is the image's own bright spots, whatever its weights are."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Identity(), nn.ReLU())
        self.head = nn.Linear(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x**2).mean((2, 3)))
        return logits


def test_an_explanation_of_the_image_alone_survives_and_fails() -> None:
    model = Edges().eval()
    model.head.weight.data.fill_(3)
    found = sanity_check(model, SPEC, IMAGES, CLASSES, gradient="plain", t=0.0)
    assert found.stages == ("head",)
    np.testing.assert_allclose(found.rank_correlations, 1, atol=1e-3)
    np.testing.assert_allclose(found.similarities, 1, atol=1e-3)
    assert not found.passes()


class OnePlace(nn.Module):
    """A network that looks at weights of its own for each pixel: its gradient is nothing but what it learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 2, 1)
        self.head = nn.Linear(2 * 32 * 32, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).flatten(1))
        return logits


def test_an_explanation_of_the_weights_alone_passes() -> None:
    torch.manual_seed(0)
    model = OnePlace().eval()
    model.head.weight.data[:] = torch.linspace(0, 1, 2 * 32 * 32).roll(99)
    kept = copy.deepcopy(model.state_dict())
    found = sanity_check(model, SPEC, IMAGES, CLASSES, gradient="plain", t=0.0)
    assert found.stages == ("head", "features")
    assert np.abs(found.rank_correlations).max() < 0.2
    assert found.similarities.max() < 0.3
    assert found.passes()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())


def test_the_cascade_goes_from_the_logits_down_and_is_repeatable() -> None:
    model = networks.residual()
    spec = ModelSpec(input_size=32)
    found = sanity_check(model, spec, IMAGES, CLASSES, stages=4)
    children = [name for name, _ in model.named_children()]
    reached = [children.index(name.split(".")[0]) for name in found.stages]
    assert reached == sorted(reached, reverse=True)
    assert found.stages[-1] == "conv1"
    assert found.rank_correlations.shape == found.similarities.shape == (4, 2)
    again = sanity_check(model, spec, IMAGES, CLASSES, stages=4)
    np.testing.assert_array_equal(found.rank_correlations, again.rank_correlations)
    other = sanity_check(model, spec, IMAGES, CLASSES, stages=4, seed=1)
    assert not np.array_equal(found.rank_correlations, other.rank_correlations)


def test_a_module_that_cannot_be_reset_is_named() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.factor

    model = nn.Sequential()
    model.add_module("scale", Scale())
    model.add_module("rest", networks.tiny())
    with pytest.raises(InputError, match="found 'scale' that cannot"):
        sanity_check(model.eval(), SPEC, IMAGES, CLASSES)
