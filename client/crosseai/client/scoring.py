"""Scoring a directory: the library function behind ``crosseai-client run``."""

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from crosseai.client.arrivals import arrivals
from crosseai.client.credentials import NO_CREDENTIALS, Credentials
from crosseai.client.discovery import JOURNAL
from crosseai.client.embedded import embedded_server
from crosseai.client.explain import labels_digest, parse_explain
from crosseai.client.fleet import Fleet
from crosseai.client.flow import Places, stream
from crosseai.client.folder import folder_for, locked
from crosseai.client.journal import Journal
from crosseai.client.meter import Meter
from crosseai.client.outputs import Outputs, parse_outputs
from crosseai.client.pipeline import DECODED_AHEAD
from crosseai.client.recipe import Recipe
from crosseai.client.run import Progress, Run, RunSummary
from crosseai.client.servers import ServerPool
from crosseai.client.source import Directory, Source, open_source
from crosseai.client.transport import ServedModel
from crosseai.client.tuning import Knob
from crosseai.client.worklist import Worklist
from crosseai.contract import BoxParameters, InputError, box_preset
from crosseai.imaging import DEFAULT_POLICY, ReadPolicy

ARRIVAL_PATIENCE_S = 1.0
CORES = os.cpu_count() or 1
DECODERS = 2 * CORES
"""Files decoded at a time, before that is tuned: a core has its next file at hand."""

IN_FLIGHT, MOST_IN_FLIGHT = 2, 8
"""Requests under way for each server, before they are tuned and at most."""


Engine: TypeAlias = Literal["local", "ray"]
"""Where files are decoded, and requests sent from: this process, or the workers of a Ray cluster."""


