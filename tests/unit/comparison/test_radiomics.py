"""Radiomic features against sums written out, SciPy and scikit-image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import stats
from skimage.feature import graycomatrix, graycoprops
from skimage.measure import regionprops

from crosseai.comparison.radiomics import BIN_WIDTH, gray_levels, radiomic_features
from crosseai.contract import InputError
from tests.oracles.radiomics import texture_features

SIDES = npst.array_shapes(min_dims=2, max_dims=2, max_side=7)
REGIONS = npst.arrays(np.float32, SIDES, elements=st.floats(0, 255, width=32))
RANDOM = np.random.default_rng(0).uniform(0, 255, (40, 50)).astype(np.float32)


def features(region: np.ndarray, group: str = "") -> dict[str, float]:
    found = radiomic_features(region, (0, 0, *region.shape[::-1]))
    return {name.split()[1]: value for name, value in found.items() if name.startswith(group)}


@given(REGIONS)
def test_texture_equals_sums_over_pairs_of_pixels(region: np.ndarray) -> None:
    assert features(region, "glcm") == pytest.approx(texture_features(region, BIN_WIDTH), rel=1e-6, abs=1e-6)


@given(REGIONS)
def test_finite_whatever_the_region(region: np.ndarray) -> None:
    assert np.isfinite(list(features(region).values())).all()


def test_texture_agrees_with_scikit_image_where_it_has_the_feature() -> None:
    levels, angles = gray_levels(RANDOM.astype(np.float64)), (0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
    matrices = graycomatrix(levels, [1], angles, levels=11, symmetric=True, normed=True)
    names = {
        "Contrast": "contrast",
        "Correlation": "correlation",
        "DifferenceAverage": "dissimilarity",
        "Idm": "homogeneity",
        "JointEnergy": "ASM",
    }
    found = features(RANDOM, "glcm")
    assert [found[ours] for ours in names] == pytest.approx(
        [graycoprops(matrices, theirs).mean() for theirs in names.values()]
    )


def test_first_order_agrees_with_scipy() -> None:
    found, values = features(RANDOM, "firstorder"), RANDOM.ravel().astype(np.float64)
    _, counts = np.unique(values // BIN_WIDTH, return_counts=True)
    expected = {
        "Kurtosis": stats.kurtosis(values, fisher=False),
        "Skewness": stats.skew(values),
        "InterquartileRange": stats.iqr(values),
        "Entropy": stats.entropy(counts, base=2),
        "RootMeanSquared": np.linalg.norm(values) / np.sqrt(len(values)),
        "MeanAbsoluteDeviation": np.mean([abs(value - values.mean()) for value in values]),
        "Range": values.max() - values.min(),
        "Variance": np.var(values),
        "90Percentile": np.quantile(values, 0.9),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_the_robust_deviation_leaves_the_tails_out() -> None:
    values = np.arange(11, dtype=np.float32)[None]  # percentiles 1 and 9, mean 5
    assert features(values)["RobustMeanAbsoluteDeviation"] == pytest.approx(2 * (1 + 2 + 3 + 4) / 9)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (5, 1), (4, 9), (30, 30)])
def test_shape_is_that_of_the_rectangle(width: int, height: int) -> None:
    found = features(RANDOM[:height, :width], "shape2D")
    (drawn,) = regionprops(np.ones((height, width), np.uint8))
    assert found["PixelSurface"] == drawn.area
    assert found["MajorAxisLength"] == pytest.approx(drawn.axis_major_length)
    assert found["MinorAxisLength"] == pytest.approx(drawn.axis_minor_length)
    assert found["Perimeter"] == 2 * (width + height)
    assert found["MaximumDiameter"] == pytest.approx(np.hypot(width, height))
    assert found["Sphericity"] == pytest.approx(2 * np.sqrt(np.pi * width * height) / (2 * (width + height)))


@given(REGIONS, st.integers(0, 4))
def test_texture_sees_neither_brightness_nor_direction(region: np.ndarray, steps: int) -> None:
    dark = np.floor(region / 2)  # whole gray values: adding to them is exact
    before = features(dark, "glcm")
    for same in (dark + np.float32(steps * BIN_WIDTH), dark.T, dark[::-1], dark[:, ::-1]):
        assert features(np.ascontiguousarray(same), "glcm") == pytest.approx(before, rel=1e-9, abs=1e-9)


def test_only_the_box_counts() -> None:
    found = radiomic_features(RANDOM, (3, 5, 20, 31))
    assert list(found.values()) == list(features(np.ascontiguousarray(RANDOM[5:31, 3:20])).values())
    assert len(found) == 17 + 8 + 22


@pytest.mark.parametrize("box", [(0, 0, 0, 0), (-1, 0, 3, 3), (0, 0, 51, 3), (4, 4, 4, 6)])
def test_a_box_outside_of_the_image_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(InputError, match="expected a box inside of 50 x 40 pixels"):
        radiomic_features(RANDOM, box)
