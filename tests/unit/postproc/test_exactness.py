"""The C++ algorithm equals the independent oracles."""

from itertools import combinations, pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crosseai import postproc
from tests.oracles import boxes as oracle

Candidates: TypeAlias = Literal["greedy", "components", "all"]
CANDIDATES: tuple[Candidates, ...] = ("greedy", "components", "all")

masks = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=10), elements=st.integers(0, 1))
shapes = st.tuples(st.integers(1, 24), st.integers(1, 24))
shares = st.sampled_from([0.0, 0.3, 0.35, 0.5, 0.7, 1.0]) | st.integers(0, 1000).map(lambda share: share / 1000)


def map_values(dtype: type[np.generic]) -> st.SearchStrategy[float]:
    """Few different values make plateaus and ties; many make none."""
    if dtype is np.uint8:
        return st.integers(0, 255) | st.sampled_from([0, 128, 255])
    return st.floats(-1e3, 1e3, width=32) | st.sampled_from([-1.0, 0.0, 0.5, 1.0])


@st.composite
def map_pairs(draw: st.DrawFn) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8 | np.float32]]:
    heatmap = draw(
        hnp.arrays(np.float32, draw(st.tuples(st.integers(1, 5), st.integers(1, 5))), elements=map_values(np.float32))
    )
    dtype = draw(st.sampled_from([np.uint8, np.float32]))
    gradient_map = draw(hnp.arrays(dtype, draw(shapes), elements=map_values(dtype)))
    return heatmap, gradient_map


def well_conditioned(image: npt.NDArray[np.float64]) -> bool:
    """A map that is constant but for float32 rounding has no meaningful min..max scale."""
    spread = float(np.ptp(image))
    return spread == 0 or spread > 1e-4 * float(np.abs(image).max())


def assume_well_conditioned(heatmap: npt.NDArray[np.float32], gradient_map: npt.NDArray[np.generic]) -> None:
    enlarged = oracle.enlarge(heatmap, *gradient_map.shape)
    assume(well_conditioned(enlarged))
    # Few output rows may lie just where large values cancel; scaled to their range, those leave float32 few digits.
    assume(np.ptp(enlarged) == 0 or np.ptp(heatmap) < 8 * np.ptp(enlarged))
    assume(well_conditioned(gradient_map.astype(np.float64)))


@given(map_pairs(), shares)
def test_fuse_equals_oracle(maps: tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8 | np.float32]], t: float) -> None:
    assume_well_conditioned(*maps)
    fused = postproc.fuse(*maps, t=t)
    np.testing.assert_allclose(fused, oracle.fuse(*maps, t), rtol=0, atol=255e-6)
    assert fused.min() >= 0


@given(
    map_pairs(),
    st.booleans(),
    st.sampled_from([100.0, 99.0, 50.0, 12.5]) | st.floats(0.1, 100),
    st.sampled_from([0.3, 0.5, 1.0, 2.0]),
    st.sampled_from([0.0, 0.01, 0.05, 0.1, 0.3]),
)
def test_shaped_gradients_equal_oracle(
    maps: tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8 | np.float32]],
    positive: bool,
    percentile: float,
    power: float,
    sigma: float,
) -> None:
    shape: dict[str, Any] = {
        "gradient_positive": positive and maps[1].dtype == np.float32,
        "gradient_percentile": percentile,
        "gradient_power": power,
        "gradient_sigma": sigma,
    }
    assume_well_conditioned(*maps)
    assume(well_conditioned(oracle.shape_gradient(maps[1], **shape)))
    np.testing.assert_allclose(postproc.fuse(*maps, **shape), oracle.fuse(*maps, **shape), rtol=0, atol=0.01)


