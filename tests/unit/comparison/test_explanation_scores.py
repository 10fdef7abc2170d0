"""Scores of explanations against slow definitions, and on maps whose scores are known."""

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor, nn

from crosseai.comparison.explanation_scores import (
    energy_in_box,
    fused_maps,
    pointing_game,
    score_explanations,
)
from crosseai.comparison.replacement import replacement_area
from crosseai.contract import BoxParameters, InputError, ModelSpec
from crosseai.export.sources import GRADIENTS, HEATMAPS
from crosseai.export.verify import sample_images
from crosseai.postproc import fuse
from tests.unit.export import networks

SIDE = 9
MAPS = hnp.arrays(np.float32, (SIDE, SIDE), elements=st.integers(0, 9).map(float))
EDGES = st.lists(st.integers(0, 4 * SIDE), min_size=2, max_size=2, unique=True).map(sorted)
BOXES = st.tuples(EDGES, EDGES).map(lambda e: np.array([[e[0][0], e[1][0], e[0][1], e[1][1]]]) / 4)
"""Edges on quarters of a pixel, so that a map enlarged four times has them between pixels."""


@given(MAPS, BOXES, st.integers(0, 5))
def test_pointing_game_searches_around_the_brightest_pixel(
    intensity: npt.NDArray[np.float32], box: npt.NDArray[np.float64], tolerance: int
) -> None:
    """Slowly: some point of the box, on a grid of eighths of a pixel, is near enough."""
    y, x = max(product(range(SIDE), repeat=2), key=lambda p: (intensity[p], -p[0], -p[1]))
    x0, y0, x1, y1 = box[0]
    grid_x, grid_y = np.meshgrid(np.arange(x0, x1 + 1e-9, 1 / 8), np.arange(y0, y1 + 1e-9, 1 / 8))
    near = ((grid_x - x - 0.5) ** 2 + (grid_y - y - 0.5) ** 2 <= tolerance**2).any()
    expected = near and intensity.min() < intensity.max()
    assert pointing_game(intensity[None], box, tolerance).tolist() == [expected]


@given(MAPS, BOXES)
def test_energy_counts_the_subpixels_in_the_box(
    intensity: npt.NDArray[np.float32], box: npt.NDArray[np.float64]
) -> None:
    enlarged = np.kron(intensity.astype(np.float64), np.ones((4, 4)))
    x0, y0, x1, y1 = (4 * box[0]).astype(int)
    total = enlarged.sum()
    expected = enlarged[y0:y1, x0:x1].sum() / total if total else 0
    assert energy_in_box(intensity[None], box) == pytest.approx(expected)
    everything = np.array([[0.0, 0, SIDE, SIDE]])
    assert energy_in_box(intensity[None], everything) == pytest.approx(1 if total else 0)


@given(MAPS, st.integers(1, 12))
def test_replacement_area_is_the_mean_of_the_curve_pixel_by_pixel(
    intensity: npt.NDArray[np.float32], steps: int
) -> None:
    """The score of an image is a weighted sum of its pixels, so that the order matters."""
    generator = torch.Generator().manual_seed(0)
    start, end, weights = (torch.rand(1, SIDE, SIDE, generator=generator, dtype=torch.float64) for _ in range(3))

    def score(images: Tensor) -> npt.NDArray[np.float64]:
        return (images * weights).sum((1, 2, 3)).numpy() / SIDE**2

    order = sorted(product(range(SIDE), repeat=2), key=lambda p: -intensity[p])  # stable: row by row
    curve = []
    for step in range(steps + 1):
        image = start.clone()
        for y, x in order[: round(step * SIDE**2 / steps)]:
            image[0, y, x] = end[0, y, x]
        curve.append(float(score(image[None])[0]))
    expected = sum((a + b) / 2 for a, b in pairwise(curve)) / steps
    assert replacement_area(score, start, end, intensity, steps) == pytest.approx(expected)


