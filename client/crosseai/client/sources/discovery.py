"""Which files of a directory are to be scored."""

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

from crosseai.contract import InputError

JOURNAL = ".journal"
"""Folder in a folder of results."""

_IMAGE_SUFFIXES = {".dcm", ".dicom", ".jpeg", ".jpg", ".png"}


def discover(directory: Path, output: Path) -> Iterator[Path]:
    """Every file below a directory, sorted within each folder; hidden files and folders are left out.

    Radiographs are told from other files by content, not by name: what is no radiograph becomes an entry of
    ``errors.jsonl``, and so do dangling links and folders that cannot be listed, so that nothing goes missing without
    a word. Links to folders are not followed, and devices and pipes are left out.

    Parameters
    ----------
    directory
        Where to search.
    output
        Folder of results, left out where it lies inside ``directory``, as those of other runs are.

    Raises
    ------
    InputError
        If the directory does not exist or cannot be listed, or is the output folder.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: expected a directory of radiographs, found {_kind(directory)}")

    results = output.resolve()
    if directory.resolve() == results:
        raise InputError(f"{directory}: expected an output folder other than the directory of radiographs")
    unlistable: list[Path] = []

    def remember(error: OSError) -> None:
        if Path(error.filename) == directory:
            raise InputError(f"{directory}: cannot be listed: {error.strerror}") from error
        unlistable.append(Path(error.filename))

    for folder, subfolders, names in os.walk(directory, onerror=remember):
        visible = (name for name in subfolders if not name.startswith("."))
        subfolders[:] = sorted(name for name in visible if not _holds_results(Path(folder, name), results))
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and _is_file_or_gone(path):
                yield path
    yield from unlistable


def name_of(path: Path, directory: Path) -> str:
    """How results name a file: relative to the scored directory, as :func:`printable` gives it."""
    return printable(str(path.relative_to(directory)))


def printable(name: str) -> str:
    r"""A name as UTF-8 can hold it: every byte of it that is none is written as ``\xNN``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def image_name(path: str | Path) -> str:
    """File name without folder and without the suffix of an image format, as listings of images are matched."""
    name = Path(path).name
    suffix = Path(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in _IMAGE_SUFFIXES else name


def image_id(content: bytes | io.BufferedReader) -> str:
    """Name of a file's content: the first 128 bits of its SHA-256, in hexadecimal.

    A file that is moved or renamed keeps its id, and the id says nothing about the patient.
    """
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _holds_results(folder: Path, output: Path) -> bool:
    return folder.resolve() == output or (folder / JOURNAL).is_dir()


def _is_file_or_gone(path: Path) -> bool:
    """A file that vanished since it was listed, or that cannot be told, is not passed over in silence."""
    try:
        return path.is_file() or not path.exists()
    except OSError:
        return True


def _kind(path: Path) -> str:
    return "a file" if path.exists() else "nothing"