def test_smoothing_is_nearly_gaussian() -> None:
    point = np.zeros((101, 101), np.float32)
    point[50, 50] = 1
    sigma_px = 7.3
    smoothed = postproc.fuse(np.zeros((1, 1), np.float32), point, t=0, gradient_sigma=sigma_px / 101)
    y, x = np.indices(point.shape) - 50
    gaussian = np.exp(-(x**2 + y**2) / (2 * sigma_px**2))
    density, gaussian = smoothed / smoothed.sum(), gaussian / gaussian.sum()
    assert (density * x**2).sum() == pytest.approx(sigma_px**2, rel=0.05)
    assert (density * y**2).sum() == pytest.approx(sigma_px**2, rel=0.05)
    assert np.abs(density - gaussian).max() < 0.1 * gaussian.max()  # three boxes are a little flatter


@given(
    hnp.arrays(np.float32, shapes, elements=st.floats(0, 255, width=32) | st.sampled_from([0.0, 89.25, 255.0])), shares
)
def test_binarize_equals_oracle(fused: npt.NDArray[np.float32], threshold: float) -> None:
    mask = postproc.binarize(fused, threshold=threshold)
    sure = np.abs(fused - threshold * float(fused.max())) > 1e-6 * fused.max()
    np.testing.assert_array_equal(mask[sure], oracle.binarize(fused, threshold)[sure])
    assert set(np.unique(mask)) <= {0, 1}


@given(hnp.arrays(np.uint8, shapes, elements=st.integers(0, 1)), st.floats(0, 1))
def test_closing_equals_oracle(mask: oracle.Mask, closing: float) -> None:
    closed = postproc.binarize(mask.astype(np.float32), closing=closing)
    np.testing.assert_array_equal(closed, oracle.close(mask, closing))
    assert (closed >= mask).all()
    np.testing.assert_array_equal(closed, postproc.binarize(closed.astype(np.float32), closing=closing))


@given(masks, st.sampled_from(CANDIDATES), st.integers(1, 12), st.integers(1, 6), st.sampled_from([0.0, 0.05, 0.3]))
def test_candidates_equal_brute_force(
    mask: oracle.Mask, candidates: Candidates, max_candidates: int, min_area: int, min_area_share: float
) -> None:
    found = postproc.maximal_rectangles(
        mask, candidates=candidates, max_candidates=max_candidates, min_area=min_area, min_area_share=min_area_share
    )
    expected = oracle.find_candidates(mask, candidates, max_candidates, min_area, min_area_share, brute_force=True)
    assert [tuple(box) for box in found.tolist()] == expected


@given(hnp.arrays(np.uint8, shapes, elements=st.integers(0, 1)), st.sampled_from(["components", "all"]))
def test_every_candidate_is_found(mask: oracle.Mask, candidates: Candidates) -> None:
    found = postproc.maximal_rectangles(mask, candidates=candidates, max_candidates=10_000)
    assert [tuple(box) for box in found.tolist()] == oracle.find_candidates(mask, candidates, 10_000)


@given(masks, st.integers(1, 12), st.integers(1, 6))
def test_rectangles_equal_brute_force(mask: oracle.Mask, max_candidates: int, min_area: int) -> None:
    found = postproc.maximal_rectangles(mask, max_candidates=max_candidates, min_area=min_area)
    expected = oracle.maximal_rectangles(mask, max_candidates, min_area, brute_force=True)
    assert [tuple(box) for box in found.tolist()] == expected


@given(hnp.arrays(np.uint8, shapes, elements=st.integers(0, 1)))
def test_rectangles_equal_stack_algorithm(mask: oracle.Mask) -> None:
    found = postproc.maximal_rectangles(mask, max_candidates=1000)
    assert [tuple(box) for box in found.tolist()] == oracle.maximal_rectangles(mask, 1000)


@given(hnp.arrays(np.uint8, shapes, elements=st.integers(0, 1)))
def test_rectangles_tile_the_ones(mask: oracle.Mask) -> None:
    cover = np.zeros_like(mask)
    for x0, y0, x1, y1 in postproc.maximal_rectangles(mask, max_candidates=1000):
        cover[y0:y1, x0:x1] += 1
    np.testing.assert_array_equal(cover, mask)


