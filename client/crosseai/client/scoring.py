"""Scoring a directory: the library function behind ``crosseai-client run``."""

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crosseai.client.arrivals import arrivals
from crosseai.client.credentials import NO_CREDENTIALS, Credentials
from crosseai.client.discovery import JOURNAL, discover
from crosseai.client.embedded import embedded_server
from crosseai.client.explain import labels_digest, parse_explain
from crosseai.client.findings import Localizer
from crosseai.client.flow import stream
from crosseai.client.folder import folder_for, locked
from crosseai.client.inference import Inference
from crosseai.client.journal import Journal
from crosseai.client.meter import Meter
from crosseai.client.pictures import Picture, check_pictures
from crosseai.client.pipeline import DECODED_AHEAD, Pipeline
from crosseai.client.run import Progress, Run, RunSummary
from crosseai.client.servers import ServerPool
from crosseai.client.transport import ServedModel, TritonTransport
from crosseai.client.tuning import Knob
from crosseai.client.worklist import Worklist
from crosseai.contract import BoxParameters, InputError, box_preset
from crosseai.imaging import DEFAULT_POLICY, ReadPolicy

ARRIVAL_PATIENCE_S = 1.0
CORES = os.cpu_count() or 1
IN_FLIGHT, MOST_IN_FLIGHT = 2, 8
"""Requests under way for each server, before they are tuned and at most."""


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
    watch: threading.Event | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> RunSummary:
    """Score every radiograph below a directory.

    Results appear in ``output``: ``predictions`` and ``boxes`` as Parquet and CSV, ``errors.jsonl``,
    ``manifest.json``, and pictures. A run over an existing output continues it. An interrupted run leaves tables of
    what it scored, and the same call continues it. It runs an event loop of its own, so call it from no other.

    Parameters
    ----------
    directory
        Searched recursively for DICOM, PNG and JPEG files.
    output
        Folder for the results; made if needed.
    server
        ``grpc://HOST:PORT`` or ``grpcs://HOST:PORT`` of a Triton server, or several, separated by commas; None
        starts an embedded one for the time of the run.
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
        Pictures to write: ``overlay``, ``panel``.
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
        How long to try again when no server answers, in seconds. An embedded server is not waited for.
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
    directory, output = Path(directory), Path(output)
    pictures, digest = check_pictures(write), labels_digest(explain)
    if next(discover(directory, output), None) is None and watch is None:
        raise InputError(f"{directory}: expected at least one file, found none")

    async def run(addresses: str, held: ExitStack) -> RunSummary:
        meter = Meter()
        transports = [
            TritonTransport(address.strip(), credentials=credentials, timeout_s=timeout_s)
            for address in addresses.split(",")
        ]
        async with await ServerPool.connect(
            transports,
            version=model_version,
            wait_s=wait_s if server else 0.0,
            in_flight=in_flight or IN_FLIGHT,
            meter=meter,
        ) as servers:
            served = servers.model
            images = _batch_size(batch_size, served)
            boxes = box_preset(preset) if preset is not None else served.spec.boxes
            configuration = _configuration(directory, served, explain, digest, boxes, pictures, images, reading)
            folder = folder_for(output, configuration, held, new=new)
            journal = Journal(folder / JOURNAL)
            work = Worklist(directory, output, journal, retry_failed=retry_failed)
            meter.total, meter.done = (work.total if watch is None else work.done), work.done
            policy = parse_explain(explain, served.spec)
            decoding = asyncio.Semaphore(decoders or CORES)
            knobs = []
            if decoders is None:
                knobs.append(Knob(decoding, CORES, most=DECODED_AHEAD))
            if in_flight is None:
                knobs.append(Knob(servers.slots, IN_FLIGHT * len(transports), most=MOST_IN_FLIGHT * len(transports)))
            with ThreadPoolExecutor(DECODED_AHEAD + CORES, thread_name_prefix="crosseai") as executor:
                pipeline = Pipeline(
                    directory=directory,
                    inference=Inference(servers, policy, images),
                    localizer=Localizer(served.spec, served.version, boxes),
                    meter=meter,
                    executor=executor,
                    batch_size=images,
                    decoders=decoding,
                    earlier=work.moved(policy),
                    reading=reading,
                    keep_radiographs=bool(pictures),
                    patience_s=None if watch is None else ARRIVAL_PATIENCE_S,
                )
                files = arrivals(directory, output, work.finished, watch, meter) if watch else stream(work.files())
                run = Run(
                    folder,
                    journal,
                    pipeline,
                    servers,
                    configuration,
                    pictures,
                    progress,
                    knobs=knobs,
                    endless=watch is not None,
                )
                return await run.execute(files)

    with ExitStack() as held:
        held.enter_context(locked(output))
        addresses = held.enter_context(embedded_server(model) if server is None else nullcontext(server))
        return asyncio.run(run(addresses, held))


def _batch_size(wanted: int | None, served: ServedModel) -> int:
    if wanted is not None and wanted > served.max_batch_size:
        raise InputError(f"batch_size: the server takes at most {served.max_batch_size}, found {wanted}")
    return wanted or served.max_batch_size


def _configuration(
    directory: Path,
    served: ServedModel,
    explain: str,
    digest: str | None,
    boxes: BoxParameters,
    write: Sequence[Picture],
    batch_size: int,
    reading: ReadPolicy,
) -> dict[str, Any]:
    """Everything that results depend on."""
    return {
        "directory": str(directory.resolve()),
        "model": served.spec.name,
        "model_version": served.version,
        "model_sha256": served.sha256,
        "spec": asdict(served.spec),
        "explain": explain,
        "explain_sha256": digest,
        "boxes": asdict(boxes),
        "write": list(write),
        "reading": asdict(reading) | {"views": list(reading.views)},
        "batch_size": batch_size,
    }
