"""Files to radiographs, recognised by content and never by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crosseai.contract import InputError, UnreadableImageError, UnsupportedImageError
from crosseai.imaging.dicom import decode_dicom
from crosseai.imaging.headers import JPEG_SIGNATURE, PNG_SIGNATURE
from crosseai.imaging.policy import DEFAULT_POLICY, ReadPolicy
from crosseai.imaging.radiograph import Radiograph
from crosseai.imaging.raster import decode_jpeg, decode_png


def read_radiograph(path: str | Path, policy: ReadPolicy = DEFAULT_POLICY) -> Radiograph:
    """Read a chest radiograph from a DICOM, PNG or JPEG file.

    Parameters
    ----------
    path
        The file; its extension does not matter.
    policy
        What is accepted and how it is shown.

    Raises
    ------
    UnreadableImageError
        If the file cannot be read, is of no known format, truncated or corrupt.
    UnsupportedImageError
        If it is not one grayscale chest radiograph of a size that can be scored.
    """
    with naming(path):
        return decode_radiograph(read_content(Path(path), policy), policy)


def read_content(path: Path, policy: ReadPolicy = DEFAULT_POLICY) -> bytes:
    """All bytes of a file; no regular file, or too large a one, is refused before a byte of it is read.

    Raises
    ------
    UnreadableImageError, UnsupportedImageError
        As :func:`read_radiograph`, but without the name of the file.
    """
    try:
        if not path.is_file():
            raise UnreadableImageError(f"expected a regular file, found {'another kind' if path.exists() else 'none'}")
        size = path.stat().st_size
        if size > policy.max_file_bytes:
            raise UnsupportedImageError(f"expected at most {policy.max_file_bytes} bytes, found {size}")
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"cannot be read: {error.strerror}") from error


def decode_radiograph(content: bytes, policy: ReadPolicy = DEFAULT_POLICY) -> Radiograph:
    """Decode a chest radiograph from the content of a DICOM, PNG or JPEG file.

    A JPEG or PNG is turned as its EXIF orientation says: size, pixels and boxes are those of the image as displayed.

    Raises
    ------
    UnreadableImageError, UnsupportedImageError
        As :func:`read_radiograph`.
    """
    if content[128:132] == b"DICM":
        return decode_dicom(content, policy)
    if content.startswith(PNG_SIGNATURE):
        return decode_png(content, policy)
    if content.startswith(JPEG_SIGNATURE):
        return decode_jpeg(content, policy)
    raise UnreadableImageError("expected PNG, JPEG, or DICOM with its DICM prefix (PS3.10 section 7.1); found neither")


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Begin the message of an :class:`InputError` with the file that it is about."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{path}: {error}") from error
