"""The record of a run, safe against being killed at any moment.

Outcomes are written in numbered shards of JSON lines, each of which appears whole by an atomic rename. The tables of
a run are made from the journal, and a later run over the same output skips the files that it names.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from crosseai.client.records.files import PARTIAL, atomic_path
from crosseai.contract import Finding, ImageFailure, ImageResult, OutputError

Record: TypeAlias = ImageResult | ImageFailure


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
        for number in range(self._shards):
            self._remember_replaced(number, self._read(number))

    def append(self, entries: Sequence[Entry]) -> None:
        """Write outcomes as one shard.

        Raises
        ------
        OutputError
            If it cannot be written; the shards before it are intact.
        """
        with atomic_path(self._folder / f"{self._shards:06d}.jsonl") as partial:
            partial.write_text("".join(to_line(entry) for entry in entries), encoding="utf-8")
        self._remember_replaced(self._shards, entries)
        self._shards += 1

    def shards(self) -> Iterator[list[Record]]:
        """All outcomes that count, shard by shard."""
        for number in range(self._shards):
            records = (entry.record for entry in self._read(number))
            yield [record for record in records if self._replaced_in.get(record.path, -1) <= number]

    def results(self) -> Iterable[ImageResult]:
        """The scored images; may be iterated several times, one shard in memory at a time."""
        return _Results(self)

    def paths(self, *kinds: type[Record]) -> Iterator[str]:
        """Files that were scored (``ImageResult``) or failed (``ImageFailure``)."""
        return (record.path for shard in self.shards() for record in shard if isinstance(record, kinds))

    def _remember_replaced(self, shard: int, entries: Sequence[Entry]) -> None:
        self._replaced_in.update({entry.replaces: shard for entry in entries if entry.replaces is not None})

    def _read(self, number: int) -> list[Entry]:
        path = self._folder / f"{number:06d}.jsonl"
        try:
            with path.open(encoding="utf-8") as lines:
                return [from_line(line) for line in lines]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(f"{path}: cannot be read as a part of this run's journal: {error!r}") from error


@dataclass(frozen=True, slots=True)
class _Results:
    journal: Journal

    def __iter__(self) -> Iterator[ImageResult]:
        return (record for shard in self.journal.shards() for record in shard if isinstance(record, ImageResult))


def to_line(entry: Entry) -> str:
    """An entry as a line of JSON."""
    kind = {"scored": isinstance(entry.record, ImageResult), "replaces": entry.replaces}
    return json.dumps({**kind, **asdict(entry.record)}) + "\n"


def from_line(line: str) -> Entry:
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
