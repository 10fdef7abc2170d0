"""PNG and JPEG of every kind."""

import io
import resource
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from crosseai.contract import ModelSpec, UnreadableImageError, UnsupportedImageError
from crosseai.imaging import ReadPolicy, box_to_image_px, decode_radiograph, preprocess, to_display

RAMP = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60)
GRAY = (RAMP % 256).astype(np.uint8)
RGB = np.repeat(GRAY[:, :, np.newaxis], 3, axis=2)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(pixels: npt.NDArray[Any]) -> bytes:
    written, content = cv2.imencode(".png", pixels)
    assert written
    return content.tobytes()


def png_header_only(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


@pytest.mark.parametrize(
    "content",
    [
        png(GRAY),
        png(RGB),
        saved(Image.fromarray(np.dstack([RGB, np.full_like(GRAY, 255)])), "PNG"),
        saved(Image.fromarray(np.dstack([GRAY, np.full_like(GRAY, 255)])), "PNG"),
        saved(Image.fromarray(GRAY).convert("P"), "PNG"),
    ],
    ids=["gray", "RGB", "RGBA", "gray and alpha", "palette"],
)
def test_eight_bit_png_of_every_colour_type(content: bytes) -> None:
    radiograph = decode_radiograph(content)
    np.testing.assert_array_equal(radiograph.pixels, GRAY)
    assert radiograph.pixels.dtype == np.uint8
    assert radiograph.display_range == (0, 255)
    assert radiograph.metadata.source_format == "png"


def test_sixteen_bit_png_keeps_its_depth_and_shows_its_own_range() -> None:
    radiograph = decode_radiograph(png(RAMP + 1000))
    np.testing.assert_array_equal(radiograph.pixels, RAMP + 1000)
    assert radiograph.display_range == (1000, 1000 + RAMP.max())
    assert radiograph.metadata.bits_stored == 16
    shown = to_display(radiograph)
    assert (shown.min(), shown.max()) == (0, 255)


def test_one_bit_png() -> None:
    radiograph = decode_radiograph(saved(Image.fromarray(GRAY > 100), "PNG"))
    np.testing.assert_array_equal(radiograph.pixels, np.where(GRAY > 100, 255, 0))
    assert radiograph.metadata.bits_stored == 1


@pytest.mark.parametrize("colour", [False, True])
def test_jpeg_gray_and_colour(colour: bool) -> None:
    smooth = cv2.GaussianBlur(GRAY, (0, 0), 5)
    radiograph = decode_radiograph(saved(Image.fromarray(np.dstack([smooth] * 3) if colour else smooth), "JPEG"))
    np.testing.assert_allclose(radiograph.pixels.astype(int), smooth, atol=6)
    assert radiograph.metadata.source_format == "jpeg"


TURNED = {
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(np.transpose(pixels), 2),
    8: np.rot90,
}
"""Image as displayed, by EXIF orientation (CIPA DC-008, section 4.6.5)."""


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_turns_an_image_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    radiograph = decode_radiograph(saved(Image.fromarray(GRAY), kind, quality=100, exif=exif))
    np.testing.assert_allclose(radiograph.pixels.astype(int), TURNED[orientation](GRAY), atol=3)


@pytest.mark.parametrize("orientation", TURNED)
def test_boxes_are_in_pixels_of_the_image_as_displayed(orientation: int) -> None:
    pixels = np.zeros((400, 600), np.uint8)
    pixels[40:120, 300:450] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    radiograph = decode_radiograph(saved(Image.fromarray(pixels), "PNG", exif=exif))
    rows, columns = np.nonzero(preprocess(radiograph, ModelSpec(input_size=200))[0] > 127)
    box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    rows, columns = np.nonzero(TURNED[orientation](pixels))
    expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    np.testing.assert_allclose(box_to_image_px(box, 200, radiograph.height, radiograph.width), expected, atol=3)


def test_cmyk_jpeg_is_refused() -> None:
    with pytest.raises(UnsupportedImageError, match="4 components"):
        decode_radiograph(saved(Image.fromarray(RGB).convert("CMYK"), "JPEG"))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("content", [png(RAMP), saved(Image.fromarray(GRAY), "JPEG")], ids=["png", "jpeg"])
def test_a_truncated_file_is_never_half_an_image(
    content: bytes, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UnreadableImageError):
        decode_radiograph(content[: int(share * len(content))])
    assert capfd.readouterr() == ("", ""), "an error names its file, a decoder does not"


SMOOTH = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8), (0, 0), 3)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [30, 75, 100])
@pytest.mark.parametrize("pixels", [SMOOTH[:, :, 0], SMOOTH], ids=["gray", "colour"])
def test_jpeg_has_the_pixels_of_opencv(
    pixels: npt.NDArray[np.uint8], quality: int, subsampling: int, progressive: bool
) -> None:
    content = saved(Image.fromarray(pixels), "JPEG", quality=quality, subsampling=subsampling, progressive=progressive)
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(decode_radiograph(content).pixels, expected)


