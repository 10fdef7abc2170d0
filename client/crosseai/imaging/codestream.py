"""Pixel Data of a DICOM file to the array of stored values."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import imagecodecs
import numpy as np
import numpy.typing as npt
import simplejpeg
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame

from crosseai.contract import UnreadableImageError
from crosseai.imaging.headers import ImageHeader, jpeg2000_header, jpeg_header

Decoder: TypeAlias = Callable[[bytes, Dataset], npt.NDArray[Any]]

_END_OF_IMAGE = b"\xff\xd9"
_FILLER = bytes(range(1, 255))
"""Bytes that are no marker, and bits of every kind."""


def decode_pixel_data(dataset: Dataset) -> npt.NDArray[Any]:
    """Decode the only frame: 8 or 16 bits a pixel, shape ``(Rows, Columns)``, before any transform.

    Uncompressed pixels share the memory of the data set.

    Raises
    ------
    UnreadableImageError
        If the frame is truncated, corrupt, or of another size than the DICOM header says.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1) if syntax.is_encapsulated else dataset.PixelData
        pixels = DECODERS[syntax](frame, dataset)
    except UnreadableImageError:
        raise
    except Exception as error:  # decoders raise anything on malformed input
        raise UnreadableImageError(f"DICOM: the pixel data cannot be decoded ({type(error).__name__})") from error
    if pixels.shape != (dataset.Rows, dataset.Columns):
        raise UnreadableImageError(f"DICOM: expected Rows x Columns of pixels, found {list(pixels.shape)}")
    return pixels


def _native(frame: bytes, dataset: Dataset) -> npt.NDArray[Any]:
    """Uncompressed pixels (PS3.5 section 8.1.1)."""
    if dataset["PixelData"].is_undefined_length:
        raise UnreadableImageError("DICOM: the transfer syntax says uncompressed, but Pixel Data is compressed")
    shape, pixel_bytes = (dataset.Rows, dataset.Columns), dataset.BitsAllocated // 8
    if len(frame) < shape[0] * shape[1] * pixel_bytes:
        raise UnreadableImageError(
            f"DICOM: expected {shape[0] * shape[1] * pixel_bytes} bytes of Pixel Data, found {len(frame)}"
        )
    little_endian = dataset.file_meta.TransferSyntaxUID.is_little_endian
    if pixel_bytes == 1 and not little_endian and dataset["PixelData"].VR == "OW":
        frame = np.frombuffer(frame, "u2").byteswap().tobytes()  # the bytes of a word come in its order
    dtype = f"{'<' if little_endian else '>'}u{pixel_bytes}"
    return np.frombuffer(frame, dtype, shape[0] * shape[1]).reshape(shape)


def _rle(frame: bytes, dataset: Dataset) -> npt.NDArray[Any]:
    """Run lengths of each byte of a pixel (PS3.5 annex G)."""
    dtype, shape = np.dtype(f"u{dataset.BitsAllocated // 8}"), (dataset.Rows, dataset.Columns)
    # The given size bounds what is decoded; too few bytes do not fit the shape.
    decoded = imagecodecs.dicomrle_decode(frame, dtype, out=shape[0] * shape[1] * dtype.itemsize)
    return np.frombuffer(decoded, dtype).reshape(shape)


def _jpeg(frame: bytes, dataset: Dataset) -> npt.NDArray[Any]:
    """JPEG of 8 bits by a decoder that raises where libjpeg warns; none that does decodes more bits."""
    pixels: npt.NDArray[Any]
    if _whole_jpeg_header(frame, dataset).bits == 8:
        pixels = simplejpeg.decode_jpeg(frame, "GRAY")[:, :, 0]
        return pixels
    pixels = imagecodecs.jpeg8_decode(frame)
    # Where the coded pixels end too early, the missing ones are made up from whatever stands before the end.
    end = frame.rfind(_END_OF_IMAGE)
    if not np.array_equal(pixels, imagecodecs.jpeg8_decode(frame[:end] + _FILLER + frame[end:])):
        raise UnreadableImageError("DICOM: expected a whole JPEG image, found one that ends too early")
    return pixels


def _jpeg_ls(frame: bytes, dataset: Dataset) -> npt.NDArray[Any]:
    _whole_jpeg_header(frame, dataset)
    return imagecodecs.jpegls_decode(frame)


def _whole_jpeg_header(frame: bytes, dataset: Dataset) -> ImageHeader:
    """Header of a frame that has an end: without, one decoder would fill it up with gray, another search for long."""
    header = jpeg_header(frame)
    _require_size(header, dataset)
    if frame.rfind(_END_OF_IMAGE) < 0:
        raise UnreadableImageError("DICOM: expected the end of the JPEG image, found none: the frame is truncated")
    return header


def _jpeg_2000(frame: bytes, dataset: Dataset) -> npt.NDArray[Any]:
    _require_size(jpeg2000_header(frame), dataset)
    return imagecodecs.jpeg2k_decode(frame, numthreads=1)


def _require_size(found: ImageHeader, dataset: Dataset) -> None:
    """Refuse a frame that would decode to another size than was checked: no surprise in memory."""
    if (found.height, found.width, found.components) != (dataset.Rows, dataset.Columns, 1):
        raise UnreadableImageError(
            f"DICOM: expected a frame of {dataset.Columns} x {dataset.Rows} pixels with 1 component, found "
            f"{found.width} x {found.height} with {found.components}"
        )


DECODERS: Mapping[str, Decoder] = {
    uid.ImplicitVRLittleEndian: _native,
    uid.ExplicitVRLittleEndian: _native,
    uid.DeflatedExplicitVRLittleEndian: _native,
    uid.ExplicitVRBigEndian: _native,
    uid.RLELossless: _rle,
    uid.JPEGBaseline8Bit: _jpeg,
    uid.JPEGExtended12Bit: _jpeg,
    uid.JPEGLossless: _jpeg,
    uid.JPEGLosslessSV1: _jpeg,
    uid.JPEGLSLossless: _jpeg_ls,
    uid.JPEGLSNearLossless: _jpeg_ls,
    uid.JPEG2000Lossless: _jpeg_2000,
    uid.JPEG2000: _jpeg_2000,
}
"""Accepted transfer syntaxes and the one decoder of each, so that every machine decodes the same pixels.

They decode without the GIL, so that threads decode in parallel.
"""
