"""Arrays that are not exactly what they must be are refused with an error that says so."""

import doctest
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from crosseai import postproc
from crosseai.contract import PRESETS, BoxParameters, CrossEAIError, InvalidMapError, InvalidMaskError
from crosseai.postproc import _core

HEATMAPS = np.random.default_rng(0).random((2, 3, 4), dtype=np.float32)
GRADIENT_MAPS = np.random.default_rng(1).integers(0, 256, (2, 8, 10), dtype=np.uint8)
FUSED = GRADIENT_MAPS[0].astype(np.float32)
MASK = (GRADIENT_MAPS[0] > 100).astype(np.uint8)
RECTANGLES = np.array([[0, 0, 2, 3]], np.int32)

Array = npt.NDArray[Any]


def misaligned(array: Array) -> Array:
    """The same values one byte off their natural address."""
    moved = np.frombuffer(b"\0" + array.tobytes(), array.dtype, offset=1).reshape(array.shape)
    assert not moved.flags.aligned
    return moved


def with_pixel(array: Array, value: float) -> Array:
    changed = array.copy()
    changed.flat[3] = value
    return changed


BAD_MAPS: dict[str, Callable[[Array], Any]] = {
    "float64": lambda a: a.astype(np.float64),
    "float16": lambda a: a.astype(np.float16),
    "int32": lambda a: a.astype(np.int32),
    "bool": lambda a: a.astype(bool),
    "byte-swapped": lambda a: a.astype(">f4"),
    "transposed": lambda a: a.T,
    "strided": lambda a: np.repeat(a, 2, -1)[..., ::2],
    "reversed": lambda a: a[..., ::-1],
    "misaligned": lambda a: misaligned(a.astype(np.float32)),
    "one dimension more": lambda a: a[None],
    "one dimension less": lambda a: a[0],
    "no rows": lambda a: np.ascontiguousarray(a[..., :0, :]),
    "no columns": lambda a: np.ascontiguousarray(a[..., :0]),
    "NaN": lambda a: with_pixel(a.astype(np.float32), np.nan),
    "infinite": lambda a: with_pixel(a.astype(np.float32), np.inf),
    "minus infinite": lambda a: with_pixel(a.astype(np.float32), -np.inf),
    "list": lambda a: a.tolist(),
    "None": lambda a: None,
}

MAP_ARGUMENTS: dict[str, Callable[[Callable[[Array], Any]], object]] = {
    "localize heatmaps": lambda bad: postproc.localize(bad(HEATMAPS), GRADIENT_MAPS),
    "localize gradient_maps": lambda bad: postproc.localize(HEATMAPS, bad(GRADIENT_MAPS)),
    "localize_many heatmaps": lambda bad: postproc.localize_many(bad(HEATMAPS), GRADIENT_MAPS),
    "localize_many gradient_maps": lambda bad: postproc.localize_many(HEATMAPS, bad(GRADIENT_MAPS)),
    "fuse heatmap": lambda bad: postproc.fuse(bad(HEATMAPS[0]), GRADIENT_MAPS[0]),
    "fuse gradient_map": lambda bad: postproc.fuse(HEATMAPS[0], bad(GRADIENT_MAPS[0])),
    "binarize fused": lambda bad: postproc.binarize(bad(FUSED)),
    "select fused": lambda bad: postproc.select(bad(FUSED), MASK, RECTANGLES),
}


@pytest.mark.parametrize("call", MAP_ARGUMENTS.values(), ids=MAP_ARGUMENTS)
@pytest.mark.parametrize("bad", BAD_MAPS.values(), ids=BAD_MAPS)
def test_bad_maps_are_refused(call: Callable[[Callable[[Array], Any]], object], bad: Callable[[Array], Any]) -> None:
    with pytest.raises(InvalidMapError, match=r"expected .* found") as error:
        call(bad)
    assert isinstance(error.value, CrossEAIError)
    assert isinstance(error.value, ValueError)


BAD_MASKS: dict[str, Callable[[Array], Any]] = {
    "float32": lambda a: a.astype(np.float32),
    "int8": lambda a: a.astype(np.int8),
    "bool": lambda a: a.astype(bool),
    "value 2": lambda a: with_pixel(a, 2),
    "value 255": lambda a: with_pixel(a, 255),
    "transposed": lambda a: a.T,
    "reversed": lambda a: a[::-1],
    "one dimension more": lambda a: a[None],
    "no rows": lambda a: a[:0],
    "no columns": lambda a: np.ascontiguousarray(a[:, :0]),
    "list": lambda a: a.tolist(),
}


