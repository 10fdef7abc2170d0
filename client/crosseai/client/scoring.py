"""Scoring a directory: the library function behind ``crosseai-client run``."""

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crosseai.client.discovery import discover
from crosseai.client.embedded import embedded_server
from crosseai.client.explain import labels_digest, parse_explain
from crosseai.client.flow import map_ordered
from crosseai.client.journal import Journal, Record
from crosseai.client.manifest import check_same_configuration, write_manifest
from crosseai.client.pictures import Picture, check_pictures, write_pictures
from crosseai.client.pipeline import Outcome, Pipeline, ScoredImage
from crosseai.client.tables import TableCounts, write_tables
from crosseai.client.transport import TritonTransport
from crosseai.contract import BoxParameters, ImageFailure, InputError, OutputError, box_preset


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: files done (earlier runs included) of all files found, and files that failed in this run."""

    done: int
    failed: int
    total: int


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
    """

    output: Path
    model_version: str
    preset: str
    counts: TableCounts
    scored_now: int
    seconds: float


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
    batch_size: int = 8,
    in_flight: int = 3,
    timeout_s: float = 120.0,
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
        ``grpc://HOST:PORT`` of a Triton server; None starts an embedded one for the time of the run.
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
    batch_size
        Images a request.
    in_flight
        Requests under way at a time.
    timeout_s
        Deadline of a request, in seconds.
    progress
        Called after every file.

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
    directory, output = Path(directory), Path(output)
    if batch_size < 1 or in_flight < 1 or timeout_s <= 0:
        raise InputError(
            f"expected batch_size >= 1, in_flight >= 1, timeout_s > 0; found {batch_size}, {in_flight}, {timeout_s:g}"
        )
    if server is not None and model is not None:
        raise InputError("expected server or model, found both: model is for the embedded server (see model_version)")
    pictures, digest = check_pictures(write), labels_digest(explain)
    files = list(discover(directory, output))
    if not files:
        raise InputError(f"{directory}: expected at least one file, found none")
    with _locked(output), embedded_server(model) if server is None else nullcontext(server) as address:

        async def run() -> RunSummary:
            transport = await TritonTransport.connect(address, version=model_version, timeout_s=timeout_s)
            async with transport:
                if batch_size > transport.max_batch_size:
                    raise InputError(
                        f"batch_size: the server takes at most {transport.max_batch_size}, found {batch_size}"
                    )
                boxes = box_preset(preset) if preset is not None else transport.spec.boxes
                configuration = _configuration(directory, transport, explain, digest, boxes, pictures)
                check_same_configuration(output, configuration)
                with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="crosseai") as executor:
                    pipeline = Pipeline(
                        directory=directory,
                        transport=transport,
                        explain=parse_explain(explain, transport.spec),
                        boxes=boxes,
                        executor=executor,
                        batch_size=batch_size,
                        in_flight=in_flight,
                    )
                    return await _Run(output, pipeline, configuration, pictures, progress).execute(files)

        return asyncio.run(run())


class _Run:
    """One run of a pipeline into an output folder."""

    def __init__(
        self,
        output: Path,
        pipeline: Pipeline,
        configuration: dict[str, Any],
        pictures: tuple[Picture, ...],
        progress: Callable[[Progress], None],
    ) -> None:
        self._output = output
        self._pipeline = pipeline
        self._configuration = configuration
        self._pictures = pictures
        self._progress = progress
        self._journal = Journal(output / ".journal")
        self._started = datetime.now(UTC)
        self._clock = time.monotonic()
        self._scored_now = 0

    async def execute(self, files: Sequence[Path]) -> RunSummary:
        """Score the files that the journal does not name; the tables are written even when the run is cut short."""
        self._write_manifest("running", {})
        status = "partial"
        try:
            await self._score(files)
            status = "complete"
        finally:
            self._journal.flush()
            counts = self._write_tables()
            self._write_manifest(status, asdict(counts))
        transport, boxes = self._pipeline.transport, self._pipeline.boxes
        seconds = time.monotonic() - self._clock
        return RunSummary(self._output, transport.model_version, boxes.preset, counts, self._scored_now, seconds)

    async def _score(self, files: Sequence[Path]) -> None:
        known = self._journal.paths()
        remaining = [file for file in files if self._pipeline.name_of(file) not in known]
        done, failed = len(files) - len(remaining), 0
        self._progress(Progress(done, failed, len(files)))
        outcomes = self._pipeline.run(remaining)
        async with aclosing(map_ordered(self._draw, outcomes, limit=os.cpu_count() or 1)) as records:
            async for record in records:
                self._journal.append(record)
                self._scored_now += 1
                failed += isinstance(record, ImageFailure)
                self._progress(Progress(done + self._scored_now, failed, len(files)))

    async def _draw(self, outcome: Outcome) -> Record:
        """Write an image's pictures, then let go of its pixels and maps."""
        if not isinstance(outcome, ScoredImage):
            return outcome
        if self._pictures:
            loop, pipeline = asyncio.get_running_loop(), self._pipeline
            arguments = (outcome, self._output, self._pictures, pipeline.boxes)
            await loop.run_in_executor(pipeline.executor, write_pictures, *arguments)
        return outcome.result

    def _write_tables(self) -> TableCounts:
        transport = self._pipeline.transport
        return write_tables(
            self._output, self._journal.shards(), transport.spec, transport.model_version, self._pipeline.boxes
        )

    def _write_manifest(self, status: str, counts: dict[str, Any]) -> None:
        times = {
            "started": self._started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self._clock, 3),
            "files_this_run": self._scored_now,
        }
        write_manifest(self._output, status=status, configuration=self._configuration, counts=counts, times=times)


def _configuration(
    directory: Path,
    transport: TritonTransport,
    explain: str,
    digest: str | None,
    boxes: BoxParameters,
    write: Sequence[Picture],
) -> dict[str, Any]:
    """Everything that results depend on."""
    return {
        "directory": str(directory.resolve()),
        "model": transport.spec.name,
        "model_version": transport.model_version,
        "model_sha256": transport.model_sha256,
        "spec": asdict(transport.spec),
        "explain": explain,
        "explain_sha256": digest,
        "boxes": asdict(boxes),
        "write": list(write),
    }


@contextmanager
def _locked(output: Path) -> Iterator[None]:
    """Make the output folder and hold it for this run alone.

    Raises
    ------
    InputError
        If another run holds it.
    OutputError
        If it cannot be made.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = (output / ".lock").open("w")
    except OSError as error:
        raise OutputError(f"{output}: cannot be made or written: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{output}: another run is writing to it; wait for it or choose another --output"
            ) from error
        yield
