"""One run of a pipeline into an output folder."""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crosseai.client.flow import Stream
from crosseai.client.meter import Meter
from crosseai.client.outputs import Outputs, write_documents
from crosseai.client.records.journal import Entry, Journal
from crosseai.client.records.manifest import read_history, this_run, write_manifest
from crosseai.client.records.tables import TableCounts, write_tables
from crosseai.client.report import write_report
from crosseai.client.servers.pool import ServerPool
from crosseai.client.servers.transport import ServedModel, ServerStatistics
from crosseai.client.sources.names import NameSet
from crosseai.client.tuning import Knob, tune
from crosseai.contract import BoxParameters, ModelIdentity, Stage

PROGRESS_S = 0.2
TABLES_S = 30.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Parameters
    ----------
    done, total
        Files with an outcome, earlier runs included, of all files found.
    scored
        Images that this run scored.
    positive
        Images that this run called positive, by disease.
    failures
        Files that failed in this run, by the stage that they failed in.
    servers_up, servers
        Servers that answered last time, of all.
    model
        The model that answers.
    stage_seconds
        Time spent in each stage, summed over what runs side by side.
    """

    done: int
    total: int
    scored: int
    positive: Mapping[str, int]
    failures: Mapping[Stage, int]
    servers_up: int
    servers: int
    model: ServedModel
    stage_seconds: Mapping[str, float]

    @property
    def failed(self) -> int:
        """Files that failed in this run."""
        return sum(self.failures.values())


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What an output folder holds after a run.

    Parameters
    ----------
    output
        The folder.
    model_version
        Version of the model that answered.
    preset
        Name of the box parameters.
    counts
        Contents of the tables, earlier runs over the same output included.
    scored_now
        Files that this run scored or failed.
    seconds
        Duration of this run, the start of an embedded server left out.
    stage_seconds
        Where the time went, summed over what runs side by side: ``decode`` and ``boxes`` in threads, ``wait`` for a
        free place at a server, then ``network``, ``queue`` and ``compute``, and ``write``.
    """

    output: Path
    model_version: str
    preset: str
    counts: TableCounts
    scored_now: int
    seconds: float
    stage_seconds: Mapping[str, float]