def score_directory(
    directory: str | Path,
    output: str | Path,
    *,
    server: str | None = None,
    model: str | None = None,
    model_version: str | None = None,
    explain: str = "positive",
    preset: str | None = None,
    write: Sequence[str] = (),
    new: bool = False,
    retry_failed: bool = False,
    credentials: Credentials = NO_CREDENTIALS,
    reading: ReadPolicy = DEFAULT_POLICY,
    batch_size: int | None = None,
    in_flight: int | None = None,
    decoders: int | None = None,
    timeout_s: float = 120.0,
    wait_s: float = 60.0,
    engine: Engine = "local",
    ray_address: str | None = None,
    watch: threading.Event | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> RunSummary:
    """Score every radiograph below a directory, or in a manifest.

    Results appear in ``output``: ``predictions`` and ``boxes`` as Parquet and CSV, ``errors.jsonl``,
    ``manifest.json``, and pictures. A run over an existing output continues it. An interrupted run leaves tables of
    what it scored, and the same call continues it. It runs an event loop of its own, so call it from no other.

    Parameters
    ----------
    directory
        Searched recursively for DICOM, PNG and JPEG files; or a manifest, ``*.parquet``, as
        :func:`crosseai.client.index.write_index` makes it.
    output
        Folder for the results; made if needed.
    server
        ``grpc://HOST:PORT`` or ``grpcs://HOST:PORT`` of a Triton server, ``dns:///HOST:PORT`` for all servers behind
        a DNS name, or several of these, separated by commas; None starts an embedded one for the time of the run.
    model
        Model for the embedded server: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or a folder; None for the
        registry's champion, or its newest version.
    model_version
        Version to ask of ``server``; None for the newest it has loaded.
    explain
        Which diseases get boxes: ``positive``, ``top:K``, ``all``, ``none``, or a CSV file of labels.
    preset
        Box parameters by name; None for those that the model's spec recommends.
    write
        What to write beside the tables: pictures (``overlay``, ``panel``), DICOM objects (``dicom-sr``, ``gsps``,
        ``secondary-capture``), documents (``coco``, ``fhir``, ``label-studio``), the report (``html``).
    new
        Where ``output`` holds a run with another configuration, write to ``output-2``, ``output-3``, ... instead of
        refusing: to the first that is free, or holds a run with this one.
    retry_failed
        Try again the files that failed in earlier runs, too.
    credentials
        For TLS, and a bearer token.
    reading
        Which radiographs are accepted, how they are shown, and whether messages name the patient.
    batch_size
        Images a request; None for as many as the server takes. The last bits of probabilities depend on it.
    in_flight
        Requests under way at a time, for each server; None to find out in the first seconds.
    decoders
        Files decoded at a time; None to find out in the first seconds.
    timeout_s
        Deadline of a request, in seconds.
    wait_s
        How long to try again when no server answers, in seconds; an embedded one that dies is started again.
    engine
        ``local``, or ``ray``: decoding, requests, boxes and pictures by the workers of a Ray cluster, each of which
        must reach the files and ``output`` by the same names.
    ray_address
        ``HOST:PORT`` of a cluster, ``auto`` for the one that this machine is part of; None starts one here for the
        time of the run.
    watch
        Wait for files to arrive, and score each when it is complete, until this event is set.
    progress
        Told how far the run is, five times a second.

    Raises
    ------
    InputError
        If an argument is wrong, there are no files, or ``output`` belongs to a run with another configuration.
    ServerError
        If the server is unreachable, or goes away during the run.
    ContractError
        If the served model differs from its spec.
    OutputError
        If results cannot be written.
    """
    for name, value in (("batch_size", batch_size), ("in_flight", in_flight), ("decoders", decoders)):
        if value is not None and value < 1:
            raise InputError(f"{name}: expected at least 1, found {value}")
    if timeout_s <= 0 or wait_s < 0:
        raise InputError(f"expected timeout_s > 0 and wait_s >= 0, found {timeout_s:g} and {wait_s:g}")
    if server is not None and model is not None:
        raise InputError("expected server or model, found both: model is for the embedded server (see model_version)")
    if engine == "local" and ray_address is not None:
        raise InputError(f"ray_address {ray_address}: expected the engine 'ray' with it, found 'local'")
    if ray_address is not None and server is None:
        raise InputError("expected server with ray_address: no cluster reaches an embedded one")
    source = open_source(directory, Path(output))
    if watch is not None and not (isinstance(source, Directory) and engine == "local"):
        raise InputError("watch: expected a directory and the engine 'local'")
    if next(iter(source), None) is None and watch is None:
        raise InputError(f"{directory}: expected at least one file, found none")
    job = _Job(
        source=source,
        output=Path(output),
        explain=explain,
        labels_sha256=labels_digest(explain),
        preset=preset,
        outputs=parse_outputs(write),
        new=new,
        retry_failed=retry_failed,
        reading=reading,
        batch_size=batch_size,
        in_flight=in_flight,
        decoders=decoders,
        engine=engine,
        ray_address=ray_address,
        watch=watch,
        progress=progress,
    )
    job.outputs.check_files(file.name for file in source)

    async def run(addresses: str, held: ExitStack) -> RunSummary:
        fleet = Fleet(servers=addresses, credentials=credentials, timeout_s=timeout_s)
        meter = Meter()
        async with fleet.pool(
            version=model_version, wait_s=wait_s, in_flight=in_flight or IN_FLIGHT, meter=meter
        ) as servers:
            with ThreadPoolExecutor(DECODED_AHEAD + CORES, thread_name_prefix="crosseai") as executor:
                return await job.run(servers, meter, executor, held)

    with ExitStack() as held:
        held.enter_context(locked(job.output))
        addresses = held.enter_context(embedded_server(model) if server is None else nullcontext(server))
        return asyncio.run(run(addresses, held))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What was asked for; see :func:`score_directory`."""

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
    engine: Engine
    ray_address: str | None
    watch: threading.Event | None
    progress: Callable[[Progress], None]

    async def run(self, servers: ServerPool, meter: Meter, executor: Executor, held: ExitStack) -> RunSummary:
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
        decoding = Places(self.decoders or DECODERS)
        if self.watch is None or not isinstance(self.source, Directory):
            files = stream(work.files())
        else:
            files = arrivals(self.source.directory, self.output, work.finished, self.watch, meter)
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
            knobs=self._knobs(decoding, servers),
            endless=self.watch is not None,
        )
        return await run.execute(recipe.entries(files, servers, meter=meter, executor=executor, decoders=decoding))

    def _images_a_request(self, served: ServedModel) -> int:
        if self.batch_size is not None and self.batch_size > served.max_batch_size:
            raise InputError(f"batch_size: the server takes at most {served.max_batch_size}, found {self.batch_size}")
        return self.batch_size or served.max_batch_size

    def _knobs(self, decoding: Places, servers: ServerPool) -> list[Knob]:
        """What is to be tuned: what was not set."""
        _, count = servers.healthy
        knobs = []
        if self.decoders is None:
            knobs.append(Knob(decoding, most=DECODED_AHEAD))
        if self.in_flight is None:
            knobs.append(Knob(servers.slots, most=MOST_IN_FLIGHT * count))
        return knobs

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
            "reading": asdict(self.reading) | {"views": list(self.reading.views)},
            "batch_size": batch_size,
        }
