"""Which files of a directory are to be scored."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from crosseai.contract import InputError, UnreadableImageError


def discover(directory: Path) -> Iterator[Path]:
    """Every regular file below a directory, sorted within each folder; hidden files and folders are left out.

    Radiographs are told from other files by content, not by name: what is no radiograph becomes an entry of
    ``errors.jsonl``, so that nothing goes missing without a word. Links to folders are not followed.

    Raises
    ------
    InputError
        If the directory does not exist or cannot be listed.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: expected a directory of radiographs, found {_kind(directory)}")

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be listed: {error.strerror}") from error

    for folder, subfolders, names in os.walk(directory, onerror=refuse):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and path.is_file():
                yield path


def image_id(path: Path) -> str:
    """Name of a file's content: the first 128 bits of its SHA-256, in hexadecimal.

    A file that is moved or renamed keeps its id, and the id says nothing about the patient.

    Raises
    ------
    UnreadableImageError
        If the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except OSError as error:
        raise UnreadableImageError(f"{path}: cannot be read: {error.strerror}") from error


def _kind(path: Path) -> str:
    return "a file" if path.exists() else "nothing"
