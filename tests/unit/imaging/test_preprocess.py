"""Preprocessing and the way back from model pixels."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crosseai.contract import NO_BOX, Box, InputError, ModelSpec
from crosseai.imaging import Radiograph, RadiographMetadata, box_to_image_px, preprocess, read_radiograph, to_display
from tests.oracles.resampling import area_mean

METADATA = RadiographMetadata("png", bits_stored=16)


def radiograph(pixels: npt.NDArray[np.generic], low: float, high: float) -> Radiograph:
    return Radiograph(np.ascontiguousarray(pixels), (low, high), METADATA)


@settings(deadline=None)
@given(
    pixels=hnp.arrays(
        st.sampled_from([np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32)]),
        st.tuples(st.integers(8, 40), st.integers(8, 40)),
        elements=st.integers(0, 255),
    ),
    window=st.tuples(st.integers(-10, 200), st.integers(1, 300)),
    side=st.integers(1, 8),
)
def test_shrinking_is_the_area_mean_then_the_window(
    pixels: npt.NDArray[np.generic], window: tuple[int, int], side: int
) -> None:
    low, width = window
    shown = preprocess(radiograph(pixels, low, low + width), ModelSpec(input_size=side))
    expected = np.clip((area_mean(pixels.astype(np.float64), side) - low) / width * 255, 0, 255)
    # OpenCV rounds integers once more, before the window.
    rounding = 0.5 + (0 if pixels.dtype == np.float32 else 0.5 * 255 / width) + 1e-3
    assert shown.shape == (1, side, side)
    assert shown.dtype == np.uint8
    np.testing.assert_allclose(shown[0], expected, atol=rounding)


@pytest.mark.parametrize("shape", [(1024, 1024), (513, 777), (100, 90), (100, 1000)])
def test_eight_bit_images_are_resized_as_opencv_does(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    expected = cv2.resize(pixels, (224, 224), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(preprocess(radiograph(pixels, 0, 255), ModelSpec())[0], expected)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_depth_does_not_change_what_is_shown(dtype: type[np.generic]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (300, 410), np.uint8)
    deep = radiograph(pixels.astype(dtype), 0, 255)
    difference = preprocess(deep, ModelSpec()).astype(int) - preprocess(radiograph(pixels, 0, 255), ModelSpec())
    assert np.abs(difference).max() <= 1
    np.testing.assert_array_equal(to_display(deep), pixels)


def test_the_display_range_becomes_0_to_255() -> None:
    shown = to_display(radiograph(np.array([[0, 100, 150], [200, 300, 65535]], np.uint16), 100, 200))
    np.testing.assert_array_equal(shown, [[0, 0, 128], [255, 255, 255]])


sizes = st.integers(1, 5000)


@st.composite
def model_boxes(draw: st.DrawFn) -> tuple[Box, int]:
    side = draw(st.integers(1, 1024))
    x0, y0 = draw(st.integers(0, side - 1)), draw(st.integers(0, side - 1))
    return (x0, y0, draw(st.integers(x0 + 1, side)), draw(st.integers(y0 + 1, side))), side


@settings(deadline=None)
@given(side=st.integers(1, 1024), height=sizes, width=sizes)
def test_the_model_frame_is_the_whole_image(side: int, height: int, width: int) -> None:
    assert box_to_image_px((0, 0, side, side), side, height, width) == (0, 0, width, height)


@settings(deadline=None)
@given(box=model_boxes(), height=sizes, width=sizes)
def test_a_box_stays_inside_covers_its_area_and_no_pixel_more(box: tuple[Box, int], height: int, width: int) -> None:
    (mx0, my0, mx1, my1), side = box
    x0, y0, x1, y1 = box_to_image_px((mx0, my0, mx1, my1), side, height, width)
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    for start, stop, model_start, model_stop, size in ((x0, x1, mx0, mx1, width), (y0, y1, my0, my1, height)):
        assert start * side <= model_start * size < (start + 1) * side
        assert (stop - 1) * side < model_stop * size <= stop * side


def test_a_crop_moves_the_box_with_it() -> None:
    """One spot, planted in the image and in a crop of it, is found at the same place of the original."""
    image = np.zeros((1000, 800), np.uint8)
    image[300:500, 500:600] = 255
    found = []
    for top, left, bottom, right in ((0, 0, 1000, 800), (200, 300, 900, 800)):
        crop = image[top:bottom, left:right]
        ys, xs = np.nonzero(preprocess(radiograph(crop, 0, 255), ModelSpec())[0] > 127)
        box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
        x0, y0, x1, y1 = box_to_image_px(box, 224, *crop.shape)
        found.append((x0 + left, y0 + top, x1 + left, y1 + top))
    for box in found:
        np.testing.assert_allclose(box, (500, 300, 600, 500), atol=1000 / 224)


def test_no_box_stays_no_box() -> None:
    assert box_to_image_px(NO_BOX, 224, 1024, 1024) == NO_BOX


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (0, 0, 225, 10), (-1, 0, 5, 5), (9, 5, 3, 7)])
def test_a_box_outside_the_model_frame_is_refused(box: Box) -> None:
    with pytest.raises(InputError, match="expected 0 <= x0 < x1 <= 224"):
        box_to_image_px(box, 224, 1024, 1024)


@pytest.mark.parametrize(
    ("pixels", "display_range", "message"),
    [
        (np.zeros((4, 4), np.int16), (0, 1), "uint8, uint16 or float32"),
        (np.zeros((4, 4, 3), np.uint8), (0, 1), "shape"),
        (np.zeros((0, 4), np.uint8), (0, 1), "shape"),
        (np.zeros((8, 8), np.uint8)[:, ::2], (0, 1), "C-contiguous"),
        (np.zeros((4, 4), np.uint8), (1, 1), "low < high"),
        (np.zeros((4, 4), np.uint8), (0, float("nan")), "low < high"),
    ],
)
def test_a_radiograph_is_what_it_says(
    pixels: npt.NDArray[np.generic], display_range: tuple[float, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Radiograph(pixels, display_range, METADATA)


def test_real_images_are_preprocessed_as_the_reference_does(shared_data: Path) -> None:
    for path in sorted((shared_data / "nih" / "images").glob("*.png"))[:10]:
        reference = cv2.resize(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), (224, 224), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(preprocess(read_radiograph(path), ModelSpec())[0], reference)
