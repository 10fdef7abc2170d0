"""Writing files that are whole or absent."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crosseai.contract import OutputError

PARTIAL = ".partial"
"""Ending of files that a killed writer may leave behind."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is synced and takes the place of ``path``.

    Raises
    ------
    OutputError
        If it cannot be written; what stood at ``path`` is untouched.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")  # two writers never share one
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        try:
            partial.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{partial}: cannot be removed: {error.strerror}") from error
