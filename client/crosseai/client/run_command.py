"""``crosseai-client run``."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import click

from crosseai.client.display import LogFormat, display, say
from crosseai.client.exit_codes import EXIT_FAILED, exit_codes
from crosseai.client.formats.dicom_context import DicomObject
from crosseai.client.job import Engine
from crosseai.client.metrics import METRICS_HOST, metrics
from crosseai.client.options import engine_options, read_options, server_options
from crosseai.client.outputs import parse_outputs
from crosseai.client.push import PushSummary, check_destination, push
from crosseai.client.records.manifest import MANIFEST
from crosseai.client.run import Progress, RunSummary
from crosseai.client.scoring import score_directory
from crosseai.client.servers.credentials import Credentials
from crosseai.contract import PRESETS, RESEARCH_NOTICE, InputError
from crosseai.imaging import ReadPolicy

ARCHIVE_TOKEN_VARIABLE = "CROSSEAI_ARCHIVE_TOKEN"  # noqa: S105 - the name of a variable, not a token


@click.command(name="run")
@click.argument("source", metavar="DIRECTORY|MANIFEST.parquet")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder for the results.")
@server_options
@click.option(
    "--model",
    help="Model for the embedded server: models:/NAME@ALIAS, models:/NAME/VERSION or a folder. "
    " [default: the registry's champion, or its newest version]",
)
@click.option(
    "--explain",
    default="positive",
    show_default=True,
    help="Diseases to draw boxes for: positive, top:K, all, none, or a CSV file of labels.",
)
@read_options
@click.option(
    "--preset", type=click.Choice(list(PRESETS)), help="Box parameters.  [default: those of the model's spec]"
)
@click.option(
    "--write",
    "names",
    default="",
    help="What to write beside the tables, separated by commas: overlay, panel, panel-pdf (pictures); dicom-sr, gsps, "
    "secondary-capture, parametric-map (DICOM objects); coco, cvat, fhir, fiftyone, label-studio (documents); html "
    "(the report).  [default: none]",
)
@click.option(
    "--boxes",
    type=click.Path(path_type=Path),
    help="Ground truth in the layout of BBox_List_2017.csv, for panels and the report.  [default: none]",
)
@click.option(
    "--push",
    "archive",
    help="Archive for the DICOM objects: https://HOST/dicom-web, dicom://[AE_TITLE@]HOST:PORT or dicom-tls://...; "
    f"a bearer token is taken from {ARCHIVE_TOKEN_VARIABLE}.  [default: none]",
)
@click.option("--new", is_flag=True, help="Where --output holds another configuration, use OUTPUT-2, OUTPUT-3, ...")
@click.option("--retry-failed", is_flag=True, help="Try again the files that failed before, too.")
@click.option("--batch-size", type=int, help="Images a request.  [default: as many as the server takes]")
@engine_options
@click.option(
    "--wait",
    "wait_s",
    default=60.0,
    show_default=True,
    help="How long to ask again when no server answers, in seconds.",
)
@click.option("--watch", is_flag=True, help="Go on and score files as they arrive, until SIGTERM or SIGINT.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Progress and messages on standard error: a bar and text, or lines of JSON.",
)
@click.option(
    "--metrics-port", type=click.IntRange(1, 65535), help="Serve Prometheus' metrics at this port.  [default: none]"
)
@click.option("--metrics-host", default=METRICS_HOST, show_default=True, help="Address for --metrics-port.")
def run_command(
    source: str,
    output: Path,
    server: str | None,
    model: str | None,
    model_version: str | None,
    explain: str,
    preset: str | None,
    names: str,
    boxes: Path | None,
    archive: str | None,
    new: bool,
    retry_failed: bool,
    batch_size: int | None,
    in_flight: int | None,
    decoders: int | None,
    engine: Engine,
    ray_address: str | None,
    timeout_s: float,
    wait_s: float,
    watch: bool,
    log_format: LogFormat,
    metrics_port: int | None,
    metrics_host: str,
    credentials: Callable[[], Credentials],
    reading: Callable[[], ReadPolicy],
) -> None:
    """Score every DICOM, PNG and JPEG radiograph below DIRECTORY, or in a manifest that `index` made.

    Exit status: 0 all scored, 1 some files failed, 2 wrong usage, 3 the server is unreachable.
    """
    stop = _stop_at_signals() if watch else None
    with (
        exit_codes(lambda: _how_to_continue(output), partial(say, log_format=log_format)),
        metrics(metrics_port, metrics_host) as publish,
        display(log_format) as show,
    ):
        write = [name.strip() for name in names.split(",") if name.strip()]
        if archive is not None:
            check_destination(archive)
            if not parse_outputs(write).dicom:
                raise InputError("--push: expected DICOM objects in --write, found none")

        def progress(now: Progress) -> None:
            show(now)
            publish(now)

        summary = score_directory(
            source,
            output,
            server=server,
            model=model,
            model_version=model_version,
            explain=explain,
            preset=preset,
            write=write,
            boxes=boxes,
            new=new,
            retry_failed=retry_failed,
            batch_size=batch_size,
            in_flight=in_flight,
            decoders=decoders,
            engine=engine,
            ray_address=ray_address,
            timeout_s=timeout_s,
            wait_s=wait_s,
            credentials=credentials(),
            reading=reading(),
            watch=stop,
            progress=progress,
        )
        pushed = None if archive is None else _push(summary.output, archive, credentials())
    _print_summary(summary)
    if pushed is not None:
        click.echo(f"{pushed.sent} DICOM objects sent to {archive}, {pushed.earlier} earlier")
        for name, reason in pushed.refused.items():
            say(f"  refused: {name}: {reason}", log_format)
    if summary.counts.failed or (pushed is not None and pushed.refused):
        sys.exit(EXIT_FAILED)


def _push(output: Path, archive: str, credentials: Credentials) -> PushSummary:
    """Send what the run wrote; the token of the inference server is not for the archive."""
    files = sorted(file for kind in get_args(DicomObject) for file in (output / kind).glob("*.dcm"))
    ours = replace(credentials, token=os.environ.get(ARCHIVE_TOKEN_VARIABLE))
    return push(files, output, archive, credentials=ours)


def _stop_at_signals() -> threading.Event:
    """An event that the first SIGINT or SIGTERM sets; the second one interrupts as ever."""
    stop = threading.Event()
    interrupt, terminate = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def handler(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, terminate)

    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)
    return stop


def _how_to_continue(output: Path) -> str:
    return f"; {output} holds what was scored, and the same command continues" if (output / MANIFEST).exists() else ""


def _print_summary(summary: RunSummary) -> None:
    counts = summary.counts
    rate = summary.scored_now / summary.seconds if summary.seconds else 0.0
    click.echo(f"{counts.scored} scored, {counts.failed} failed, {counts.boxes} boxes in {summary.output}")
    click.echo(f"{summary.scored_now} files in {summary.seconds:.1f} s ({rate:.1f} a second)")
    spent = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in summary.stage_seconds.items())
    click.echo(f"seconds in each stage, side by side: {spent}")
    click.echo(f"model version {summary.model_version}, boxes by preset {summary.preset!r}")
    for disease, images in counts.positive.items():
        click.echo(f"  {disease:<20} {images:>6} images above the operating point")
    for warning, images in counts.warned.items():
        click.echo(f"  warning: {images} images: {warning}")
    if counts.failed:
        click.echo(f"why files failed: {summary.output / 'errors.jsonl'}")
    click.echo(RESEARCH_NOTICE)
