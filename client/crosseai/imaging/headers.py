"""Size and depth of an encoded image, and whether it is whole, before anything is decoded."""

import struct
import zlib
from typing import NamedTuple

from crosseai.contract import UnreadableImageError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"

_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}  # TEM, RST, SOI
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF0..SOF15 and JPEG-LS, without DHT, JPG, DAC


class ImageHeader(NamedTuple):
    """Bits a sample, rows, columns and samples a pixel, as the encoded image states them."""

    bits: int
    height: int
    width: int
    components: int


def png_header(content: bytes) -> ImageHeader:
    """Header of a PNG (PNG specification, section 11.2.1).

    Raises
    ------
    UnreadableImageError
        If there is none.
    """
    if content[12:16] != b"IHDR" or len(content) < 26:
        raise UnreadableImageError("PNG: expected an IHDR chunk after the signature, found none")
    width, height, bits, colour = struct.unpack_from(">IIBB", content, 16)
    return ImageHeader(bits, height, width, {2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1))


def require_whole_png(content: bytes) -> None:
    """Check that all chunks are there, up to IEND, with the right checksums (PNG specification, section 5).

    Raises
    ------
    UnreadableImageError
        If the file is truncated or corrupt.
    """
    chunks, position, kind = memoryview(content), len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        end = position + 12 + int.from_bytes(chunks[position : position + 4], "big")
        kind = bytes(chunks[position + 4 : position + 8])
        if zlib.crc32(chunks[position + 4 : end - 4]).to_bytes(4, "big") != chunks[end - 4 : end]:
            raise UnreadableImageError("PNG: the pixel data is truncated or corrupt")
        position = end


def jpeg_header(content: bytes) -> ImageHeader:
    """Header of the first frame of a JPEG, lossless JPEG or JPEG-LS (ITU-T T.81, B.2.2).

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
        elif marker in _WITHOUT_LENGTH:
            position += 2
        elif marker in _FRAME_MARKERS:
            return ImageHeader(*struct.unpack_from(">BHHB", content, position + 4))
        else:
            position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    raise UnreadableImageError("JPEG: expected a frame header, found none")


def jpeg2000_header(content: bytes) -> ImageHeader:
    """Header of a JPEG 2000 codestream (ITU-T T.800, A.5.1).

    Raises
    ------
    UnreadableImageError
        If there is none.
    """
    if content[:4] != b"\xff\x4f\xff\x51" or len(content) < 43:
        raise UnreadableImageError("JPEG 2000: expected SOC and SIZ markers, found none")
    right, bottom, left, top = struct.unpack_from(">IIII", content, 8)
    components, depth = struct.unpack_from(">HB", content, 40)
    return ImageHeader((depth & 0x7F) + 1, bottom - top, right - left, components)