class Run:
    """Records the outcomes of files as they come, and keeps the output folder in order.

    Parameters
    ----------
    output
        The folder, held by this run.
    journal
        Its journal.
    failed
        Files that failed in earlier runs.
    servers, boxes
        What scores: the servers, and parameters of the box algorithm.
    meter
        Where whoever scores counts.
    configuration
        What the results depend on.
    outputs
        What to write beside the tables.
    progress
        Told how far the run is, five times a second.
    knobs
        What to tune in the first seconds.
    endless
        Whether the tables must be written now and then, as the files have no end.
    """

    def __init__(
        self,
        output: Path,
        journal: Journal,
        failed: NameSet,
        servers: ServerPool,
        boxes: BoxParameters,
        meter: Meter,
        configuration: Mapping[str, Any],
        outputs: Outputs,
        progress: Callable[[Progress], None],
        *,
        knobs: Sequence[Knob] = (),
        endless: bool = False,
    ) -> None:
        self._output = output
        self._journal = journal
        self._failed_before = failed
        self._servers = servers
        self._boxes = boxes
        self._meter = meter
        self._configuration = configuration
        self._outputs = outputs
        self._progress = progress
        self._knobs = knobs
        self._endless = endless
        self._earlier_counts, self._earlier_runs = read_history(output)
        self._started = datetime.now(UTC)
        self._clock = time.monotonic()
        self._scored_now = 0
        self._tables = threading.Lock()
        served = servers.model
        self._model = ModelIdentity(served.spec.name, served.version, served.sha256)

    async def execute(self, groups: Stream[list[Entry]]) -> RunSummary:
        """Record groups of outcomes; the tables are written even when the run is cut short."""
        before = await self._servers.statistics()
        self._write_manifest("running", self._earlier_counts)
        status = "partial"
        helping = [self._report(), tune(self._knobs, self._meter)]
        if self._endless:
            helping.append(self._renew_tables())
        helpers = [asyncio.ensure_future(task) for task in helping]
        try:
            await self._record(groups)
            status = "complete"
        finally:
            for helper in helpers:
                helper.cancel()
            self._progress(self._snapshot())
            counts = self._write_tables()
            self._write_manifest(status, asdict(counts))
            if self._outputs.html:
                write_report(self._output, self._outputs.truth.path if self._outputs.truth else None)
        return RunSummary(
            self._output,
            self._servers.model.version,
            self._boxes.preset,
            counts,
            self._scored_now,
            time.monotonic() - self._clock,
            self._stage_seconds(before, await self._servers.statistics()),
        )

    async def _record(self, groups: Stream[list[Entry]]) -> None:
        async with aclosing(groups):
            async for group in groups:
                entries = [self._replacing_failure(entry) for entry in group]
                with self._meter.clock("write"):
                    await asyncio.to_thread(self._journal.append, entries)
                self._scored_now += len(entries)
                for entry in group:
                    if entry.replaces is None:  # what replaces another was scored then
                        self._meter.count(entry.record)

    def _replacing_failure(self, entry: Entry) -> Entry:
        path = entry.record.path
        return replace(entry, replaces=path) if entry.replaces is None and path in self._failed_before else entry

    async def _renew_tables(self) -> None:
        """Keep the tables fresh while a run has no end; the longer they are, the less often."""
        written, pause_s = self._scored_now, TABLES_S
        while True:
            await asyncio.sleep(pause_s)
            if self._scored_now > written:
                written, began = self._scored_now, time.monotonic()
                await asyncio.to_thread(self._write_tables)
                pause_s = max(TABLES_S, 20 * (time.monotonic() - began))

    async def _report(self) -> None:
        while True:
            self._progress(self._snapshot())
            await asyncio.sleep(PROGRESS_S)

    def _snapshot(self) -> Progress:
        meter = self._meter
        up, servers = self._servers.healthy
        return Progress(
            done=meter.done,
            total=meter.total,
            scored=meter.scored,
            positive=dict(meter.positive),
            failures=dict(meter.failures),
            servers_up=up,
            servers=servers,
            model=self._servers.model,
            stage_seconds=dict(meter.seconds),
        )

    def _write_tables(self) -> TableCounts:
        served = self._servers.model
        with self._tables:
            shards = self._journal.shards()
            counts = write_tables(self._output, shards, served.spec, self._model, self._boxes)
            write_documents(
                self._outputs.documents, self._journal.results(), self._output, self._model, served.spec.classes
            )
            return counts

    def _write_manifest(self, status: str, counts: Mapping[str, Any]) -> None:
        """A run that ends without putting anything into the folder leaves no trace in its history."""
        runs = list(self._earlier_runs)
        if status == "running" or self._scored_now or not runs:
            runs.append(this_run(self._started, time.monotonic() - self._clock, self._scored_now))
        write_manifest(self._output, status=status, configuration=self._configuration, counts=counts, runs=runs)

    def _stage_seconds(
        self, before: Mapping[str, ServerStatistics], after: Mapping[str, ServerStatistics]
    ) -> dict[str, float]:
        """Split the time of requests as the server tells; another client's requests are in its figures, too."""
        seconds = self._meter.seconds
        added = [statistics.since(before.get(server)) for server, statistics in after.items()]
        queue, compute = sum(server.queue_s for server in added), sum(server.compute_s for server in added)
        return {
            "decode": seconds["decode"],
            "wait": seconds["wait"],
            "network": max(0.0, seconds["request"] - queue - compute),
            "queue": queue,
            "compute": compute,
            "boxes": seconds["boxes"],
            "write": seconds["write"],
        }