@pytest.mark.parametrize("bad", BAD_MASKS.values(), ids=BAD_MASKS)
@pytest.mark.parametrize(
    "call",
    [
        postproc.maximal_rectangles,
        lambda mask: postproc.expand(mask, RECTANGLES),
        lambda mask: postproc.select(FUSED, mask, RECTANGLES),
    ],
    ids=["maximal_rectangles", "expand", "select"],
)
def test_bad_masks_are_refused(call: Callable[[Any], object], bad: Callable[[Array], Any]) -> None:
    with pytest.raises(InvalidMaskError, match=r"mask: expected .* found"):
        call(bad(MASK))


@pytest.mark.parametrize(
    "rectangles",
    [
        RECTANGLES.astype(np.int64),
        RECTANGLES.astype(np.float32),
        RECTANGLES[0],
        np.zeros((2, 3), np.int32),
        np.array([[0, 0, 0, 3]], np.int32),
        np.array([[2, 0, 1, 3]], np.int32),
        np.array([[-1, 0, 2, 3]], np.int32),
        np.array([[0, 0, 11, 3]], np.int32),
        np.array([[0, 0, 2, 9]], np.int32),
        np.array([[0, -(2**31), 2, 2**31 - 1]], np.int32),
    ],
    ids=["int64", "float32", "one", "three columns", "empty", "inverted", "left", "right", "below", "extreme"],
)
def test_bad_rectangles_are_refused(rectangles: Any) -> None:
    for call in (
        lambda: postproc.expand(MASK, rectangles),
        lambda: postproc.select(FUSED, MASK, rectangles),
    ):
        with pytest.raises(InvalidMaskError, match=r"rectangles: expected .* found"):
            call()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("t", -0.1),
        ("t", 1.1),
        ("t", float("nan")),
        ("threshold", -0.1),
        ("threshold", float("inf")),
        ("max_candidates", 0),
        ("max_candidates", -1),
        ("min_area", 0),
        ("min_area_share", -0.1),
        ("min_area_share", 1.1),
        ("gradient_percentile", 0.0),
        ("gradient_percentile", 100.1),
        ("gradient_percentile", float("nan")),
        ("closing", -0.1),
        ("closing", 1.1),
        ("candidates", "largest"),
        ("gradient_power", 0.0),
        ("gradient_power", float("inf")),
        ("gradient_sigma", -0.1),
        ("gradient_sigma", 1.1),
        ("area_power", -0.1),
        ("area_power", float("nan")),
        ("threads", -1),
    ],
)
def test_parameters_out_of_range_are_refused(name: str, value: float | str) -> None:
    keywords: dict[str, Any] = {name: value}
    with pytest.raises(InvalidMapError, match=rf"{name}: expected .* found"):
        postproc.localize(HEATMAPS, GRADIENT_MAPS, **keywords)
    with pytest.raises(InvalidMapError, match=rf"{name}: expected .* found"):
        postproc.localize_many(HEATMAPS, GRADIENT_MAPS, **keywords)


@pytest.mark.parametrize(("name", "value"), [("score_ratio", 1.1), ("score_ratio", -0.1), ("max_boxes", 0)])
def test_parameters_of_several_boxes_are_checked(name: str, value: float) -> None:
    keywords: dict[str, Any] = {name: value}
    with pytest.raises(InvalidMapError, match=rf"{name}: expected .* found"):
        postproc.localize_many(HEATMAPS, GRADIENT_MAPS, **keywords)


def test_steps_check_their_keywords() -> None:
    with pytest.raises(InvalidMapError, match=r"gradient_percentile: expected .* found"):
        postproc.fuse(HEATMAPS[0], GRADIENT_MAPS[0], gradient_percentile=-1)
    with pytest.raises(InvalidMapError, match=r"closing: expected .* found"):
        postproc.binarize(FUSED, closing=2)
    with pytest.raises(InvalidMapError, match="candidates: expected 'greedy', 'components' or 'all', found 'All'"):
        postproc.maximal_rectangles(MASK, candidates="All")  # type: ignore[arg-type]  # the wrong case is the point