@pytest.mark.parametrize("exif", [False, True])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_cut_jpeg_that_has_an_end_is_unreadable(share: float, progressive: bool, exif: bool) -> None:
    orientation = Image.Exif()
    orientation[0x0112] = 6
    options = {"exif": orientation} if exif else {}
    content = saved(Image.fromarray(SMOOTH), "JPEG", progressive=progressive, **options)
    with pytest.raises(UnreadableImageError, match="truncated or corrupt"):
        decode_radiograph(content[: int(share * len(content))] + b"\xff\xd9")


def test_a_corrupt_png_is_unreadable(capfd: pytest.CaptureFixture[str]) -> None:
    content = bytearray(png(RAMP))
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(UnreadableImageError, match="truncated or corrupt"):
        decode_radiograph(bytes(content))
    assert capfd.readouterr() == ("", "")


def test_a_bomb_is_refused_by_its_header() -> None:
    with pytest.raises(UnsupportedImageError, match="found 60000 x 60000"):
        decode_radiograph(png_header_only(60000, 60000))


def test_a_bomb_is_not_decompressed() -> None:
    """The whole file is valid: 400 million pixels in 400 kB."""
    side = 20_000
    compress = zlib.compressobj()
    content = b"".join(compress.compress(bytes(1 + side)) for _ in range(side)) + compress.flush()
    chunk = struct.pack(">I", len(content)) + b"IDAT" + content + struct.pack(">I", zlib.crc32(b"IDAT" + content))
    bomb = png_header_only(side, side) + chunk + bytes(4) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnsupportedImageError, match="expected 1 to 67108864 pixels, found 20000 x 20000"):
        decode_radiograph(bomb)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


@pytest.mark.parametrize("content", [png(GRAY), saved(Image.fromarray(GRAY), "JPEG")], ids=["png", "jpeg"])
def test_the_limit_on_pixels_is_the_callers(content: bytes) -> None:
    assert decode_radiograph(content, ReadPolicy(max_pixels=GRAY.size)).pixels.size == GRAY.size
    with pytest.raises(UnsupportedImageError, match="expected 1 to 2399 pixels, found 60 x 40"):
        decode_radiograph(content, ReadPolicy(max_pixels=GRAY.size - 1))


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bit_colour_png_keeps_its_depth(channels: int) -> None:
    radiograph = decode_radiograph(png(np.dstack([RAMP + 1000] * 3 + [np.full_like(RAMP, 65535)])[:, :, :channels]))
    np.testing.assert_allclose(radiograph.pixels.astype(int), RAMP + 1000, atol=1)
    assert radiograph.pixels.dtype == np.uint16


def test_a_blank_image_is_refused() -> None:
    with pytest.raises(UnsupportedImageError, match="pixels of one value"):
        decode_radiograph(png(np.full((20, 30), 17, np.uint8)))
