"""What does shared memory save with a server on this machine? Writes ``benchmarks/shared_memory.md``.

    python -m benchmarks.shared_memory     alone on the machine, about five minutes

Requests alone, and whole runs, each with shared memory and without, in turns. CPU time is that of all threads of the
client and of the server's processes.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import click
import numpy as np
import psutil

from benchmarks.throughput import CORES, IN_FLIGHT, phantoms, resnet50, score, server, small_files, tiny_model
from crosseai.client.memory import keep_freed_memory
from crosseai.client.servers import transport
from crosseai.client.servers.transport import TritonTransport

TABLE = Path(__file__).with_suffix(".md")
ROUNDS = 3
BATCHES = (1, 8, 32)
REQUESTED = 4096
"""Images, where requests alone are measured."""

EXPLAIN = ("none", "top:1")
OUTPUTS = {"none": ["logits"], "top:1": ["logits", "explained", "heatmaps", "gradient_maps"]}


class Cost(NamedTuple):
    """Images a second, and milliseconds of CPU time an image."""

    rate: float
    client_ms: float
    server_ms: float


@click.command()
def main() -> None:
    """Measure, and write the table."""
    keep_freed_memory()  # as crosseai-client does
    load = os.getloadavg()[0]
    TABLE.write_text(
        f"# Shared memory with a local server\n\n{datetime.now(UTC):%Y-%m-%d}, {CORES} cores for client and server "
        f"together, load average {load:.1f} at the start. Made by `benchmarks/shared_memory.py`.\n\n"
        f"Each figure is the median of {ROUNDS} rounds: with shared memory, and in brackets without.\n\n"
        f"{requests()}\n\n{runs()}\n"
    )
    click.echo(TABLE.read_text())


def requests() -> str:
    """Nothing but requests for a model that costs nothing."""
    with server(tiny_model(), max_batch_size=max(BATCHES)) as address:
        rows = [
            _row(f"{explain} | {batch}", partial(_requests, address, explain, batch))
            for explain in EXPLAIN
            for batch in BATCHES
        ]
    return _table(f"Requests alone: a tiny model, {IN_FLIGHT} requests under way", "explain | images a request", rows)


def runs() -> str:
    """Whole runs, where the client has the most work and where the server has."""
    rows = []
    for name, model, images in (("tiny", tiny_model(), small_files(4000)), ("ResNet-50", resnet50(), phantoms(32))):
        with server(model) as address:
            rows += [_row(f"{name} | {explain}", partial(_run, images, address, explain)) for explain in EXPLAIN]
    what = "Whole runs, 8 images a request: tiny with 4,000 PNG files of 64 x 64, ResNet-50 with 32 of 1024 x 1024"
    return _table(what, "model | explain", rows)


def _table(title: str, columns: str, rows: list[str]) -> str:
    head = f"| {columns} | images/s | client, ms of CPU time an image | server, the same |\n|---|---|---|---|---|\n"
    return f"## {title}\n\n{head}" + "\n".join(rows)


def _row(name: str, measure: Callable[[], Cost]) -> str:
    """One row of a table; both ways take turns, after a round that warms up."""
    measure()
    shared, plain = [], []
    for _ in range(ROUNDS):
        shared.append(measure())
        with patch.object(transport, "is_loopback", return_value=False):
            plain.append(measure())
    a, b = (Cost(*np.median(costs, axis=0)) for costs in (shared, plain))
    return (
        f"| {name} | {a.rate:.4g} ({b.rate:.4g}) | {a.client_ms:.3g} ({b.client_ms:.3g}) "
        f"| {a.server_ms:.3g} ({b.server_ms:.3g}) |"
    )


@contextmanager
def _costs(images: int) -> Iterator[list[Cost]]:
    """What the context costs."""
    costs: list[Cost] = []
    client, theirs, began = time.process_time(), _children_s(), time.monotonic()
    yield costs
    seconds = time.monotonic() - began
    client_s, server_s = time.process_time() - client, _children_s() - theirs
    costs.append(Cost(images / seconds, 1000 * client_s / images, 1000 * server_s / images))


def _children_s() -> float:
    """CPU time of the server's processes."""
    times = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    return sum(t.user + t.system for t in times)


def _requests(address: str, explain: str, batch: int) -> Cost:
    """Requests as fast as they are answered."""

    async def run() -> Cost:
        connection = TritonTransport(address)
        model = await connection.describe()
        side = model.spec.input_size
        pixels = np.random.default_rng(0).integers(0, 256, (batch, 1, side, side), np.uint8)
        waiting = iter(range(REQUESTED // batch))

        async def ask() -> None:
            for _ in waiting:
                await connection.infer(model, pixels, np.full((batch, 1), -1), OUTPUTS[explain])

        with _costs(REQUESTED) as costs:
            await asyncio.gather(*(ask() for _ in range(IN_FLIGHT)))
        await connection.close()
        return costs[0]

    return asyncio.run(run())


def _run(images: Path, address: str, explain: str) -> Cost:
    """A run with its tables."""
    count = sum(1 for file in images.rglob("*.png"))
    with _costs(count) as costs:
        score(images, address, explain, IN_FLIGHT)
    return costs[0]


if __name__ == "__main__":
    main()
