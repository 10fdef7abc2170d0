"""PNG and JPEG to radiograph."""

import struct
from typing import Literal

import cv2
import numpy as np

from crosseai.contract import UnreadableImageError, UnsupportedImageError
from crosseai.imaging.radiograph import MAX_PIXELS, Radiograph, RadiographMetadata

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"

_JPEG_STANDALONE = {0x01, *range(0xD0, 0xD9)}
_JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def decode_png(content: bytes) -> Radiograph:
    """Decode a PNG of 1 to 16 bits: gray, palette or RGB, with or without alpha.

    Colour becomes luminance; alpha is ignored. Up to 8 bits the display range is 0..255; a 16-bit image carries no
    window, so its display range is its own minimum and maximum.

    Raises
    ------
    UnreadableImageError
        If the file is truncated or corrupt.
    UnsupportedImageError
        If it is too large or blank.
    """
    if content[12:16] != b"IHDR" or len(content) < 33:
        raise UnreadableImageError("PNG: expected an IHDR chunk after the signature, found none")
    width, height, bits = struct.unpack(">IIB", content[16:25])
    return _decode(content, "png", width, height, bits)


def decode_jpeg(content: bytes) -> Radiograph:
    """Decode an 8-bit baseline or progressive JPEG, gray or YCbCr, turned upright as its EXIF orientation says.

    Raises
    ------
    UnreadableImageError
        If the file is truncated or corrupt.
    UnsupportedImageError
        If it is CMYK, not of 8 bits, too large or blank.
    """
    bits, height, width, components = jpeg_frame(content)
    if bits != 8 or components not in (1, 3):
        raise UnsupportedImageError(
            f"JPEG: expected 8 bits and 1 or 3 components, found {bits} bits and {components} components"
        )
    return _decode(content, "jpeg", width, height, bits)


def jpeg_frame(content: bytes) -> tuple[int, int, int, int]:
    """``(bits, height, width, components)`` from a JPEG's frame header (ITU-T T.81, B.2.2).

    Raises
    ------
    UnreadableImageError
        If there is none.
    """
    position = 2
    while position + 10 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in _JPEG_STANDALONE:
            position += 2
        elif marker in _JPEG_FRAMES:
            bits, height, width, components = struct.unpack_from(">BHHB", content, position + 4)
            return bits, height, width, components
        else:
            position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    raise UnreadableImageError("JPEG: expected a frame header, found none")


def _decode(content: bytes, source_format: Literal["png", "jpeg"], width: int, height: int, bits: int) -> Radiograph:
    name = source_format.upper()
    if not 0 < width * height <= MAX_PIXELS:
        raise UnsupportedImageError(f"{name}: expected 1 to {MAX_PIXELS} pixels, found {width} x {height}")
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise UnreadableImageError(f"{name}: the pixel data cannot be decoded") from error
    if pixels is None:
        raise UnreadableImageError(f"{name}: the pixel data is truncated or corrupt")
    low, high = float(pixels.min()), float(pixels.max())
    if low == high:
        raise UnsupportedImageError(f"{name}: expected an image, found {width} x {height} pixels of one value")
    display_range = (0.0, 255.0) if pixels.dtype == np.uint8 else (low, high)
    return Radiograph(pixels, display_range, RadiographMetadata(source_format, bits_stored=min(bits, 16)))
