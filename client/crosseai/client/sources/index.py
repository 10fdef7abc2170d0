"""Manifests: the files of an archive, listed and hashed once, so that no run needs to list it again."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from os import fsdecode, fsencode
from pathlib import Path
from shutil import rmtree
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from crosseai.client.records.files import atomic_path
from crosseai.client.records.folder import locked
from crosseai.client.sources.discovery import image_id, printable
from crosseai.client.sources.source import EXACT_PATH, MANIFEST_SUFFIX, ROOT
from crosseai.client.sources.storage import Listed, is_url, list_files, open_file
from crosseai.contract import InputError, UnreadableImageError
from crosseai.imaging import DEFAULT_POLICY

THREADS = max(32, 2 * (os.cpu_count() or 1))
"""Files hashed at a time: storage across a network answers many requests at once, each of them late."""

PART_ROWS = 2048
"""Rows between two points from which an interrupted index goes on."""

PARTS_A_ROW_GROUP = 16

_COLUMNS = [
    ("path", pa.string()),
    ("image_id", pa.string()),
    ("bytes", pa.int64()),
    ("modified_ns", pa.int64()),
    (EXACT_PATH, pa.binary()),
]


@dataclass(frozen=True, slots=True)
class IndexSummary:
    """What a manifest holds, and what it took to make it.

    Parameters
    ----------
    manifest
        The file.
    files
        Its rows.
    unreadable
        Rows without an ``image_id``: files that could not be read, and will fail in a run.
    hashed
        Files that were read; the others are as they were when they were indexed before.
    """

    manifest: Path
    files: int
    unreadable: int
    hashed: int


def write_index(
    directory: str | Path, manifest: str | Path, *, progress: Callable[[int], None] = lambda _: None
) -> IndexSummary:
    r"""Write a manifest of every file below a directory: one row a file, in the order of their listing.

    Columns are ``path``, relative to the directory; ``image_id``, the hash of the content, null where it could not be
    read; ``bytes``; ``modified_ns``, nanoseconds since 1970; and ``path_bytes``, null but for a path that is not UTF-8:
    its bytes, while ``path`` has those that are no UTF-8 as ``\xNN``. An interrupted call leaves parts beside the
    manifest, from which the next one goes on. Where a manifest of this directory exists, only files whose size or
    time changed are read again. Memory does not grow with the number of files.

    Parameters
    ----------
    directory
        Local directory or URL, as :func:`crosseai.client.sources.storage.open_filesystem` opens it.
    manifest
        The file to write, ``*.parquet``.
    progress
        Told the number of files indexed, now and then.

    Raises
    ------
    InputError
        If the directory cannot be listed, or ``manifest`` is another file already.
    OutputError
        If the manifest cannot be written.
    """
    root = str(directory) if is_url(str(directory)) else str(Path(directory).resolve())
    output = Path(manifest)
    if output.suffix != MANIFEST_SUFFIX:
        raise InputError(f"{output}: expected a name that ends in {MANIFEST_SUFFIX}")
    schema = pa.schema(_COLUMNS, metadata={ROOT: fsencode(root)})
    if output.exists() and not _is_ours(output, schema):
        raise InputError(f"{output}: expected nothing, or a manifest of {root}: choose another name")
    parts = output.with_name(f".{output.name}.parts")
    with locked(parts):
        summary = _write_parts(root, output, parts, schema, progress)
        _join(parts, summary.files, output, schema)
        rmtree(parts)
    return summary


def _write_parts(
    root: str, output: Path, parts: Path, schema: pa.Schema, progress: Callable[[int], None]
) -> IndexSummary:
    """Write all rows to numbered parts, taking the place of those of an interrupted call one by one."""
    listed = (file for file in list_files(root, output) if file.location != str(output.resolve()))
    known = _Known(output, parts, schema)
    files = unreadable = hashed = number = 0
    with ThreadPoolExecutor(THREADS, thread_name_prefix="crosseai-index") as executor:
        while part := list(islice(listed, PART_ROWS)):
            ids = [known.image_id(file) for file in part]
            changed = [i for i, known_id in enumerate(ids) if known_id is None]
            for i, found in zip(changed, executor.map(_hash, [part[i] for i in changed]), strict=True):
                ids[i] = found
            paths = [printable(file.name) for file in part]
            exact = [None if path == f.name else fsencode(f.name) for path, f in zip(paths, part, strict=True)]
            columns = [paths, ids, [f.bytes for f in part], [f.modified_ns for f in part], exact]
            with atomic_path(_part(parts, number)) as partial:
                pq.write_table(pa.table(columns, schema=schema), partial)
            files, number = files + len(part), number + 1
            unreadable, hashed = unreadable + ids.count(None), hashed + len(changed)
            progress(files)
    return IndexSummary(output, files, unreadable, hashed)


def _join(parts: Path, rows: int, output: Path, schema: pa.Schema) -> None:
    """Write the manifest, a few parts in memory at a time."""
    numbers = range(-(-rows // PART_ROWS))
    with atomic_path(output) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for start in numbers[::PARTS_A_ROW_GROUP]:
            few = [_part(parts, number) for number in numbers[start : start + PARTS_A_ROW_GROUP]]
            writer.write_table(pa.concat_tables(pq.read_table(part) for part in few))


class _Known:
    """Hashes of files that did not change, from an earlier manifest and the parts of an interrupted call.

    Their rows are in the order of listings, and are read in step with the files that are asked for.
    """

    def __init__(self, output: Path, parts: Path, schema: pa.Schema) -> None:
        earlier = (
            _rows(pq.ParquetFile(output, pre_buffer=False).iter_batches(PART_ROWS)) if output.exists() else iter(())
        )
        tables = (pq.read_table(part) for part in sorted(parts.glob("*.parquet")) if _is_ours(part, schema))
        interrupted = _rows(batch for table in tables for batch in table.to_batches())
        self._rows = merge(earlier, interrupted, key=lambda row: _place(row[0]))
        self._row = next(self._rows, None)

    def image_id(self, file: Listed) -> str | None:
        """The hash of a file, if size and time are what they were."""
        while self._row is not None and _place(self._row[0]) <= _place(file.name):
            name, known, *state = self._row
            if name == file.name and known is not None and state == [file.bytes, file.modified_ns]:
                return known
            self._row = next(self._rows, None)
        return None


_Row: TypeAlias = tuple[str, str | None, int | None, int | None]


def _rows(batches: Iterable[pa.RecordBatch]) -> Iterator[_Row]:
    for batch in batches:
        for path, *state, exact in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield path if exact is None else fsdecode(exact), *state


def _place(name: str) -> list[tuple[bool, str]]:
    """Sorts names as listings do: the files of a folder, then its subfolders."""
    *folders, file = name.split("/")
    return [*((True, folder) for folder in folders), (False, file)]


def _hash(file: Listed) -> str | None:
    """The ``image_id`` of a file; None where it cannot be read, or is so large that no run will."""
    if file.bytes is None or file.bytes > DEFAULT_POLICY.max_file_bytes:
        return None
    try:
        with open_file(file.location) as stream:
            return image_id(stream)
    except UnreadableImageError:
        return None


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number:06d}.parquet"


def _is_ours(path: Path, schema: pa.Schema) -> bool:
    """Whether a file is a manifest, or a part of one, of the same directory."""
    try:
        return bool(pq.read_schema(path).equals(schema, check_metadata=True))
    except (OSError, pa.ArrowException):
        return False
