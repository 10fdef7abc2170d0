"""The record of a run, safe against being killed at any moment.

Outcomes are appended to numbered shards of JSON lines, each of which appears whole by an atomic rename. The tables
of a run are made from the journal, and a later run over the same output skips the files that it names.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crosseai.client.files import PARTIAL, atomic_path
from crosseai.contract import Finding, ImageFailure, ImageResult, OutputError

SHARD_OUTCOMES = 256
SHARD_SECONDS = 10.0

Record = ImageResult | ImageFailure


class Journal:
    """Outcomes of one output folder, in the order they were appended.

    Raises
    ------
    OutputError
        If the folder cannot be made or read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pending: list[Record] = []
        self._flushed_at = time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for unfinished in folder.glob(f".*{PARTIAL}"):
                unfinished.unlink()
            self._shards = len(list(folder.glob("[0-9]*.jsonl")))
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made or read: {error.strerror}") from error

    def append(self, record: Record) -> None:
        """Add an outcome; it is on disk after a full shard, after ten seconds, or after :meth:`flush`."""
        self._pending.append(record)
        if len(self._pending) >= SHARD_OUTCOMES or time.monotonic() - self._flushed_at > SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is pending as one shard.

        Raises
        ------
        OutputError
            If it cannot be written; the shards before it are intact.
        """
        if self._pending:
            with atomic_path(self._folder / f"{self._shards:06d}.jsonl") as partial:
                partial.write_text("".join(_to_line(record) for record in self._pending), encoding="utf-8")
            self._shards += 1
            self._pending = []
        self._flushed_at = time.monotonic()

    def shards(self) -> Iterator[list[Record]]:
        """All flushed outcomes, shard by shard."""
        for number in range(self._shards):
            path = self._folder / f"{number:06d}.jsonl"
            try:
                with path.open(encoding="utf-8") as lines:
                    records = [_from_line(line) for line in lines]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise OutputError(f"{path}: cannot be read as a part of this run's journal: {error!r}") from error
            yield records

    def paths(self) -> set[str]:
        """Files that the journal names, scored or failed."""
        return {record.path for shard in self.shards() for record in shard}


def _to_line(record: Record) -> str:
    return json.dumps({"scored": isinstance(record, ImageResult), **asdict(record)}) + "\n"


def _from_line(line: str) -> Record:
    fields: dict[str, Any] = json.loads(line)
    if not fields.pop("scored"):
        return ImageFailure(**fields)
    fields["findings"] = tuple(
        Finding(
            **finding | {"box_image_px": tuple(finding["box_image_px"]), "box_model_px": tuple(finding["box_model_px"])}
        )
        for finding in fields["findings"]
    )
    return ImageResult(**fields)
