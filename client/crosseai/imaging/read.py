"""Files to radiographs, recognised by content and never by name."""

from pathlib import Path

from crosseai.contract import InputError, UnreadableImageError, UnsupportedImageError
from crosseai.imaging.dicom import decode_dicom
from crosseai.imaging.headers import JPEG_SIGNATURE, PNG_SIGNATURE
from crosseai.imaging.radiograph import Radiograph
from crosseai.imaging.raster import decode_jpeg, decode_png

MAX_FILE_BYTES = 256 * 2**20
"""Greatest file read: twice what the largest accepted image needs uncompressed at 16 bits."""


def read_radiograph(path: str | Path) -> Radiograph:
    """Read a chest radiograph from a DICOM, PNG or JPEG file.

    Parameters
    ----------
    path
        The file; its extension does not matter.

    Raises
    ------
    UnreadableImageError
        If the file cannot be read, is of no known format, truncated or corrupt.
    UnsupportedImageError
        If it is not one grayscale chest radiograph of a size that can be scored.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise UnreadableImageError("expected a regular file")
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise UnsupportedImageError(f"expected at most {MAX_FILE_BYTES} bytes, found {size}")
        return decode_radiograph(path.read_bytes())
    except OSError as error:
        raise UnreadableImageError(f"{path}: {error.strerror}") from error
    except InputError as error:
        raise type(error)(f"{path}: {error}") from error


def decode_radiograph(content: bytes) -> Radiograph:
    """Decode a chest radiograph from the content of a DICOM, PNG or JPEG file.

    Raises
    ------
    UnreadableImageError, UnsupportedImageError
        As :func:`read_radiograph`.
    """
    if content[128:132] == b"DICM":
        return decode_dicom(content)
    if content.startswith(PNG_SIGNATURE):
        return decode_png(content)
    if content.startswith(JPEG_SIGNATURE):
        return decode_jpeg(content)
    raise UnreadableImageError("expected PNG, JPEG, or DICOM with its DICM prefix (PS3.10 section 7.1); found neither")
