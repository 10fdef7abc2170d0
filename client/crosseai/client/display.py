"""How a run tells people and machines how far it is, on standard error."""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal, TypeAlias

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from crosseai.client.run import Progress

LINE_EVERY_S = 10.0

LogFormat: TypeAlias = Literal["text", "json"]
Show: TypeAlias = Callable[[Progress], None]


@contextmanager
def display(log_format: LogFormat) -> Iterator[Show]:
    """Show progress on standard error: a bar on a terminal, else a line now and then, as text or as JSON.

    As JSON, whatever is logged is a line of it, too, the messages of a server of our own among it.
    """
    bar = log_format == "text" and sys.stderr.isatty()
    with _json_log() if log_format == "json" else nullcontext(), _bar() if bar else _lines(log_format) as show:
        yield show


def say(message: str, log_format: LogFormat) -> None:
    """Say on standard error what has gone wrong."""
    if log_format == "json":
        record = logging.LogRecord(__name__, logging.ERROR, "", 0, "%s", (message,), None)
        message = _JsonFormatter().format(record)
    click.echo(message, err=True)


class _JsonFormatter(logging.Formatter):
    """A log record as one line of JSON, a traceback in its message."""

    def format(self, record: logging.LogRecord) -> str:
        event = {"event": "log", "time": round(record.created, 3), "level": record.levelname.lower()}
        return json.dumps({**event, "message": super().format(record)})


@contextmanager
def _json_log() -> Iterator[None]:
    """All log records of the process as JSON on standard error, ours from INFO on, and Python's warnings."""
    root, ours, handler = logging.getLogger(), logging.getLogger("crosseai"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    level = ours.level
    root.addHandler(handler)
    ours.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        ours.setLevel(level)
        root.removeHandler(handler)


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
    shown: Progress | None = None

    def echo(progress: Progress, done_before: int) -> None:
        rate = (progress.done - done_before) / (time.monotonic() - began)
        click.echo(_line(progress, rate, log_format), err=True)

    def show(progress: Progress) -> None:
        nonlocal shown_at, first, last, shown
        last, first = progress, progress.done if first is None else first
        if time.monotonic() - shown_at >= LINE_EVERY_S:
            shown_at, shown = time.monotonic(), progress
            echo(progress, first)

    try:
        yield show
    finally:
        if last is not None and first is not None and (shown is None or _state(last) != _state(shown)):
            echo(last, first)


def _state(progress: Progress) -> tuple[int, ...]:
    """What a line says but for the rate, which changes to the end."""
    return progress.done, progress.total, progress.failed, progress.servers_up, progress.servers


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
