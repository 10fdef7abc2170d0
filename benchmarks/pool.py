"""How does scoring scale over workers and servers, and what if some of them fail? Writes ``benchmarks/pool.md``.

    python -m benchmarks.pool     alone on the machine, about three minutes

Workers against stand-in servers of fixed latency (:mod:`benchmarks.stand_in`), so that this machine's own model is no
limit; then several real servers, of which one stands still or dies. Everything that is made lies in
``build/benchmarks``.
"""

import multiprocessing
import os
import platform
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import click
import psutil
import pyarrow.parquet as pq

from benchmarks.stand_in import stand_ins
from benchmarks.throughput import BATCH, CACHE, CORES, small_files, tiny_model
from crosseai.client import RunSummary, score_directory
from crosseai.client.run import Progress
from crosseai.client.servers import hedging
from crosseai.client.servers.pool import ServerPool
from crosseai.serve.embedded import EmbeddedTriton
from crosseai.serve.repository import place_version
from tests.integration.test_nothing_lost import write_images

TABLE = Path(__file__).with_suffix(".md")

WORKERS = (1, 2, 4, 8, 12, 16)
SERVERS, LATENCY_S, CAPACITY = 3, 1.0, 12
"""Stand-ins: enough for twelve workers that keep one request under way at each of them."""
SMALL_IMAGES = 480

FAULT_IMAGES, STANDSTILL_S = 2000, 5.0


@click.command()
def main() -> None:
    """Measure, and write the table."""
    texts = [heading("Many workers, many servers", "pool.py")]
    for part in (workers, faults):
        texts.append(part())
        click.echo(texts[-1])
    TABLE.write_text("\n\n".join(texts) + "\n")


def heading(title: str, script: str) -> str:
    """Title of a table, its date and its machine."""
    return (
        f"# {title}\n\n{datetime.now(UTC):%Y-%m-%d}, {CORES} cores, load average "
        f"{os.getloadavg()[0]:.1f} at the start, Python {platform.python_version()}. Made by `benchmarks/{script}`."
    )


def workers() -> str:
    """Whole runs side by side, each in a process of its own, against the same stand-ins."""
    rates, busy = {}, {}
    with stand_ins(SERVERS, repository(tiny_model()), latency_s=LATENCY_S, capacity=CAPACITY) as addresses:
        for count in WORKERS:
            psutil.cpu_percent()
            rates[count] = _rate_of_workers(count, addresses)
            busy[count] = psutil.cpu_percent() / 100 * CORES
    ceiling = SERVERS * CAPACITY * BATCH / LATENCY_S
    rows = [
        f"| {count} | {rate:.0f} | {rate / (count * rates[1]):.2f} | {rate / ceiling:.2f} | {busy[count]:.1f} |"
        for count, rate in rates.items()
    ]
    return (
        "## Workers against stand-in servers: a simulation\n\n"
        f"{SERVERS} stand-ins, real gRPC servers without a model, hold each request of {BATCH} images for "
        f"{LATENCY_S:g} s and answer {CAPACITY} at a time: {ceiling:.0f} images/s at most, reached by "
        f"{CAPACITY} workers. A worker is a whole run in a process of its own (read, hash, decode, request, write "
        f"tables) over {SMALL_IMAGES} small PNG files, with one request under way at each server.\n\n"
        "| workers | images/s | of linear | of what the servers can do | cores busy, stand-ins included |\n"
        "|---|---|---|---|---|\n" + "\n".join(rows)
    )


def _rate_of_workers(count: int, addresses: str) -> float:
    images = small_files(SMALL_IMAGES)
    processes = [
        multiprocessing.get_context("fork").Process(target=_work, args=(number, images, addresses))
        for number in range(count)
    ]
    began = time.monotonic()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise click.ClickException(f"a worker ended with status {process.exitcode}")
    return count * SMALL_IMAGES / (time.monotonic() - began)


def _work(number: int, images: Path, addresses: str) -> None:
    score(images, addresses, f"worker-{number}", in_flight=1, decoders=2, batch_size=BATCH)


