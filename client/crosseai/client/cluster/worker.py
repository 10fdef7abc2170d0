"""What a worker of a Ray cluster does: all stages of scoring, for one shard of a plan after the other."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from crosseai.client.cluster.plan import attempt, read_shard
from crosseai.client.cluster.screening import deadly, try_decoding
from crosseai.client.flow import stream
from crosseai.client.memory import keep_freed_memory
from crosseai.client.meter import Meter
from crosseai.client.pipeline import DECODED_AHEAD
from crosseai.client.prepare import failure
from crosseai.client.recipe import Recipe
from crosseai.client.records.journal import Entry, to_line
from crosseai.client.servers.fleet import Fleet
from crosseai.client.servers.pool import ServerPool
from crosseai.client.sources.storage import ImageFile
from crosseai.contract import CrossEAIError, ImageFailure, UnreadableImageError

GROUP = pa.schema(
    [("lines", pa.list_(pa.string())), ("stage_seconds", pa.string()), ("error", pa.string()), ("message", pa.string())]
)
"""What a worker returns, one row a group: entries of the journal, and the time spent in each stage since the last.

A row with an error says why a shard was given up.
"""


DEATHS = 2
"""Attempts at a shard that may end with their worker before its files are suspected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What every worker of a run is told.

    Parameters
    ----------
    plan
        The table of shards.
    recipe
        How to score.
    fleet, version
        The servers, and the version of the model to ask of them.
    wait_s
        How long no server may answer, in seconds.
    in_flight, decoders
        Requests under way for each server, and files decoded, at a time.
    """

    plan: Path
    recipe: Recipe
    fleet: Fleet
    version: str
    wait_s: float
    in_flight: int
    decoders: int


class Worker:
    """An actor: keeps its connections and threads for life, and scores a few shards at a time.

    Ray ends it with its process; elsewhere, use ``async with``.
    """

    def __init__(self, assignment: Assignment) -> None:
        keep_freed_memory()
        self._assignment = assignment
        self._meter = Meter()
        self._executor = ThreadPoolExecutor(DECODED_AHEAD, thread_name_prefix="crosseai")
        self._held = AsyncExitStack()
        self._servers: asyncio.Future[ServerPool] | None = None
        self._decoding: asyncio.Semaphore

    async def __call__(self, batch: dict[str, npt.NDArray[np.int64]]) -> pa.Table:
        """Score shards; returns a table of :data:`GROUP`."""
        if self._servers is None:
            self._decoding = asyncio.Semaphore(self._assignment.decoders)
            self._servers = asyncio.ensure_future(self._connect())
        groups: list[dict[str, object]] = []
        try:
            for shard in batch["item"].tolist():
                groups += [group async for group in self._score(shard, await self._servers)]
        except CrossEAIError as error:
            groups.append({"error": type(error).__name__, "message": str(error)})
        return pa.Table.from_pylist(groups, schema=GROUP)

    async def _score(self, shard: int, servers: ServerPool) -> AsyncIterator[dict[str, object]]:
        recipe, plan = self._assignment.recipe, self._assignment.plan
        files = await asyncio.to_thread(read_shard, plan, shard)
        with attempt(plan, shard) as earlier:
            if earlier >= DEATHS:
                if fatal := await asyncio.to_thread(list, deadly(files, partial(try_decoding, recipe.reading))):
                    yield self._group([Entry(_fatal(file)) for file in fatal])
                files = [file for file in files if file not in fatal]
            async for entries in recipe.entries(
                stream(files), servers, meter=self._meter, executor=self._executor, decoders=self._decoding
            ):
                yield self._group(entries)

    def _group(self, entries: Sequence[Entry]) -> dict[str, object]:
        spent, self._meter.seconds = self._meter.seconds, defaultdict(float)
        return {"lines": [to_line(entry) for entry in entries], "stage_seconds": json.dumps(spent)}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._held.aclose()
        self._executor.shutdown()

    async def _connect(self) -> ServerPool:
        assignment = self._assignment
        pool = assignment.fleet.pool(
            version=assignment.version, wait_s=assignment.wait_s, in_flight=assignment.in_flight, meter=self._meter
        )
        return await self._held.enter_async_context(pool)


def _fatal(file: ImageFile) -> ImageFailure:
    reason = f"{file.location}: decoding it ends the process that does so"
    return failure(file.name, UnreadableImageError(reason), "read")


def raise_error(group: Mapping[str, Any]) -> None:
    """Raise the error that a worker returned as a row of :data:`GROUP`, if it is one.

    Raises
    ------
    CrossEAIError
        Of the class that the worker met.
    """
    if group["error"] is None:
        return
    classes: list[type[CrossEAIError]] = [CrossEAIError]
    for known in classes:
        classes += known.__subclasses__()
    raise next(known for known in classes if known.__name__ == group["error"])(group["message"])
