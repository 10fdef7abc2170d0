"""Every accepted transfer syntax, against the array that was encoded and against other decoders."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import gdcm
import imagecodecs
import numpy as np
import numpy.typing as npt
import openjpeg
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.filebase import DicomBytesIO
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.pixels.utils import pixel_array

from crosseai.contract import UnreadableImageError, UnsupportedImageError
from crosseai.imaging import decode_radiograph
from crosseai.imaging.codestream import DECODERS, decode_pixel_data
from tests.oracles.grayscale import Transform
from tests.unit.imaging.conftest import MakeDicom

WINDOW_OF_12_BITS = Transform(12, window=(2048, 4096))

COMPRESSED = [syntax for syntax in DECODERS if uid.UID(syntax).is_encapsulated]


def expected_display(stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.rint(stored / 4095 * 65535)


def run_length_encoded(pixels: npt.NDArray[Any]) -> bytes:
    rows, columns = pixels.shape
    bits = 8 * pixels.itemsize
    return RLELosslessEncoder.encode(
        pixels.tobytes(), rows=rows, columns=columns, samples_per_pixel=1, bits_allocated=bits, bits_stored=bits,
        pixel_representation=0, photometric_interpretation="MONOCHROME2", number_of_frames=1,
        encoding_plugin="pydicom",
    )  # fmt: skip


ENCODERS: dict[str, Callable[[npt.NDArray[np.uint16]], bytes]] = {
    uid.RLELossless: run_length_encoded,
    uid.JPEGBaseline8Bit: lambda pixels: cv2.imencode(".jpg", (pixels >> 4).astype(np.uint8))[1].tobytes(),
    uid.JPEGExtended12Bit: lambda pixels: imagecodecs.jpeg8_encode(pixels, level=95, bitspersample=12),
    uid.JPEGLossless: lambda pixels: imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=7, bitspersample=12),
    uid.JPEGLosslessSV1: lambda pixels: imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=1, bitspersample=16),
    uid.JPEGLSLossless: imagecodecs.jpegls_encode,
    uid.JPEGLSNearLossless: lambda pixels: imagecodecs.jpegls_encode(
        pixels.clip(0, 4092), level=3
    ),  # its own limit is 65535
    uid.JPEG2000Lossless: lambda pixels: bytes(openjpeg.encode(pixels, bits_stored=12)),
    uid.JPEG2000: lambda pixels: bytes(openjpeg.encode(pixels, bits_stored=12, compression_ratios=[4])),
}

LARGEST_ERROR = {uid.JPEGBaseline8Bit: 4 * 16, uid.JPEGExtended12Bit: 8, uid.JPEGLSNearLossless: 6, uid.JPEG2000: 24}
"""Of the lossy syntaxes, as encoded here, in stored values of 12 bits."""


def other_decodings(dataset: Dataset) -> Iterator[npt.NDArray[Any]]:
    """The same frame by every other decoder at hand."""
    syntax = dataset.file_meta.TransferSyntaxUID
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if syntax == uid.RLELossless:
        yield pixel_array(dataset, raw=True, decoding_plugin="pydicom")
        return
    yield decoded_by_gdcm(frame, dataset)
    if syntax == uid.JPEGBaseline8Bit:
        yield cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_UNCHANGED)
    if syntax in uid.JPEGLSTransferSyntaxes:
        yield pixel_array(dataset, raw=True, decoding_plugin="pyjpegls")
    if syntax in uid.JPEG2000TransferSyntaxes:
        yield openjpeg.decode(frame)


def decoded_by_gdcm(frame: bytes, dataset: Dataset) -> npt.NDArray[Any]:
    """pydicom calls GDCM, too, but not for JPEG of 12 bits."""
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((dataset.Columns, dataset.Rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(
        gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.GetPIType(dataset.PhotometricInterpretation))
    )
    syntax = gdcm.TransferSyntax.GetTSType(str(dataset.file_meta.TransferSyntaxUID))
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    bits = dataset.BitsStored
    image.SetPixelFormat(gdcm.PixelFormat(1, dataset.BitsAllocated, bits, bits - 1, dataset.PixelRepresentation))
    content = image.GetBuffer().encode("utf-8", "surrogateescape")
    return np.frombuffer(content, f"u{dataset.BitsAllocated // 8}").reshape(dataset.Rows, dataset.Columns)


def compressed(make_dicom: MakeDicom, pixels: npt.NDArray[np.uint16], syntax: str, frame: bytes) -> bytes:
    if syntax == uid.JPEGBaseline8Bit:
        return make_dicom((pixels >> 4).astype(np.uint8), syntax=syntax, frame=frame)
    return make_dicom(pixels, transform=WINDOW_OF_12_BITS, syntax=syntax, frame=frame)


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda syntax: uid.UID(syntax).keyword)
def test_compressed_syntaxes_give_back_the_pixels(
    make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16], syntax: str
) -> None:
    frame = ENCODERS[syntax](gradient)
    radiograph = decode_radiograph(compressed(make_dicom, gradient, syntax, frame))
    scale = 16 if syntax == uid.JPEGBaseline8Bit else 4095 / 65535
    stored = radiograph.pixels.astype(float) * scale
    np.testing.assert_allclose(stored, gradient, atol=LARGEST_ERROR.get(syntax, 0) + 0.5 * scale)
    assert radiograph.metadata.transfer_syntax == syntax


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda syntax: uid.UID(syntax).keyword)
def test_decoders_agree(make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16], syntax: str) -> None:
    noisy = gradient + np.random.default_rng(0).integers(-40, 40, gradient.shape)
    pixels = noisy.clip(0, 4095).astype(np.uint16)
    dataset = pydicom.dcmread(DicomBytesIO(compressed(make_dicom, pixels, syntax, ENCODERS[syntax](pixels))))
    ours = decode_pixel_data(dataset)
    others = list(other_decodings(dataset))
    assert others
    for other in others:
        np.testing.assert_array_equal(ours, other)


@pytest.mark.parametrize("predictor", range(1, 8))
def test_every_predictor_of_lossless_jpeg(
    make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16], predictor: int
) -> None:
    frame = imagecodecs.jpeg8_encode(gradient, lossless=True, predictor=predictor, bitspersample=12)
    dataset = pydicom.dcmread(DicomBytesIO(compressed(make_dicom, gradient, uid.JPEGLossless, frame)))
    np.testing.assert_array_equal(decode_pixel_data(dataset), gradient)
    np.testing.assert_array_equal(decoded_by_gdcm(frame, dataset), gradient)


@settings(deadline=None)
@given(
    pixels=hnp.arrays(
        st.sampled_from([np.dtype(np.uint8), np.dtype(np.uint16)]),
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        elements=st.integers(0, 255),
    )
)
def test_run_lengths_of_any_size(make_dicom: MakeDicom, pixels: npt.NDArray[Any]) -> None:
    """Segments of odd length are padded."""
    content = make_dicom(pixels, syntax=uid.RLELossless, frame=run_length_encoded(pixels))
    np.testing.assert_array_equal(decode_pixel_data(pydicom.dcmread(DicomBytesIO(content))), pixels)


def test_run_lengths_decode_to_no_more_than_the_image(make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16]) -> None:
    frame = run_length_encoded(np.zeros((4000, 4000), np.uint16))
    with pytest.raises(UnreadableImageError, match="cannot be decoded"):
        decode_radiograph(make_dicom(gradient, syntax=uid.RLELossless, frame=frame))


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
    frame = ENCODERS[uid.JPEG2000Lossless](gradient)
    content = make_dicom(gradient, syntax=uid.JPEG2000Lossless, frame=frame, Rows=4, Columns=4)
    with pytest.raises(UnreadableImageError, match=r"expected a frame of 4 x 4 pixels .* found 64 x 48"):
        decode_radiograph(content)


def test_a_colour_frame_in_a_grayscale_file_is_refused(make_dicom: MakeDicom) -> None:
    frame = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    with pytest.raises(UnreadableImageError, match="with 1 component, found 8 x 8 with 3"):
        decode_radiograph(make_dicom(np.zeros((8, 8), np.uint8), syntax=uid.JPEGBaseline8Bit, frame=frame))


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda syntax: uid.UID(syntax).keyword)
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.99])
def test_a_truncated_frame_is_unreadable(
    make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16], syntax: str, share: float
) -> None:
    frame = ENCODERS[syntax](gradient)
    with pytest.raises(UnreadableImageError):
        decode_radiograph(compressed(make_dicom, gradient, syntax, frame[: int(share * len(frame))]))


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda syntax: uid.UID(syntax).keyword)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_cut_frame_that_has_an_end_is_unreadable(
    make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16], syntax: str, share: float
) -> None:
    noisy = gradient + np.random.default_rng(0).integers(-40, 40, gradient.shape)
    frame = ENCODERS[syntax](noisy.clip(0, 4095).astype(np.uint16))
    with pytest.raises(UnreadableImageError):
        decode_radiograph(compressed(make_dicom, gradient, syntax, frame[: int(share * len(frame))] + b"\xff\xd9"))


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda syntax: uid.UID(syntax).keyword)
def test_a_broken_frame_never_crashes(
    make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16], syntax: str, capfd: pytest.CaptureFixture[str]
) -> None:
    frame = ENCODERS[syntax](gradient)
    random = np.random.default_rng(0)
    for _ in range(30):
        broken = np.frombuffer(frame, np.uint8).copy()
        broken[random.integers(0, broken.size, 4)] = random.integers(0, 256, 4)
        with suppress(UnreadableImageError, UnsupportedImageError):
            decode_radiograph(compressed(make_dicom, gradient, syntax, broken.tobytes()))
    assert capfd.readouterr() == ("", "")


def test_too_few_native_pixels_are_unreadable(make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16]) -> None:
    with pytest.raises(UnreadableImageError, match="expected 6144 bytes of Pixel Data, found 100"):
        decode_radiograph(make_dicom(gradient, transform=WINDOW_OF_12_BITS, PixelData=bytes(100)))


def test_compressed_pixels_that_claim_to_be_uncompressed_are_refused(
    make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16]
) -> None:
    frame = bytes(2 * gradient.size)
    content = make_dicom(gradient, syntax=uid.JPEG2000Lossless, frame=frame)
    wrong = content.replace(uid.JPEG2000Lossless.encode() + b"\0", uid.ExplicitVRLittleEndian.encode().ljust(23, b"\0"))
    with pytest.raises(UnreadableImageError):
        decode_radiograph(wrong)


def test_decoders_agree_on_real_files(shared_data: Path) -> None:
    compared = 0
    for path in sorted((shared_data / "dicom").glob("[co]*/*")):
        dataset = pydicom.dcmread(path)
        if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            continue
        ours = decode_pixel_data(dataset)
        for other in other_decodings(dataset):
            np.testing.assert_array_equal(ours, other, err_msg=path.name)
            compared += 1
    assert compared == 12