@given(masks)
def test_largest_rectangle_follows_flips_and_transposition(mask: oracle.Mask) -> None:
    assume(mask.any())
    (x0, y0, x1, y1), *_ = postproc.maximal_rectangles(mask).tolist()
    height, width = mask.shape
    best_area = (x1 - x0) * (y1 - y0)
    unique = sum(oracle.area(box) == best_area for box in oracle.all_rectangles(mask)) == 1
    event(f"the largest rectangle is unique: {unique}")
    for moved, expected in (
        (mask[:, ::-1], (width - x1, y0, width - x0, y1)),
        (mask[::-1], (x0, height - y1, x1, height - y0)),
        (mask.T, (y0, x0, y1, x1)),
    ):
        found = tuple(postproc.maximal_rectangles(np.ascontiguousarray(moved), max_candidates=1)[0].tolist())
        assert oracle.area(found) == best_area
        assert found == expected or not unique


@given(hnp.arrays(np.uint8, shapes, elements=st.integers(0, 1)))
def test_expand_equals_oracle(mask: oracle.Mask) -> None:
    rectangles = postproc.maximal_rectangles(mask)
    grown = postproc.expand(mask, rectangles)
    assert [tuple(box) for box in grown.tolist()] == [oracle.expand(mask, tuple(box)) for box in rectangles.tolist()]
    assert (grown[:, :2] >= 0).all()
    assert (grown[:, 2:] <= mask.shape[::-1]).all()
    assert (grown[:, :2] <= rectangles[:, :2]).all()
    assert (grown[:, 2:] >= rectangles[:, 2:]).all()


@given(st.data())
def test_select_equals_oracle(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    whole = data.draw(st.booleans())  # sums of whole numbers are exact in float32, too
    intensities = st.integers(0, 255).map(float) if whole else st.floats(0, 255, width=32)
    fused = data.draw(hnp.arrays(np.float32, shape, elements=intensities | st.sampled_from([0.0, 255.0])))
    mask = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 1)))
    rectangles = postproc.expand(mask, postproc.maximal_rectangles(mask))
    index, score = postproc.select(fused, mask, rectangles)
    scores = [oracle.score(fused, mask, tuple(box)) for box in rectangles.tolist()]
    if not scores:
        assert (index, score) == (-1, 0.0)
        return
    assert score == pytest.approx(max(scores), rel=1e-5)
    # The first of the highest; rounding of float32 sums may part what is tied, and tie what is not.
    tied = [i for i, other in enumerate(scores) if other == pytest.approx(max(scores), rel=1e-6)]
    assert index in tied
    if whole and len({scores[i] for i in tied}) == 1:
        assert index == tied[0]


def test_area_power_prefers_larger_boxes() -> None:
    fused = np.zeros((20, 20), np.float32)
    fused[2:4, 2:4] = 200  # mean 200, 4 pixels
    fused[8:18, 8:18] = 100  # mean 100, 100 pixels
    mask = postproc.binarize(fused)
    rectangles = postproc.maximal_rectangles(mask)
    assert rectangles.tolist() == [[8, 8, 18, 18], [2, 2, 4, 4]]
    assert postproc.select(fused, mask, rectangles) == (1, 200.0)
    assert postproc.select(fused, mask, rectangles, area_power=0.5) == (0, 100.0)  # 100 * 10 against 200 * 2
    # The powers are equal where (100 / 4) ** power = 200 / 100.
    assert postproc.select(fused, mask, rectangles, area_power=0.21) == (1, 200.0)
    assert postproc.select(fused, mask, rectangles, area_power=0.22) == (0, 100.0)


def assert_same_box(found: oracle.Box, score: float, candidates: list[tuple[oracle.Box, float]]) -> None:
    """The highest score's first box; any of those within 1e-5 of it where rounding may decide."""
    if not candidates:
        assert (found, score) == ((0, 0, 0, 0), 0.0)
        return
    best = max(value for _, value in candidates)
    assert score == pytest.approx(best, rel=1e-4)
    assert found in [box for box, value in candidates if value >= best * (1 - 1e-5)]


