"""The record of a run, safe against being killed at any moment.

Outcomes are written in numbered shards of JSON lines, each of which appears whole by an atomic rename. The tables of
a run are made from the journal, and a later run over the same output skips the files that it names.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.json as pa_json

from crosseai.client.records.files import PARTIAL, atomic_path
from crosseai.client.sources.names import NameSet
from crosseai.contract import Finding, ImageFailure, ImageResult, OutputError

Record: TypeAlias = ImageResult | ImageFailure

TOGETHER = 64
"""Shards whose names are read together: a shard alone is too short to be read fast."""

_Names: TypeAlias = tuple[str, bool, str | None]
"""Of an entry: its path, whether it was scored, and what it replaces."""

_SCHEMA = pa.schema([("path", pa.string()), ("scored", pa.bool_()), ("replaces", pa.string())])


@dataclass(frozen=True, slots=True)
class Entry:
    """One outcome.

    Parameters
    ----------
    record
        The outcome.
    replaces
        Path whose earlier outcome no longer counts: the file's own when it is tried again, the old one of a file
        that was moved.
    """

    record: Record
    replaces: str | None = None


class Journal:
    """Outcomes of one output folder, in the order they were appended.

    Opening it reads every shard once, for the names in it.

    Attributes
    ----------
    finished, failed
        Names of files that had an outcome when the journal was opened, and of those that failed.

    Raises
    ------
    OutputError
        If the folder cannot be made or read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for unfinished in folder.glob(f".*{PARTIAL}"):
                unfinished.unlink()
            self._shards = len(list(folder.glob("[0-9]*.jsonl")))
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made or read: {error.strerror}") from error
        self._replaced_in: dict[str, int] = {}
        self.finished, self.failed = NameSet(), NameSet()
        for shard, (path, scored, replaces) in self._names():
            if replaces is not None:
                self._replaced_in.setdefault(replaces, shard)
            if self._counts(path, shard):
                self.finished.add(path)
                if not scored:
                    self.failed.add(path)

    def append(self, entries: Sequence[Entry]) -> None:
        """Write outcomes as one shard.

        Raises
        ------
        OutputError
            If it cannot be written; the shards before it are intact.
        """
        with atomic_path(self._shard(self._shards)) as partial:
            partial.write_text("".join(to_line(entry) for entry in entries), encoding="utf-8")
        self._replaced_in.update({entry.replaces: self._shards for entry in entries if entry.replaces is not None})
        self._shards += 1

    def shards(self) -> Iterator[list[Record]]:
        """All outcomes that count, shard by shard."""
        for number in range(self._shards):
            records = (entry.record for entry in self._read(number))
            yield [record for record in records if self._counts(record.path, number)]

    def results(self) -> Iterable[ImageResult]:
        """The scored images; may be iterated several times, one shard in memory at a time."""
        return _Results(self)

    def _counts(self, path: str, shard: int) -> bool:
        return self._replaced_in.get(path, -1) <= shard

    def _names(self) -> Iterator[tuple[int, _Names]]:
        """Shard and names of every outcome, the last one first."""
        for end in range(self._shards, 0, -TOGETHER):
            shards: list[int] = []
            lines: list[bytes] = []
            for number in range(max(0, end - TOGETHER), end):
                found = self._content(number).splitlines(keepends=True)
                shards += [number] * len(found)
                lines += found
            names = _names_in(lines)
            if names is None:  # then Python can read them, or says what is wrong
                entries = (entry for number in dict.fromkeys(shards) for entry in self._read(number))
                names = [(e.record.path, isinstance(e.record, ImageResult), e.replaces) for e in entries]
            yield from zip(reversed(shards), reversed(names), strict=True)

    def _read(self, number: int) -> list[Entry]:
        try:
            return [from_line(line) for line in self._content(number).splitlines()]
        except (ValueError, KeyError, TypeError) as error:
            path = self._shard(number)
            raise OutputError(f"{path}: cannot be read as a part of this run's journal: {error!r}") from error

    def _content(self, number: int) -> bytes:
        path = self._shard(number)
        try:
            return path.read_bytes()
        except OSError as error:
            raise OutputError(f"{path}: cannot be read: {error.strerror}") from error

    def _shard(self, number: int) -> Path:
        return self._folder / f"{number:06d}.jsonl"


@dataclass(frozen=True, slots=True)
class _Results:
    journal: Journal

    def __iter__(self) -> Iterator[ImageResult]:
        return (record for shard in self.journal.shards() for record in shard if isinstance(record, ImageResult))


def to_line(entry: Entry) -> str:
    """An entry as a line of JSON."""
    kind = {"scored": isinstance(entry.record, ImageResult), "replaces": entry.replaces}
    return json.dumps({**kind, **asdict(entry.record)}) + "\n"


def _names_in(lines: Sequence[bytes]) -> list[_Names] | None:
    """The names in every line; None where Arrow cannot tell them: it is fast, but takes no lone surrogate."""
    try:
        table = pa_json.read_json(
            pa.BufferReader(b"".join(lines)),
            pa_json.ReadOptions(use_threads=False, block_size=max(1, sum(map(len, lines)))),
            pa_json.ParseOptions(explicit_schema=_SCHEMA, unexpected_field_behavior="ignore"),
        )
    except pa.ArrowInvalid:
        return None
    if len(table) != len(lines) or table["path"].null_count or table["scored"].null_count:
        return None
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def from_line(line: str | bytes) -> Entry:
    """The entry of a line."""
    fields: dict[str, Any] = json.loads(line)
    scored, replaces = fields.pop("scored"), fields.pop("replaces")
    if not scored:
        return Entry(ImageFailure(**fields), replaces)
    fields["findings"] = tuple(
        Finding(
            **finding | {"box_image_px": tuple(finding["box_image_px"]), "box_model_px": tuple(finding["box_model_px"])}
        )
        for finding in fields["findings"]
    )
    fields["warnings"] = tuple(fields["warnings"])
    return Entry(ImageResult(**fields), replaces)
