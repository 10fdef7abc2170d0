"""Image headers against files written by other libraries."""

import cv2
import numpy as np
import pytest
from openjpeg import encode

from crosseai.contract import UnreadableImageError
from crosseai.imaging.headers import ImageHeader, jpeg2000_header, jpeg_header, png_header

PIXELS = np.arange(20 * 31, dtype=np.uint8).reshape(20, 31)
COLOUR = np.dstack([PIXELS] * 3)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (PIXELS, ImageHeader(8, 20, 31, 1)),
        (PIXELS.astype(np.uint16), ImageHeader(16, 20, 31, 1)),
        (COLOUR, ImageHeader(8, 20, 31, 3)),
        (np.dstack([COLOUR, PIXELS]), ImageHeader(8, 20, 31, 4)),
    ],
)
def test_png(pixels: np.ndarray, expected: ImageHeader) -> None:
    assert png_header(cv2.imencode(".png", pixels)[1].tobytes()) == expected


@pytest.mark.parametrize("options", [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]])
def test_jpeg(options: list[int]) -> None:
    content = cv2.imencode(".jpg", COLOUR, options)[1].tobytes()
    assert jpeg_header(content) == ImageHeader(8, 20, 31, 3)
    assert jpeg_header(content[:2] + b"\xff\xff" + content[3:]) == ImageHeader(8, 20, 31, 3), "fill bytes"


def test_jpeg_2000() -> None:
    pixels = np.tile(PIXELS.astype(np.uint16) * 16, (4, 3))
    content = encode(pixels, bits_stored=12, photometric_interpretation=2)
    assert jpeg2000_header(content) == ImageHeader(12, 80, 93, 1)


@pytest.mark.parametrize("read", [png_header, jpeg_header, jpeg2000_header])
@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\x00\x00\x00\x00", bytes(100)])
def test_no_header(read, content: bytes) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UnreadableImageError, match="found none"):
        read(content)