@st.composite
def keyword_arguments(draw: st.DrawFn) -> dict[str, Any]:
    """Keywords that oracle and C++ have in common; most of them as in the paper."""
    beyond = {
        "gradient_percentile": st.sampled_from([99.0, 80.0]),
        "gradient_power": st.sampled_from([0.5, 2.0]),
        "gradient_sigma": st.sampled_from([0.03, 0.2]),
        "closing": st.sampled_from([0.05, 0.2]),
        "candidates": st.sampled_from(CANDIDATES),
        "min_area_share": st.sampled_from([0.01, 0.1]),
    }
    paper = {
        "t": shares,
        "threshold": shares,
        "max_candidates": st.integers(1, 10),
        "min_area": st.integers(1, 10),
    }
    return draw(st.fixed_dictionaries(paper, optional=beyond))  # type: ignore[arg-type]  # strategies of several types


def assume_nothing_on_the_threshold(
    maps: tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8 | np.float32]], keywords: dict[str, Any]
) -> None:
    """Such a pixel belongs to the mask or not by rounding alone."""
    assume_well_conditioned(*maps)
    shape = {name: value for name, value in keywords.items() if name.startswith("gradient")}
    assume(well_conditioned(oracle.shape_gradient(maps[1], **shape)))
    fused = oracle.fuse(*maps, keywords["t"], **shape)
    margin = 1e-4 if shape else 1e-5  # smoothing and powers round more
    assume((np.abs(fused - keywords["threshold"] * fused.max()) > margin * fused.max()).all() or fused.max() == 0)


@given(map_pairs(), keyword_arguments())
def test_localize_equals_oracle(
    maps: tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8 | np.float32]], keywords: dict[str, Any]
) -> None:
    assume_nothing_on_the_threshold(maps, keywords)
    boxes, scores = postproc.localize(maps[0][None], maps[1][None], **keywords)
    assert_same_box(tuple(boxes[0].tolist()), float(scores[0]), oracle.localize(*maps, **keywords))


@given(
    map_pairs(),
    keyword_arguments(),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0.0, 0.5, 0.9]),
    st.integers(1, 4),
)
def test_localize_many_equals_oracle(
    maps: tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8 | np.float32]],
    keywords: dict[str, Any],
    area_power: float,
    score_ratio: float,
    max_boxes: int,
) -> None:
    assume_nothing_on_the_threshold(maps, keywords)
    candidates = [(box, score) for box, score in oracle.localize(*maps, **keywords) if score > 0]
    values = sorted({oracle.criterion(candidate, area_power) for candidate in candidates}, reverse=True)
    # Rounding decides between candidates that are nearly equal, and about one that just comes to the ratio.
    tied = any(b > a * (1 - 1e-5) for a, b in pairwise(values)) or len(values) < len({box for box, _ in candidates})
    at_ratio = any(abs(value - score_ratio * values[0]) <= 1e-5 * values[0] for value in values)
    event(f"decided by rounding: {tied or at_ratio}")

    boxes, scores, offsets = postproc.localize_many(
        maps[0][None], maps[1][None], **keywords, area_power=area_power, score_ratio=score_ratio, max_boxes=max_boxes
    )
    found = [tuple(box) for box in boxes.tolist()]
    assert offsets.tolist() == [0, len(found)]
    assert not any(oracle.overlap(a, b) for a, b in combinations(found, 2))
    ranks = [oracle.criterion(pair, area_power) for pair in zip(found, scores.tolist(), strict=True)]
    assert all(b <= a * (1 + 1e-6) for a, b in pairwise(ranks))
    assert all(rank >= score_ratio * ranks[0] * (1 - 1e-6) for rank in ranks)
    if not (tied or at_ratio):
        expected = oracle.select_many(candidates, area_power, score_ratio, max_boxes)
        assert found == [box for box, _ in expected]
        np.testing.assert_allclose(scores, [score for _, score in expected], rtol=1e-4)


