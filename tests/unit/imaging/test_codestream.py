"""Every accepted transfer syntax, against the array that was encoded and against other decoders."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import openjpeg
import pydicom
import pytest
from pydicom import uid
from pydicom.encaps import get_frame
from pydicom.pixels.encoders import JPEGLSLosslessEncoder, RLELosslessEncoder
from pydicom.pixels.utils import pixel_array

from crosseai.contract import UnreadableImageError
from crosseai.imaging import decode_radiograph
from crosseai.imaging.codestream import DECODERS, decode_pixel_data
from tests.oracles.grayscale import Transform
from tests.unit.imaging.conftest import MakeDicom

WINDOW_OF_12_BITS = Transform(12, window=(2048, 4096))


def expected_display(stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.rint(stored / 4095 * 65535)


def encoded(pixels: npt.NDArray[np.uint16], syntax: str) -> bytes:
    if syntax == uid.JPEG2000Lossless:
        return bytes(openjpeg.encode(pixels, bits_stored=12))
    encoder = {uid.RLELossless: RLELosslessEncoder, uid.JPEGLSLossless: JPEGLSLosslessEncoder}[syntax]
    return encoder.encode(
        pixels.tobytes(), rows=pixels.shape[0], columns=pixels.shape[1], samples_per_pixel=1, bits_allocated=16,
        bits_stored=12, pixel_representation=0, photometric_interpretation="MONOCHROME2", number_of_frames=1,
    )  # fmt: skip


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_lossless_syntaxes_give_back_the_pixels(
    make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16], syntax: str
) -> None:
    content = make_dicom(gradient, transform=WINDOW_OF_12_BITS, syntax=syntax, frame=encoded(gradient, syntax))
    np.testing.assert_array_equal(decode_radiograph(content).pixels, expected_display(gradient))


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_native_syntaxes(make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16], syntax: str) -> None:
    stored = gradient.astype(">u2") if syntax == uid.ExplicitVRBigEndian else gradient
    content = make_dicom(stored, transform=WINDOW_OF_12_BITS, syntax=syntax)
    np.testing.assert_array_equal(decode_radiograph(content).pixels, expected_display(gradient))


def test_signed_jpeg_2000(make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16]) -> None:
    signed = gradient.astype(np.int16) - 2048
    transform = Transform(12, signed=True, window=(0, 4096))
    frame = bytes(openjpeg.encode(signed, bits_stored=12))
    content = make_dicom(signed, transform=transform, syntax=uid.JPEG2000Lossless, frame=frame)
    np.testing.assert_array_equal(decode_radiograph(content).pixels, expected_display(gradient))


def test_a_frame_of_another_size_is_refused(make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16]) -> None:
    frame = encoded(gradient, uid.JPEG2000Lossless)
    content = make_dicom(gradient, syntax=uid.JPEG2000Lossless, frame=frame, Rows=4, Columns=4)
    with pytest.raises(UnreadableImageError, match=r"expected a frame of 4 x 4 pixels .* found 64 x 48"):
        decode_radiograph(content)


def test_a_colour_frame_in_a_grayscale_file_is_refused(make_dicom: MakeDicom) -> None:
    frame = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    with pytest.raises(UnreadableImageError, match="with 1 component, found 8 x 8 with 3"):
        decode_radiograph(make_dicom(np.zeros((8, 8), np.uint8), syntax=uid.JPEGBaseline8Bit, frame=frame))


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_a_truncated_frame_is_unreadable(
    make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16], syntax: str, share: float
) -> None:
    frame = encoded(gradient, syntax)
    content = make_dicom(gradient, transform=WINDOW_OF_12_BITS, syntax=syntax, frame=frame[: int(share * len(frame))])
    with pytest.raises(UnreadableImageError):
        decode_radiograph(content)


def test_too_few_native_pixels_are_unreadable(make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16]) -> None:
    with pytest.raises(UnreadableImageError, match="cannot be decoded"):
        decode_radiograph(make_dicom(gradient, transform=WINDOW_OF_12_BITS, PixelData=bytes(100)))


def test_decoders_agree_on_real_files(shared_data: Path) -> None:
    compared = 0
    for path in sorted((shared_data / "dicom").glob("[co]*/*")):
        dataset = pydicom.dcmread(path)
        syntax = dataset.file_meta.TransferSyntaxUID
        ours = decode_pixel_data(dataset)
        others = []
        if DECODERS[syntax] in ("gdcm", "opencv"):
            others.append(pixel_array(dataset, raw=True, decoding_plugin="gdcm"))
        if syntax in uid.JPEG2000TransferSyntaxes:
            others.append(openjpeg.decode(get_frame(dataset.PixelData, 0, number_of_frames=1)))
        for other in others:
            np.testing.assert_array_equal(ours, other, err_msg=path.name)
            compared += 1
    assert compared == 9