def faults() -> str:
    """Three real servers; one stands still, one dies."""
    images, folder = write_images(CACHE / "pool" / "images", FAULT_IMAGES), repository(tiny_model())
    config = folder / "crosseai" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 8", "max_batch_size: 2"))
    rows, undisturbed = [], None
    for name, disturbance, budget in (
        ("none", None, hedging.BUDGET),
        ("one stands still", _stand_still, hedging.BUDGET),
        ("one stands still, no request is sent again", _stand_still, 0.0),
        ("one dies", _die, hedging.BUDGET),
        ("one stands still, one dies", _stand_still_and_die, hedging.BUDGET),
    ):
        with patch.object(hedging, "BUDGET", budget), _servers(folder) as servers:
            run = _disturbed(images, servers, disturbance)
        undisturbed = undisturbed or run.rows
        rows.append(
            f"| {name} | {run.seconds:.1f} | {run.longest_s:.1f} | {run.hedges} of {run.requests} | {run.scored} "
            f"| {'yes' if run.rows == undisturbed else 'no'} |"
        )
    return (
        "## Three real servers and their misfortunes\n\n"
        f"A run over {FAULT_IMAGES} small PNG files, a tiny model that takes 2 images a request. After a quarter of "
        f"them, the model process of one server is stopped for {STANDSTILL_S:g} s (SIGSTOP), or one server is killed "
        "(SIGKILL).\n\n"
        "| misfortune | seconds | longest time without progress, s | requests sent again | images scored "
        "| the same rows |\n|---|---|---|---|---|---|\n" + "\n".join(rows)
    )


@dataclass(frozen=True, slots=True)
class DisturbedRun:
    """What became of a run."""

    seconds: float
    longest_s: float
    hedges: int
    requests: int
    scored: int
    rows: list[dict]


def _disturbed(
    images: Path, servers: Sequence[EmbeddedTriton], disturbance: Callable[[Sequence[EmbeddedTriton]], None] | None
) -> DisturbedRun:
    pools, connect = [], ServerPool.connect
    moments, disturbers = [(time.monotonic(), 0)], []

    async def remember(*arguments: object, **options: object) -> ServerPool:
        pools.append(await connect(*arguments, **options))
        return pools[-1]

    def progress(now: Progress) -> None:
        if now.done > moments[-1][1]:
            moments.append((time.monotonic(), now.done))
        if disturbance and not disturbers and now.done >= now.total / 4:
            disturbers.append(threading.Thread(target=disturbance, args=(servers,)))
            disturbers[0].start()

    with patch.object(ServerPool, "connect", remember):
        addresses = ",".join(server.grpc_url for server in servers)
        summary = score(images, addresses, "faults", explain="top:1", progress=progress)
    for disturber in disturbers:
        disturber.join()
    longest_s = max(after - before for (before, _), (after, _) in pairwise(moments))
    counts = pools[0].hedging
    rows = pq.read_table(summary.output / "predictions.parquet").to_pylist()
    return DisturbedRun(summary.seconds, longest_s, counts.hedges, counts.requests, summary.counts.scored, rows)


def _stand_still(servers: Sequence[EmbeddedTriton]) -> None:
    (model,) = (p for p in triton_process(servers[0]).children() if "stub" in p.name())
    model.suspend()
    time.sleep(STANDSTILL_S)
    model.resume()


def _die(servers: Sequence[EmbeddedTriton]) -> None:
    triton_process(servers[-1]).kill()


def _stand_still_and_die(servers: Sequence[EmbeddedTriton]) -> None:
    _die(servers)
    _stand_still(servers)


def triton_process(server: EmbeddedTriton) -> psutil.Process:
    """The server itself, without its guardian and its model processes."""
    (process,) = (p for p in psutil.Process(server.pid).children() if p.name() == "tritonserver")
    return process


@contextmanager
def _servers(folder: Path) -> Iterator[list[EmbeddedTriton]]:
    with ExitStack() as running:
        yield [running.enter_context(EmbeddedTriton(folder)) for _ in range(SERVERS)]


def score(images: Path, addresses: str, name: str, *, explain: str = "none", **options: object) -> RunSummary:
    """A run into a fresh folder."""
    output = CACHE / "pool" / name
    shutil.rmtree(output, ignore_errors=True)
    return score_directory(images, output, server=addresses, explain=explain, **options)


def repository(model: Path) -> Path:
    """Model repository with one model."""
    folder = CACHE / f"pool-repository-{model.name}"
    shutil.rmtree(folder, ignore_errors=True)
    place_version(folder, model, 1)
    return folder


if __name__ == "__main__":
    main()
