"""One run as it was asked for: joins source, servers, engine and output folder."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from crosseai.client.cluster.engine import entries_by_ray
from crosseai.client.cluster.plan import PLAN, shard_rows
from crosseai.client.cluster.worker import Assignment
from crosseai.client.explain import parse_explain
from crosseai.client.flow import Places, Stream, stream
from crosseai.client.meter import Meter
from crosseai.client.outputs import Outputs
from crosseai.client.pipeline import DECODED_AHEAD, GROUP_BATCHES
from crosseai.client.recipe import Recipe
from crosseai.client.records.folder import folder_for
from crosseai.client.records.journal import Entry, Journal
from crosseai.client.run import Progress, Run, RunSummary
from crosseai.client.servers.fleet import Fleet
from crosseai.client.servers.pool import ServerPool
from crosseai.client.servers.transport import ServedModel
from crosseai.client.sources.arrivals import arrivals
from crosseai.client.sources.discovery import JOURNAL
from crosseai.client.sources.source import Directory, Source
from crosseai.client.sources.worklist import Worklist
from crosseai.client.tuning import Knob
from crosseai.contract import BoxParameters, InputError, box_preset
from crosseai.imaging import ReadPolicy

ARRIVAL_PATIENCE_S = 1.0
CORES = os.cpu_count() or 1
DECODERS = 2 * CORES
"""Files decoded at a time, before that is tuned: a core has its next file at hand."""

DECODERS_A_WORKER = 2
"""The same for each worker of a cluster, which has a core."""

IN_FLIGHT, MOST_IN_FLIGHT = 2, 8
"""Requests under way for each server, before they are tuned and at most."""


Engine: TypeAlias = Literal["local", "ray"]
"""Where files are decoded, and requests sent from: this process, or the workers of a Ray cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What was asked for; see :func:`crosseai.client.scoring.score_directory`."""

    source: Source
    output: Path
    explain: str
    labels_sha256: str | None
    preset: str | None
    outputs: Outputs
    new: bool
    retry_failed: bool
    reading: ReadPolicy
    batch_size: int | None
    in_flight: int | None
    decoders: int | None
    wait_s: float
    engine: Engine
    watch: threading.Event | None
    progress: Callable[[Progress], None]

    async def run(
        self, fleet: Fleet, servers: ServerPool, meter: Meter, executor: Executor, held: ExitStack
    ) -> RunSummary:
        """Join the parts, and score what is left to do; ``held`` takes the lock of another output folder."""
        served = servers.model
        boxes = box_preset(self.preset) if self.preset is not None else served.spec.boxes
        batch_size = self._images_a_request(served)
        configuration = self._configuration(served, boxes, batch_size)
        folder = folder_for(self.output, configuration, held, new=self.new)
        journal = Journal(folder / JOURNAL)
        work = Worklist(self.source, journal, retry_failed=self.retry_failed)
        meter.total, meter.done = (work.total if self.watch is None else work.done), work.done
        policy = parse_explain(self.explain, served.spec)
        recipe = Recipe(
            folder=folder.resolve(),
            explain=policy,
            boxes=boxes,
            outputs=self.outputs,
            reading=self.reading,
            batch_size=batch_size,
            earlier=work.moved(policy),
            patience_s=None if self.watch is None else ARRIVAL_PATIENCE_S,
        )
        if self.engine == "ray":
            knobs: list[Knob] = []
            groups = self._groups_by_ray(work, recipe, fleet, servers, meter)
        else:
            groups, knobs = self._groups_here(work, recipe, servers, meter, executor)
        run = Run(
            folder,
            journal,
            work.failed,
            servers,
            boxes,
            meter,
            configuration,
            self.outputs,
            self.progress,
            knobs=knobs,
            endless=self.watch is not None,
        )
        return await run.execute(groups)

    def _groups_here(
        self, work: Worklist, recipe: Recipe, servers: ServerPool, meter: Meter, executor: Executor
    ) -> tuple[Stream[list[Entry]], list[Knob]]:
        """Outcomes from the threads of this process, and what is to be tuned: what was not set."""
        decoding = Places(self.decoders or DECODERS)
        knobs = []
        if self.decoders is None:
            knobs.append(Knob(decoding, most=DECODED_AHEAD))
        if self.in_flight is None:
            _, count = servers.healthy
            knobs.append(Knob(servers.slots, most=MOST_IN_FLIGHT * count))
        if self.watch is not None and isinstance(self.source, Directory):
            files = arrivals(self.source.directory, self.output, work.finished, self.watch, meter)
        else:
            files = stream(work.files())
        return recipe.entries(files, servers, meter=meter, executor=executor, decoders=decoding), knobs

    def _groups_by_ray(
        self, work: Worklist, recipe: Recipe, fleet: Fleet, servers: ServerPool, meter: Meter
    ) -> Stream[list[Entry]]:
        """Outcomes from the workers of a cluster."""
        assignment = Assignment(
            plan=recipe.folder / JOURNAL / PLAN,
            recipe=recipe,
            fleet=fleet,
            version=servers.model.version,
            wait_s=self.wait_s,
            in_flight=self.in_flight or IN_FLIGHT,
            decoders=self.decoders or DECODERS_A_WORKER,
        )
        rows = shard_rows(work.total - work.done, GROUP_BATCHES * recipe.batch_size)
        return entries_by_ray(work.files(), rows, assignment, meter)

    def _images_a_request(self, served: ServedModel) -> int:
        if self.batch_size is not None and self.batch_size > served.max_batch_size:
            raise InputError(f"batch_size: the server takes at most {served.max_batch_size}, found {self.batch_size}")
        return self.batch_size or served.max_batch_size

    def _configuration(self, served: ServedModel, boxes: BoxParameters, batch_size: int) -> dict[str, Any]:
        """Everything that results depend on."""
        return {
            "directory": self.source.root,
            "model": served.spec.name,
            "model_version": served.version,
            "model_sha256": served.sha256,
            "spec": asdict(served.spec),
            "explain": self.explain,
            "explain_sha256": self.labels_sha256,
            "boxes": asdict(boxes),
            "write": self.outputs.names,
            "ground_truth_sha256": None if self.outputs.truth is None else self.outputs.truth.sha256,
            "reading": asdict(self.reading) | {"views": list(self.reading.views)},
            "batch_size": batch_size,
        }