@settings(max_examples=30)
@given(st.integers(0, 6), st.integers(1, 3), st.sampled_from(CANDIDATES), st.integers(0, 2**32))
def test_the_first_of_many_boxes_is_that_of_localize(
    count: int, threads: int, candidates: Candidates, seed: int
) -> None:
    random = np.random.default_rng(seed)
    heatmaps = random.random((count, 3, 4), dtype=np.float32)
    gradient_maps = random.integers(0, 256, (count, 20, 31), dtype=np.uint8)
    if count:
        heatmaps[0], gradient_maps[0] = 0, 7  # constant: no box
    keywords: dict[str, Any] = {"candidates": candidates, "area_power": 0.3, "threads": threads}
    boxes, scores = postproc.localize(heatmaps, gradient_maps, **keywords)
    many, many_scores, offsets = postproc.localize_many(heatmaps, gradient_maps, **keywords)
    assert (many.dtype, many_scores.dtype, offsets.dtype) == (np.int32, np.float32, np.int64)
    assert (offsets[0], offsets[-1], len(offsets)) == (0, len(many), count + 1)
    for i in range(count):
        mine = slice(offsets[i], offsets[i + 1])
        assert many[mine][:1].tolist() == ([boxes[i].tolist()] if boxes[i].any() else [])
        assert many_scores[mine][:1].tolist() == ([scores[i]] if boxes[i].any() else [])


@pytest.mark.parametrize(("height", "width"), [(224, 224), (512, 512), (97, 512)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("smooth", [True, False], ids=["smooth", "noise"])
def test_localize_equals_oracle_on_large_maps(height: int, width: int, dtype: type[np.generic], smooth: bool) -> None:
    random = np.random.default_rng(height + width)
    heatmap = random.random((7, 9), dtype=np.float32)
    coarse = random.random((13, 11)) if smooth else random.random((height, width))
    gradient_map = oracle.rescale(oracle.enlarge(coarse, height, width)).astype(dtype)
    boxes, scores = postproc.localize(heatmap[None], gradient_map[None])
    assert_same_box(tuple(boxes[0].tolist()), float(scores[0]), oracle.localize(heatmap, gradient_map))


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((6, 5)),
        np.ones((6, 5)),
        np.ones((1, 1)),
        np.pad(np.ones((1, 1)), 3),
        np.indices((9, 8)).sum(0) % 2,
        np.eye(7),
        np.ones((1, 40)),
        np.ones((40, 1)),
    ],
    ids=["zeros", "ones", "one pixel", "lone pixel", "checkerboard", "diagonal", "row", "column"],
)
@pytest.mark.parametrize("candidates", CANDIDATES)
def test_special_masks(mask: npt.NDArray[np.float64], candidates: Candidates) -> None:
    ones = mask.astype(np.uint8)
    found = postproc.maximal_rectangles(ones, candidates=candidates)
    assert [tuple(box) for box in found.tolist()] == oracle.find_candidates(ones, candidates, brute_force=True)
    grown = postproc.expand(ones, found)
    assert [tuple(box) for box in grown.tolist()] == [oracle.expand(ones, tuple(box)) for box in found.tolist()]


@settings(max_examples=20)
@given(st.integers(0, 5), st.integers(1, 4), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 2**32))
def test_threads_and_steps_change_nothing(count: int, threads: int, area_power: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    heatmaps = random.random((count, 3, 4), dtype=np.float32)
    gradient_maps = random.integers(0, 256, (count, 20, 31), dtype=np.uint8)
    boxes, scores = postproc.localize(
        heatmaps, gradient_maps, gradient_power=0.5, gradient_sigma=0.1, area_power=area_power, threads=threads
    )
    for i in range(count):
        fused = postproc.fuse(heatmaps[i], gradient_maps[i], gradient_power=0.5, gradient_sigma=0.1)
        mask = postproc.binarize(fused)
        rectangles = postproc.expand(mask, postproc.maximal_rectangles(mask))
        index, score = postproc.select(fused, mask, rectangles, area_power=area_power)
        assert (boxes[i].tolist(), scores[i]) == (rectangles[index].tolist(), score)
