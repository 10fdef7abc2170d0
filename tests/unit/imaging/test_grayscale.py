"""The grayscale transform against a per-pixel oracle written from the standard."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from crosseai.contract import ModelSpec, UnreadableImageError, UnsupportedImageError
from crosseai.imaging import ReadPolicy, decode_radiograph, preprocess, read_radiograph
from tests.oracles.grayscale import Lut, Transform, displayed_shares
from tests.unit.imaging.conftest import MakeDicom


@st.composite
def luts(draw: st.DrawFn, first: int, depth: int) -> Lut:
    entries = draw(st.lists(st.integers(0, 2**depth - 1), min_size=2, max_size=40))
    return Lut(first, depth, tuple(entries))


@st.composite
def images(draw: st.DrawFn) -> tuple[npt.NDArray[Any], Transform]:
    """Pixels of every depth and sign with every combination of modality transform, values of interest and padding."""
    bits, signed = draw(st.integers(2, 16)), draw(st.booleans())
    low = -(2 ** (bits - 1)) if signed else 0
    high = low + 2**bits - 1
    dtype = np.dtype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")
    values = draw(st.lists(st.integers(low, high), min_size=6, max_size=6))
    pixels = np.array(values, dtype).reshape(2, 3)
    modality_lut = draw(st.none() | luts(first=draw(st.integers(low, high)), depth=draw(st.sampled_from([8, 12, 16]))))
    # The smallest stored value and the rescaled range stay within what LUTDescriptor can say.
    voi_lut = draw(st.none() | luts(first=draw(st.integers(0, 1000)), depth=draw(st.sampled_from([8, 10, 16]))))
    window = draw(st.none() | st.tuples(st.integers(low, high), st.integers(2, 2**bits)))
    transform = Transform(
        bits=bits,
        signed=signed,
        inverted=draw(st.booleans()),
        slope=draw(st.sampled_from([1.0, 0.5, 2.0, -1.0])),
        intercept=draw(st.sampled_from([0.0, -100.0, 7.5])),
        modality_lut=modality_lut,
        voi_lut=voi_lut,
        window=window,
        function=draw(st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"])),
        padding=draw(st.none() | st.tuples(st.integers(low, high), st.integers(low, high))),
    )
    return pixels, transform


@settings(deadline=None)
@given(case=images())
def test_agrees_with_the_standards_pseudo_code(make_dicom: MakeDicom, case: tuple[npt.NDArray[Any], Transform]) -> None:
    pixels, transform = case
    try:
        expected = np.array(displayed_shares(pixels.ravel().tolist(), transform)).reshape(pixels.shape)
    except (ValueError, ZeroDivisionError):  # nothing to scale: padding only, or one value only
        assume(False)
    content = make_dicom(pixels, transform=transform)
    try:
        radiograph = decode_radiograph(content)
    except UnsupportedImageError:
        assert np.ptp(expected) < 1e-4, "refused as blank, but it has contrast"
        return
    _, top = radiograph.display_range
    np.testing.assert_allclose(radiograph.pixels / top, expected, atol=0.51 / top)


@settings(deadline=None)
@given(
    values=st.lists(st.integers(0, 4095), min_size=12, max_size=12, unique=True),
    window=st.none() | st.tuples(st.integers(0, 4095), st.integers(2, 4096)),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
)
def test_both_polarities_give_the_same_bytes(
    make_dicom: MakeDicom, values: list[int], window: tuple[int, int] | None, function: Any
) -> None:
    positive = np.array(values, np.uint16).reshape(3, 4)
    # PS3.3 C.11.2.1.2.1: LINEAR is symmetric about c - 0.5, the other functions about c.
    mirror = 4096 if function == "LINEAR" else 4095
    mirrored = None if window is None else (mirror - window[0], window[1])
    try:
        shown = decode_radiograph(make_dicom(positive, transform=Transform(bits=12, window=window, function=function)))
    except UnsupportedImageError:  # the window shows nothing
        assume(False)
    inverse = decode_radiograph(
        make_dicom(4095 - positive, transform=Transform(12, inverted=True, window=mirrored, function=function))
    )
    spec = ModelSpec(input_size=8)
    np.testing.assert_array_equal(preprocess(inverse, spec), preprocess(shown, spec))


def test_eight_bits_without_a_window_are_display_values_already(make_dicom: MakeDicom) -> None:
    pixels = np.arange(30, 150, dtype=np.uint8).reshape(10, 12)
    radiograph = decode_radiograph(make_dicom(pixels))
    np.testing.assert_array_equal(radiograph.pixels, pixels)
    assert radiograph.pixels.dtype == np.uint8
    assert radiograph.display_range == (0, 255)


def test_padding_is_black_and_does_not_stretch_the_range(make_dicom: MakeDicom) -> None:
    pixels = np.array([[1000, 2000, 4095], [1500, 1000, 4095]], np.uint16)
    radiograph = decode_radiograph(make_dicom(pixels, transform=Transform(12, padding=(4095, 4095))))
    np.testing.assert_array_equal(radiograph.pixels, [[0, 65535, 0], [32768, 0, 0]])


def test_an_overlay_above_the_high_bit_is_masked(make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16]) -> None:
    with_overlay = gradient.copy()
    with_overlay[::3, ::5] |= 0x8000
    clean = decode_radiograph(make_dicom(gradient, transform=Transform(12)))
    np.testing.assert_array_equal(
        decode_radiograph(make_dicom(with_overlay, transform=Transform(12))).pixels, clean.pixels
    )


def test_the_first_of_several_windows_counts(make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16]) -> None:
    one = decode_radiograph(make_dicom(gradient, transform=Transform(12, window=(1000, 500))))
    two = decode_radiograph(
        make_dicom(gradient, transform=Transform(12), WindowCenter=[1000, 2000], WindowWidth=[500, 4096])
    )
    np.testing.assert_array_equal(two.pixels, one.pixels)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_window_can_be_chosen(make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16], number: int) -> None:
    centers, widths = [1000, 2000, 3000], [500, 4096, 100]
    expected = decode_radiograph(
        make_dicom(gradient, transform=Transform(12, window=(centers[number - 1], widths[number - 1])))
    )
    several = make_dicom(gradient, transform=Transform(12), WindowCenter=centers, WindowWidth=widths)
    chosen = decode_radiograph(several, ReadPolicy(window=number))
    np.testing.assert_array_equal(chosen.pixels, expected.pixels)


def test_a_chosen_window_counts_more_than_a_lookup_table(
    make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16]
) -> None:
    lut = Lut(first=0, bits=8, entries=tuple(range(255, -1, -1)))
    content = make_dicom(gradient, transform=Transform(12, voi_lut=lut, window=(1000, 500)))
    window = decode_radiograph(make_dicom(gradient, transform=Transform(12, window=(1000, 500)))).pixels
    table = decode_radiograph(make_dicom(gradient, transform=Transform(12, voi_lut=lut))).pixels
    np.testing.assert_array_equal(decode_radiograph(content).pixels, table)
    np.testing.assert_array_equal(decode_radiograph(content, ReadPolicy(window=1)).pixels, window)


@pytest.mark.parametrize("number", [2, 9])
def test_a_chosen_window_that_is_not_there_is_an_error(
    make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16], number: int
) -> None:
    content = make_dicom(gradient, transform=Transform(12, window=(1000, 500)))
    with pytest.raises(UnsupportedImageError, match=f"expected a window {number}, found none"):
        decode_radiograph(content, ReadPolicy(window=number))


def test_pydicom_displays_real_files_alike(shared_data: Path) -> None:
    """Its functions for the same steps, on whole arrays; it knows neither padding nor files without a window."""
    compared = 0
    for path in sorted((shared_data / "dicom" / "chest").iterdir()):
        dataset = pydicom.dcmread(path)
        if "WindowCenter" not in dataset and "VOILUTSequence" not in dataset:
            continue
        modality = apply_modality_lut(dataset.pixel_array, dataset)
        shown = apply_voi_lut(modality, dataset).astype(float)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            shown = 2**dataset.BitsStored - 1 - shown
        radiograph = read_radiograph(path)
        top = 2**dataset.BitsStored - 1
        np.testing.assert_allclose(radiograph.pixels / 65535, shown / top, atol=1.5 / top, err_msg=path.name)
        compared += 1
    assert compared == 3


@pytest.mark.parametrize("width", [0, 1, -5])
def test_a_window_without_width_is_no_window(
    make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16], width: int
) -> None:
    without = decode_radiograph(make_dicom(gradient, transform=Transform(12)))
    radiograph = decode_radiograph(make_dicom(gradient, transform=Transform(12), WindowCenter=9, WindowWidth=width))
    np.testing.assert_array_equal(radiograph.pixels, without.pixels)


@pytest.mark.parametrize(
    ("pixels", "attributes"),
    [
        (np.full((4, 4), 7, np.uint16), {}),
        (np.full((4, 4), 7, np.uint16), {"PixelPaddingValue": 7}),
        (np.arange(16, dtype=np.uint16).reshape(4, 4), {"WindowCenter": 9000, "WindowWidth": 10}),
        (np.arange(16, dtype=np.uint16).reshape(4, 4), {"RescaleSlope": 0, "RescaleIntercept": 1}),
    ],
    ids=["one value", "padding only", "window elsewhere", "rescaled to nothing"],
)
def test_an_image_without_contrast_is_refused(
    make_dicom: MakeDicom, pixels: npt.NDArray[np.uint16], attributes: dict[str, Any]
) -> None:
    with pytest.raises(UnsupportedImageError, match="displayed alike"):
        decode_radiograph(make_dicom(pixels, **attributes))


def test_a_malformed_lookup_table_is_an_error(make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16]) -> None:
    transform = Transform(12, voi_lut=Lut(first=0, bits=40, entries=(0, 1)))
    with pytest.raises(UnreadableImageError, match="grayscale transform is malformed"):
        decode_radiograph(make_dicom(gradient, transform=transform))


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": "nan", "WindowWidth": "100"},
        {"WindowCenter": "100", "WindowWidth": "inf"},
        {"RescaleSlope": "nan"},
        {"RescaleSlope": "1e308"},
        {"RescaleIntercept": "-inf"},
        {"RescaleSlope": "1e308", "WindowCenter": "0", "WindowWidth": "1e308"},
    ],
)
def test_numbers_that_are_none_are_an_error(
    make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16], elements: dict[str, str]
) -> None:
    content = make_dicom(gradient, elements={keyword: ("LO", value) for keyword, value in elements.items()})
    with pytest.raises(UnreadableImageError, match="grayscale transform is malformed"):
        decode_radiograph(content)
