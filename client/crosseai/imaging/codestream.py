"""Pixel Data of a DICOM file to the array of stored values."""

import struct
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.utils import pixel_array

from crosseai.contract import UnreadableImageError
from crosseai.imaging.headers import jpeg2000_header, jpeg_header

DECODERS: Mapping[str, str] = {
    uid.ImplicitVRLittleEndian: "",
    uid.ExplicitVRLittleEndian: "",
    uid.ExplicitVRBigEndian: "",
    uid.RLELossless: "pydicom",
    uid.JPEGBaseline8Bit: "opencv",
    uid.JPEGExtended12Bit: "gdcm",
    uid.JPEGLossless: "gdcm",
    uid.JPEGLosslessSV1: "gdcm",
    uid.JPEGLSLossless: "gdcm",
    uid.JPEGLSNearLossless: "gdcm",
    uid.JPEG2000Lossless: "opencv",
    uid.JPEG2000: "opencv",
}
"""Accepted transfer syntaxes and the one decoder of each, so that every machine decodes the same pixels.

OpenCV decodes without the GIL, which lets threads decode in parallel; GDCM holds it.
"""


def decode_pixel_data(dataset: Dataset) -> npt.NDArray[Any]:
    """Decode the only frame: the decoder's integer dtype, shape ``(Rows, Columns)``, before any transform.

    Raises
    ------
    UnreadableImageError
        If the frame is truncated, corrupt, or of another size than the DICOM header says.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    decoder = DECODERS[syntax]
    try:
        if syntax.is_encapsulated and syntax != uid.RLELossless:
            frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
            _require_size(frame, dataset)
            if decoder == "opencv" and not dataset.PixelRepresentation:
                return _decode_with_opencv(frame)
        return pixel_array(dataset, raw=True, decoding_plugin="gdcm" if decoder == "opencv" else decoder)
    except UnreadableImageError:
        raise
    except Exception as error:  # decoders raise anything on malformed input
        raise UnreadableImageError(f"DICOM: the pixel data cannot be decoded ({type(error).__name__})") from error


def _require_size(frame: bytes, dataset: Dataset) -> None:
    """Refuse a frame that would decode to another size than was checked: no surprise in memory."""
    header = jpeg2000_header(frame) if frame.startswith(b"\xff\x4f") else jpeg_header(frame)
    if (header.height, header.width, header.components) != (dataset.Rows, dataset.Columns, 1):
        raise UnreadableImageError(
            f"DICOM: expected a frame of {dataset.Columns} x {dataset.Rows} pixels with 1 component, found "
            f"{header.width} x {header.height} with {header.components}"
        )


def _decode_with_opencv(frame: bytes) -> npt.NDArray[Any]:
    content = _jp2(frame) if frame.startswith(b"\xff\x4f") else frame
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 2:
        raise UnreadableImageError("DICOM: the pixel data is truncated or corrupt")
    return pixels


def _jp2(codestream: bytes) -> bytes:
    """A grayscale JP2 file around a codestream (ITU-T T.800, annex I).

    DICOM stores the bare codestream; OpenCV warns on stderr about each one that comes without a colour space.
    """
    header = jpeg2000_header(codestream)
    image = struct.pack(">IIHBBBB", header.height, header.width, 1, header.bits - 1, 7, 0, 0)
    grayscale = struct.pack(">BBBI", 1, 0, 0, 17)
    return (
        _box(b"jP  ", b"\r\n\x87\n")
        + _box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
        + _box(b"jp2h", _box(b"ihdr", image) + _box(b"colr", grayscale))
        + _box(b"jp2c", codestream)
    )


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content
