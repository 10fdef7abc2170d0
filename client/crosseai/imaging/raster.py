"""PNG and JPEG to radiograph."""

from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from crosseai.contract import UnreadableImageError, UnsupportedImageError
from crosseai.imaging.headers import ImageHeader, jpeg_header, png_header, require_whole_png
from crosseai.imaging.policy import DEFAULT_POLICY, ReadPolicy
from crosseai.imaging.radiograph import Radiograph, RadiographMetadata


def decode_png(content: bytes, policy: ReadPolicy = DEFAULT_POLICY) -> Radiograph:
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
    return _decode(content, "png", png_header(content), policy)


def decode_jpeg(content: bytes, policy: ReadPolicy = DEFAULT_POLICY) -> Radiograph:
    """Decode an 8-bit baseline or progressive JPEG, gray or YCbCr, turned upright as its EXIF orientation says.

    Raises
    ------
    UnreadableImageError
        If the file is truncated or its decoder warns of damage.
    UnsupportedImageError
        If it is CMYK, not of 8 bits, too large or blank.
    """
    header = jpeg_header(content)
    if header.bits != 8 or header.components not in (1, 3):
        raise UnsupportedImageError(
            f"JPEG: expected 8 bits and 1 or 3 components, found {header.bits} bits and {header.components} components"
        )
    return _decode(content, "jpeg", header, policy)


def _decode(
    content: bytes, source_format: Literal["png", "jpeg"], header: ImageHeader, policy: ReadPolicy
) -> Radiograph:
    name, size = source_format.upper(), f"{header.width} x {header.height}"
    if not 0 < header.width * header.height <= policy.max_pixels:
        raise UnsupportedImageError(f"{name}: expected 1 to {policy.max_pixels} pixels, found {size}")
    try:
        pixels = _DECODERS[source_format](content)
    except (cv2.error, ValueError) as error:
        raise UnreadableImageError(f"{name}: the pixel data is truncated or corrupt") from error
    darkest, brightest = float(pixels.min()), float(pixels.max())
    if darkest == brightest:
        raise UnsupportedImageError(f"{name}: expected an image, found {size} pixels of one value")
    display_range = (0.0, 255.0) if pixels.dtype == np.uint8 else (darkest, brightest)
    return Radiograph(pixels, display_range, RadiographMetadata(source_format, header.bits))


def _png_pixels(content: bytes) -> npt.NDArray[Any]:
    """PNG to gray; OpenCV would write to standard error what it finds damaged."""
    require_whole_png(content)
    return _upright(content)


def _jpeg_pixels(content: bytes) -> npt.NDArray[Any]:
    """JPEG to gray; ValueError where libjpeg only warns, which OpenCV ignores, and fills missing rows with gray."""
    pixels: npt.NDArray[Any] = simplejpeg.decode_jpeg(content, "GRAY")[:, :, 0]
    return _upright(content) if b"Exif\0\0" in content else pixels  # the same pixels, turned


def _upright(content: bytes) -> npt.NDArray[Any]:
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    if pixels is None:
        raise ValueError("OpenCV gives no reason")
    return pixels


_DECODERS = {"png": _png_pixels, "jpeg": _jpeg_pixels}