def test_only_float_gradients_have_a_sign() -> None:
    message = "gradient_positive: expected float32 gradient maps, found uint8"
    for call in (postproc.localize, postproc.localize_many):
        with pytest.raises(InvalidMapError, match=message):
            call(HEATMAPS, GRADIENT_MAPS, gradient_positive=True)
    with pytest.raises(InvalidMapError, match=message):
        postproc.fuse(HEATMAPS[0], GRADIENT_MAPS[0], gradient_positive=True)
    signed = np.array([[-9, 2], [0, 4]], np.float32)
    fused = postproc.fuse(HEATMAPS[0], signed, t=0, gradient_positive=True)
    np.testing.assert_allclose(fused, [[0, 127.5], [0, 255]])


@pytest.mark.parametrize("shape", [(1, 65536), (65536, 1)])
def test_sides_are_at_most_65535(shape: tuple[int, int]) -> None:
    message = "expected 1 to 65535 pixels a side, found height"
    with pytest.raises(InvalidMapError, match=message):
        postproc.localize(HEATMAPS[:1], np.zeros((1, *shape), np.uint8))
    with pytest.raises(InvalidMapError, match=message):
        postproc.binarize(np.zeros(shape, np.float32))
    with pytest.raises(InvalidMaskError, match=message):
        postproc.maximal_rectangles(np.zeros(shape, np.uint8))


def test_maps_must_belong_together() -> None:
    with pytest.raises(InvalidMapError, match="expected one for each of 1 heat maps, found 2"):
        postproc.localize(HEATMAPS[:1], GRADIENT_MAPS)
    with pytest.raises(InvalidMaskError, match="expected the fused map's shape"):
        postproc.select(FUSED[:4], MASK, RECTANGLES)


def test_a_message_names_what_was_found() -> None:
    with pytest.raises(InvalidMapError) as error:
        postproc.localize(HEATMAPS.astype(np.float64), GRADIENT_MAPS)
    assert str(error.value) == (
        "heatmaps: expected a C-contiguous, aligned float32 [maps, h, w] array, found float64 array of shape (2, 3, 4)"
    )


def test_no_maps_give_no_boxes() -> None:
    boxes, scores = postproc.localize(HEATMAPS[:0], GRADIENT_MAPS[:0])
    assert (boxes.shape, boxes.dtype, scores.shape, scores.dtype) == ((0, 4), np.int32, (0,), np.float32)


def test_constant_maps_give_no_box() -> None:
    boxes, scores = postproc.localize(np.ones((1, 3, 3), np.float32), np.full((1, 8, 8), 7, np.uint8))
    assert (boxes.tolist(), scores.tolist()) == ([[0, 0, 0, 0]], [0.0])


def test_read_only_arrays_are_read() -> None:
    expected = postproc.localize(HEATMAPS, GRADIENT_MAPS)
    frozen = HEATMAPS.copy(), GRADIENT_MAPS.copy()
    for array in frozen:
        array.flags.writeable = False
    for found, value in zip(postproc.localize(*frozen), expected, strict=True):
        np.testing.assert_array_equal(found, value)


def test_extreme_float_maps_are_scaled() -> None:
    gradient_map = np.array([[-3e38, 3e38], [0, 3e38]], np.float32)
    np.testing.assert_allclose(postproc.fuse(HEATMAPS[0], gradient_map, t=0), [[0, 255], [127.5, 255]], rtol=1e-6)
    tiny = np.array([[0, 1e-45], [0, 0]], np.float32)
    np.testing.assert_array_equal(postproc.fuse(tiny, tiny, t=0), [[0, 255], [0, 0]])


def test_defaults_are_the_paper_preset() -> None:
    keywords = BoxParameters().keywords()
    for found, value in zip(
        postproc.localize(HEATMAPS, GRADIENT_MAPS),
        postproc.localize(HEATMAPS, GRADIENT_MAPS, **keywords),
        strict=True,
    ):
        np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_every_preset_is_accepted(preset: BoxParameters) -> None:
    boxes, scores = postproc.localize(HEATMAPS, GRADIENT_MAPS, **preset.keywords())
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (scores > 0).all()


def test_other_threads_run_during_a_call() -> None:
    ticks = 0
    stop = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not stop.wait(0.001):
            ticks += 1

    gradient_maps = np.random.default_rng(2).integers(0, 256, (400, 224, 224), dtype=np.uint8)
    heatmaps = np.ones((400, 7, 7), np.float32)
    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        while ticks == 0:
            time.sleep(0.001)
        before = ticks
        postproc.localize(heatmaps, gradient_maps, threads=1)
        during = ticks - before
    finally:
        stop.set()
        ticker.join()
    assert during > 10  # one or two if the call kept the interpreter's lock


@pytest.mark.parametrize("module", [postproc, _core])
def test_examples_run(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
