"""Scoring a directory: the library function behind ``crosseai-client run``."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from pathlib import Path

from crosseai.client.cluster.engine import ray_cluster
from crosseai.client.explain import check_explain, labels_digest
from crosseai.client.job import CORES, IN_FLIGHT, Engine, Job
from crosseai.client.meter import Meter
from crosseai.client.outputs import parse_outputs
from crosseai.client.pipeline import DECODED_AHEAD
from crosseai.client.records.folder import locked
from crosseai.client.run import Progress, RunSummary
from crosseai.client.servers.credentials import NO_CREDENTIALS, Credentials
from crosseai.client.servers.embedded import embedded_server
from crosseai.client.servers.fleet import Fleet
from crosseai.client.sources.source import Directory, open_source
from crosseai.contract import InputError
from crosseai.imaging import DEFAULT_POLICY, ReadPolicy


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
    boxes: str | Path | None = None,
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
        :func:`crosseai.client.sources.index.write_index` makes it.
    output
        Folder for the results; made if needed.
    server
        ``grpc://HOST:PORT`` or ``grpcs://HOST:PORT`` of a Triton server, ``dns:///HOST:PORT`` for all servers behind
        a DNS name, or several of these, separated by commas; None starts an embedded one for the time of the run.
    model
        Model for the embedded server: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or a folder; None for the
        registry's champion, or its newest version.
    model_version
        Version to ask of ``server``; None for its champion, or the newest it has loaded.
    explain
        Which diseases get boxes: ``positive``, ``top:K``, ``all``, ``none``, or a CSV file of labels.
    preset
        Box parameters by name; None for those that the model's spec recommends.
    write
        What to write beside the tables: pictures (``overlay``, ``panel``, ``panel-pdf``), DICOM objects (``dicom-sr``,
        ``gsps``, ``secondary-capture``, ``parametric-map``), documents (``coco``, ``cvat``, ``fhir``, ``fiftyone``,
        ``label-studio``), the report (``html``).
    boxes
        Ground truth like NIH's ``BBox_List_2017.csv``: drawn into panels, and compared in the report.
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
        must reach the files and ``output`` by the same names. Ray's notices, and all else that is printed meanwhile, go
        to standard error.
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
    if not (timeout_s > 0 and wait_s >= 0):  # neither holds for NaN
        raise InputError(f"expected timeout_s > 0 and wait_s >= 0, found {timeout_s:g} and {wait_s:g}")
    if server is not None and model is not None:
        raise InputError("expected server or model, found both: model is for the embedded server (see model_version)")
    if server is None and model_version is not None:
        raise InputError("model_version: expected server with it; for the embedded one the version is a part of model")
    if engine == "local" and ray_address is not None:
        raise InputError(f"ray_address {ray_address}: expected the engine 'ray' with it, found 'local'")
    if ray_address is not None and server is None:
        raise InputError("expected server with ray_address: no cluster reaches an embedded one")
    check_explain(explain)
    credentials.check()
    source = open_source(directory, Path(output))
    if watch is not None and not (isinstance(source, Directory) and engine == "local"):
        raise InputError("watch: expected a directory and the engine 'local'")
    if next(iter(source), None) is None and watch is None:
        raise InputError(f"{directory}: expected at least one file, found none")
    job = Job(
        source=source,
        output=Path(output),
        explain=explain,
        labels_sha256=labels_digest(explain),
        preset=preset,
        outputs=parse_outputs(write, None if boxes is None else Path(boxes)),
        new=new,
        retry_failed=retry_failed,
        reading=reading,
        batch_size=batch_size,
        in_flight=in_flight,
        decoders=decoders,
        wait_s=wait_s,
        engine=engine,
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
                return await job.run(fleet, servers, meter, executor, held)

    with ExitStack() as held:
        held.enter_context(locked(job.output))
        if engine == "ray":
            held.enter_context(ray_cluster(ray_address))
        addresses = held.enter_context(embedded_server(model) if server is None else nullcontext(server))
        return asyncio.run(run(addresses, held))
