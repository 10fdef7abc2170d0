"""The files that a run on many machines still has to score, as a table that each of them reads its part of."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from os import fsdecode, fsencode
from pathlib import Path
from shutil import rmtree
from socket import gethostname

import pyarrow as pa
import pyarrow.parquet as pq

from crosseai.client.records.files import atomic_path
from crosseai.client.sources.storage import ImageFile
from crosseai.contract import OutputError

PLAN = "plan.parquet"

SHARDS = 4096
"""Shards of a plan at most: enough for many workers, few enough for one driver to oversee."""

_SCHEMA = pa.schema([("name", pa.string()), ("location", pa.binary()), ("image_id", pa.string())])


def shard_rows(files: int, group: int) -> int:
    """Files in a shard: one group of the pipeline, or several where there are many files."""
    return group * max(1, -(-files // (group * SHARDS)))


def write_plan(files: Iterator[ImageFile], path: Path, rows: int) -> int:
    """Write the files to a table, each row group of which is a shard; one shard in memory at a time.

    Parameters
    ----------
    files
        What is to be scored.
    path
        The table.
    rows
        Files in a shard.

    Returns
    -------
    int
        Number of shards.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    shards = 0
    rmtree(_attempts(path), ignore_errors=True)
    with atomic_path(path) as partial, pq.ParquetWriter(partial, _SCHEMA, compression="zstd") as writer:
        while shard := list(islice(files, rows)):
            columns = [[f.name for f in shard], [fsencode(f.location) for f in shard], [f.image_id for f in shard]]
            writer.write_table(pa.Table.from_arrays([*map(pa.array, columns)], schema=_SCHEMA), row_group_size=rows)
            shards += 1
    return shards


@contextmanager
def attempt(plan: Path, number: int) -> Iterator[int]:
    """Score a shard in this context; yields how many earlier attempts ended with the process that made them."""
    note = _attempts(plan) / str(number)
    try:
        note.parent.mkdir(exist_ok=True)
        with note.open("ab") as file:
            earlier = file.tell()
            file.write(b".")
    except OSError as error:
        raise OutputError(f"{note}: cannot be written: {error.strerror}") from error
    try:
        yield earlier
    finally:
        note.unlink(missing_ok=True)


def read_shard(plan: Path, number: int) -> list[ImageFile]:
    """The files of one shard.

    Raises
    ------
    OutputError
        If the plan cannot be read here.
    """
    try:
        with pq.ParquetFile(plan) as file:
            names, locations, ids = (column.to_pylist() for column in file.read_row_group(number).columns)
    except (OSError, pa.ArrowException) as error:
        raise OutputError(
            f"{plan}: cannot be read on {gethostname()}; expected an output folder that every worker sees by this name"
        ) from error
    return [ImageFile(n, fsdecode(place), known) for n, place, known in zip(names, locations, ids, strict=True)]


def _attempts(plan: Path) -> Path:
    return plan.with_suffix(".attempts")
