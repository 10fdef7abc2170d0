"""How a run tells people and machines how far it is: on standard error, and over HTTP."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, TypeAlias

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from crosseai.client.run import Progress
from crosseai.contract import InputError

LINE_EVERY_S = 10.0
METRICS_HOST = "127.0.0.1"

LogFormat: TypeAlias = Literal["text", "json"]
Show: TypeAlias = Callable[[Progress], None]


@contextmanager
def display(log_format: LogFormat) -> Iterator[Show]:
    """Show progress on standard error: a bar on a terminal, else a line now and then, as text or as JSON."""
    with _bar() if log_format == "text" and sys.stderr.isatty() else _lines(log_format) as show:
        yield show


@contextmanager
def metrics(port: int | None) -> Iterator[Show]:
    """Serve progress to Prometheus at ``http://127.0.0.1:PORT/metrics``; nothing without a port.

    Raises
    ------
    InputError
        If the port is taken.
    """
    if port is None:
        yield lambda _: None
        return
    latest = Progress(0, 0, 0, 0, 0, {})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/metrics"
            body = _exposition(latest).encode() if found else b"see /metrics\n"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
            """Say nothing: standard error is for progress."""

    def show(progress: Progress) -> None:
        nonlocal latest
        latest = progress

    try:
        server = ThreadingHTTPServer((METRICS_HOST, port), Handler)
    except OSError as error:
        raise InputError(f"--metrics-port {port}: cannot be listened on: {error.strerror}") from error
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield show
        finally:
            server.shutdown()


@contextmanager
def _bar() -> Iterator[Show]:
    columns = (
        TextColumn("scoring"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(show_speed=True),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]} failed, {task.fields[servers]}"),
    )
    with ProgressBar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("scoring", total=None, failed=0, servers="")
        yield lambda p: bar.update(
            task, completed=p.done, total=p.total, failed=p.failed, servers=_servers(p.servers_up, p.servers)
        )


@contextmanager
def _lines(log_format: LogFormat) -> Iterator[Show]:
    began = shown_at = time.monotonic()
    first: int | None = None
    last: Progress | None = None

    def echo(progress: Progress, done_before: int) -> None:
        rate = (progress.done - done_before) / (time.monotonic() - began)
        click.echo(_line(progress, rate, log_format), err=True)

    def show(progress: Progress) -> None:
        nonlocal shown_at, first, last
        last, first = progress, progress.done if first is None else first
        if time.monotonic() - shown_at >= LINE_EVERY_S:
            shown_at = time.monotonic()
            echo(progress, first)

    try:
        yield show
    finally:
        if last is not None and first is not None:
            echo(last, first)


def _servers(up: int, count: int) -> str:
    if count == 1:
        return "server up" if up else "waiting for the server"
    return f"{up} of {count} servers up"


def _line(progress: Progress, rate: float, log_format: LogFormat) -> str:
    left_s = (progress.total - progress.done) / rate if rate else None
    if log_format == "json":
        return json.dumps(
            {
                "event": "progress",
                "time": round(time.time(), 3),
                "done": progress.done,
                "total": progress.total,
                "failed": progress.failed,
                "images_per_s": round(rate, 2),
                "left_s": None if left_s is None else round(left_s, 1),
                "servers_up": progress.servers_up,
                "servers": progress.servers,
            }
        )
    left = "" if left_s is None else f", {left_s:.0f} s left"
    return (
        f"{progress.done} of {progress.total} files, {progress.failed} failed, {rate:.1f} a second{left}, "
        f"{_servers(progress.servers_up, progress.servers)}"
    )


def _exposition(progress: Progress) -> str:
    """Prometheus' text format, version 0.0.4."""
    gauges = {
        "files": ("Files found.", progress.total),
        "files_done": ("Files with an outcome, those of earlier runs included.", progress.done),
        "files_failed": ("Files that failed in this run.", progress.failed),
        "servers": ("Servers.", progress.servers),
        "servers_up": ("Servers that answered last time.", progress.servers_up),
    }
    lines = []
    for name, (meaning, value) in gauges.items():
        lines += [f"# HELP crosseai_{name} {meaning}", f"# TYPE crosseai_{name} gauge", f"crosseai_{name} {value}"]
    lines += [
        "# HELP crosseai_stage_seconds_total Time spent in a stage, summed over what runs side by side.",
        "# TYPE crosseai_stage_seconds_total counter",
    ]
    lines += [
        f'crosseai_stage_seconds_total{{stage="{stage}"}} {seconds:.6f}'
        for stage, seconds in sorted(progress.stage_seconds.items())
    ]
    return "\n".join(lines) + "\n"
