"""What is to be scored: the files of a directory, or the rows of a manifest."""

from collections.abc import Iterator
from dataclasses import dataclass
from os import fsdecode
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from crosseai.client.sources.discovery import discover, name_of
from crosseai.client.sources.storage import ImageFile, is_url, locate
from crosseai.contract import InputError

MANIFEST_SUFFIX = ".parquet"

ROOT = "root"
"""Key of a manifest's metadata: the folder that its paths are relative to."""

EXACT_PATH = "path_bytes"
"""Column of a manifest: the bytes of a path that is not UTF-8, as storage has it; null for any other."""

BATCH = 8192
"""Rows of a manifest in memory at a time."""


class Source(Protocol):
    """Files to be scored; may be iterated several times."""

    @property
    def root(self) -> str:
        """What names of files are relative to."""

    def __iter__(self) -> Iterator[ImageFile]: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Directory:
    """The files below a directory, as :func:`crosseai.client.sources.discovery.discover` finds them."""

    directory: Path
    output: Path

    @property
    def root(self) -> str:
        """The directory."""
        return str(self.directory.resolve())

    def __iter__(self) -> Iterator[ImageFile]:
        for path in discover(self.directory, self.output):
            yield ImageFile(name_of(path, self.directory), str(path))

    def __len__(self) -> int:
        return sum(1 for _ in discover(self.directory, self.output))


@dataclass(frozen=True, slots=True)
class Manifest:
    """The rows of a Parquet file: a column ``path``, ``image_id`` where files were hashed, ``path_bytes`` where needed.

    Results name a file by ``path``; where ``path_bytes`` is not null, the file itself has that name. Paths are relative
    to the folder that the file's metadata names (``root``), else to the file's own folder; one that is absolute or a
    URL is itself. Rows are read a few thousand at a time.

    Raises
    ------
    InputError
        When it is opened: if it is no such file.
    """

    path: Path

    def __post_init__(self) -> None:
        columns = self._open().schema_arrow
        if "path" not in columns.names or not pa.types.is_string(columns.field("path").type):
            raise InputError(f"{self.path}: expected a column 'path' of strings, found {', '.join(columns.names)}")

    @property
    def root(self) -> str:
        """What paths are relative to."""
        root = (self._open().schema_arrow.metadata or {}).get(ROOT.encode())
        return str(self.path.resolve().parent) if root is None else fsdecode(root)

    def __iter__(self) -> Iterator[ImageFile]:
        root, file = self.root, self._open()
        columns = [name for name in ("path", "image_id", EXACT_PATH) if name in file.schema_arrow.names]
        for batch in file.iter_batches(BATCH, columns=columns):
            found = batch.to_pydict()
            absent = [None] * len(batch)
            for path, image_id, exact in zip(
                found["path"], found.get("image_id", absent), found.get(EXACT_PATH, absent), strict=True
            ):
                if path is None:
                    raise InputError(f"{self.path}: expected a path in every row, found none")
                yield ImageFile(path, locate(root, path if exact is None else fsdecode(exact)), image_id)

    def __len__(self) -> int:
        return int(self._open().metadata.num_rows)

    def _open(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self.path, pre_buffer=False)  # else all of it is read ahead
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{self.path}: expected a Parquet file: {error}") from error


def open_source(location: str | Path, output: Path) -> Source:
    """The files of a directory, or the rows of a manifest: a file whose name ends in ``.parquet``.

    Raises
    ------
    InputError
        If it is neither.
    """
    if is_url(str(location)):
        raise InputError(f"{location}: expected a directory or a manifest; crosseai-client index makes one of a URL")
    path = Path(location)
    return Manifest(path) if path.suffix == MANIFEST_SUFFIX and not path.is_dir() else Directory(path, output)