class BrightSquare(nn.Module):
    """Knows a finding, a bright square, by the pixels of one place, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU())
        self.head = nn.Linear(2, 2)
        self.register_buffer("place", torch.zeros(1, 1, 32, 32))
        self.place[..., 8:16, 12:24] = 1
        self.features[0].weight.data[:] = torch.tensor([2.0, 0.0]).reshape(2, 1, 1, 1)
        self.features[0].bias.data.zero_()
        self.head.weight.data[:] = torch.tensor([[80.0, 0.0], [0.0, 1.0]])
        self.head.bias.data[:] = torch.tensor([-4.0, 0.0])

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head((self.features(x) * self.place).mean((2, 3)))
        return logits


SQUARE = ModelSpec(classes=("Mass", "Nodule"), input_size=32, mean=(0.0,), std=(1.0,), layer="features")


def square_image() -> npt.NDArray[np.uint8]:
    image = np.random.default_rng(0).integers(20, 60, (1, 1, 32, 32), np.uint8)
    image[..., 8:16, 12:24] += 180
    image[..., 22:30, 2:10] = 255  # brighter, and no finding
    return image


def test_a_faithful_explanation_scores_higher_than_one_that_points_elsewhere() -> None:
    """The gradient of that network is its place; the heat map of its features has all that is bright in the image."""
    box = np.array([[12.0, 8, 24, 16]])
    arguments = (BrightSquare().eval(), SQUARE, square_image(), np.array([0]), box)
    faithful = score_explanations(*arguments, gradient="plain", t=0.0, tolerance_px=0)
    assert faithful.pointing.tolist() == [True]
    assert faithful.energy == pytest.approx(1)
    assert faithful.insertion > 0.9
    assert faithful.deletion < 0.1
    elsewhere = score_explanations(*arguments, heatmap="gradcam", t=1.0, tolerance_px=0)
    assert elsewhere.pointing.tolist() == [False]
    assert elsewhere.energy < 0.5
    assert elsewhere.insertion < faithful.insertion
    assert elsewhere.deletion > faithful.deletion


def test_every_pair_of_sources_can_be_fused() -> None:
    spec = ModelSpec(input_size=16, classes=("a", "b", "c"), layer="features")
    images, classes = sample_images(16, 3), np.array([0, 1, 2])
    maps = {
        (heatmap, gradient): fused_maps(
            networks.tiny(), spec, images, classes, heatmap=heatmap, gradient=gradient, t=0.5
        )
        for heatmap, gradient in product(HEATMAPS, GRADIENTS)
    }
    for pair, found in maps.items():
        assert (found.shape, found.dtype) == ((3, 16, 16), np.float32), pair
        assert found.min() >= 0
        assert 0 < found.max() <= 255
    assert not np.array_equal(maps["gradcam", "guided"], maps["gradcam", "plain"])
    assert not np.array_equal(maps["cam", "plain"], maps["layercam", "plain"])


def test_the_spec_says_what_is_fused_unless_told_otherwise() -> None:
    """Its sources and its parameters of fusion, as for the boxes; batches make no difference."""
    boxes = BoxParameters(preset="own", t=0.7, gradient_percentile=90.0)
    spec = ModelSpec(
        input_size=16, classes=("a", "b", "c"), layer="features", heatmap="layercam", gradient="plain", boxes=boxes
    )
    images, classes = sample_images(16, 20), np.arange(20) % 3
    found = fused_maps(networks.tiny(), spec, images, classes)
    usual = replace(spec, heatmap="gradcam++", gradient="guided", boxes=replace(boxes, t=0.1))
    told = fused_maps(networks.tiny(), usual, images, classes, heatmap="layercam", gradient="plain", t=0.7)
    np.testing.assert_array_equal(found, told)
    for n in (0, 19):
        alone = fused_maps(networks.tiny(), spec, images[n : n + 1], classes[n : n + 1])
        np.testing.assert_allclose(found[n], alone[0], atol=0.5)
    assert fuse(np.eye(4, dtype=np.float32), found[0], t=1.0).max() == 255


def test_what_does_not_fit_is_refused() -> None:
    maps, box = np.ones((1, 4, 4), np.float32), np.array([[0.0, 0, 2, 2]])
    with pytest.raises(InputError, match=r"expected maps \[N, S, S\], found \(4, 4\)"):
        energy_in_box(maps[0], box)
    with pytest.raises(InputError, match=r"expected boxes \[1, 4\], one for each map, found \[2, 4\]"):
        energy_in_box(maps, np.zeros((2, 4)))
    with pytest.raises(InputError, match="x0 < x1"):
        pointing_game(maps, np.zeros((1, 4)))
    with pytest.raises(InputError, match="not negative"):
        energy_in_box(-maps, box)
    with pytest.raises(InputError, match="tolerance >= 0, found -1"):
        pointing_game(maps, box, -1)
    with pytest.raises(
        InputError, match=r"expected uint8 \(2, 1, 32, 32\) for 2 classes, found uint8 \(1, 1, 32, 32\)"
    ):
        fused_maps(BrightSquare().eval(), SQUARE, square_image(), np.array([0, 1]))
