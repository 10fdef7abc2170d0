"""What does a million images cost, and how many cores does a GPU need? Writes ``benchmarks/cost.md``.

    python -m benchmarks.cost     alone on the machine, about two minutes

Costs of each stage are measured, a model is made of them, and its predictions are compared with whole runs on this
machine. The time of a GPU is a parameter. Everything that is made lies in ``build/benchmarks``.
"""

import asyncio
import resource
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np

from benchmarks.pool import heading, repository, score, triton_process
from benchmarks.stand_in import stand_ins
from benchmarks.throughput import BATCH, CACHE, CORES, phantoms, resnet50
from crosseai.client.inference import MAPS
from crosseai.client.servers.transport import TritonTransport
from crosseai.imaging import preprocess, read_radiograph
from crosseai.serve.embedded import EmbeddedTriton

TABLE = Path(__file__).with_suffix(".md")
ANSWERS = CACHE / "pool" / "answers.npz"
GPU_MS = (1, 2, 5, 10, 20)
CORE_HOUR, GPU_HOUR = 0.05, 3.0
"""Example prices."""


@click.command()
def main() -> None:
    """Measure, and write the table."""
    text = f"{heading('Cost of a million images', 'cost.py')}\n\n{cost()}\n"
    click.echo(text)
    TABLE.write_text(text)


@dataclass(frozen=True, slots=True)
class ClientCost:
    """What an image costs a client, in seconds of one core.

    Parameters
    ----------
    stages
        Decoding, boxes and writing, in threads that were alone on their core.
    cpu_s
        All CPU time of the process.
    """

    stages: dict[str, float]
    cpu_s: float


def cost() -> str:
    """What an image costs; predictions from that against runs; a million images."""
    with EmbeddedTriton(repository(resnet50())) as server:
        asyncio.run(record_answers(server))
    client_cost("top:1")  # warms up
    costs = {explain: client_cost(explain) for explain in ("none", "top:1")}
    stages = [
        f"| {explain} | "
        + " | ".join(f"{1000 * seconds:.2f}" for seconds in cost.stages.values())
        + f" | {1000 * (cost.cpu_s - sum(cost.stages.values())):.2f} | {1000 * cost.cpu_s:.2f} |"
        for explain, cost in costs.items()
    ]
    return (
        "## What an image costs: PNG of 1024 x 1024\n\n"
        "CPU time of the client, ms an image, one file decoded and one request under way at a time; the server is a "
        "stand-in that answers at once what a ResNet-50 answered:\n\n"
        "| explain | decode | boxes | write | requests, tables, all else | in all |\n|---|---|---|---|---|---|\n"
        + "\n".join(stages)
        + "\n\n### The model\n\n"
        "With `c` seconds of a core in the client and `g` seconds of a GPU for each image, `W` client cores and `S` "
        "servers score `min(W / c, S / g)` images a second; where client and server share cores and `g` is CPU time, "
        "too, `W / (c + g)`. Predicted from the costs above against whole runs on all cores (a busy machine lowers "
        "the rates, not the CPU time):\n\n"
        "| run | c, ms | g, ms | CPU an image, predicted, ms | measured | ratio | images/s, predicted | measured "
        "| ratio |\n"
        "|---|---|---|---|---|---|---|---|---|\n" + "\n".join(checks(costs)) + "\n\n### A million images\n\n"
        f"Explaining one disease of each (c = {1000 * costs['top:1'].cpu_s:.1f} ms), at example prices of "
        f"{CORE_HOUR:g} a core hour and {GPU_HOUR:g} a GPU hour:\n\n"
        "| g, ms | core hours | GPU hours | cores that keep one GPU busy | hours with one GPU | price, cores | "
        "price, GPU |\n|---|---|---|---|---|---|---|\n"
        + "\n".join(_million(costs["top:1"].cpu_s, gpu_ms / 1000) for gpu_ms in GPU_MS)
    )


async def record_answers(server: EmbeddedTriton) -> None:
    """Keep what a server answers to one batch, for the stand-ins."""
    transport = TritonTransport(server.grpc_url)
    model = await transport.describe()
    files = sorted(phantoms(64).iterdir())[:BATCH]
    images = np.stack([preprocess(read_radiograph(file), model.spec) for file in files])
    tensors = await transport.infer(model, images, np.full((BATCH, 1), -1), ["logits", *MAPS])
    await transport.close()
    ANSWERS.parent.mkdir(parents=True, exist_ok=True)
    np.savez(ANSWERS, **tensors)


def client_cost(explain: str, count: int = 64) -> ClientCost:
    """Measured against a stand-in that answers at once."""
    images = phantoms(count)
    with stand_ins(1, repository(resnet50()), latency_s=0, capacity=1, answers=ANSWERS) as address:
        before = _cpu_s()
        summary = score(images, address, "cost", explain=explain, in_flight=1, decoders=1, batch_size=BATCH)
        cpu_s = (_cpu_s() - before) / count
    return ClientCost({stage: summary.stage_seconds[stage] / count for stage in ("decode", "boxes", "write")}, cpu_s)


def checks(costs: dict[str, ClientCost]) -> list[str]:
    """Predicted and measured rates, with stand-ins on either side of the client's limit and with a real network."""
    rows, images = [], phantoms(400)
    for gpu_s in (0.020, 0.001):
        with stand_ins(1, repository(resnet50()), latency_s=gpu_s * BATCH, capacity=1) as address:
            run = _measured(images, address, "none")
        predicted = Measured(min(CORES / costs["none"].cpu_s, 1 / gpu_s), costs["none"].cpu_s)
        rows.append(_check(f"stand-in of {1000 * gpu_s:g} ms an image", costs["none"], gpu_s, predicted, run))
    with EmbeddedTriton(repository(resnet50())) as server:
        for explain, few in (("none", 128), ("top:1", 64)):
            server_s = _server_cost(server, explain)
            cpu_s = costs[explain].cpu_s + server_s
            before = _cpu_s_of(server)
            run = _measured(phantoms(few), server.grpc_url, explain)
            run = replace(run, cpu_s=run.cpu_s + (_cpu_s_of(server) - before) / few)
            name = f"ResNet-50 on the same cores, explain {explain}"
            rows.append(_check(name, costs[explain], server_s, Measured(CORES / cpu_s, cpu_s), run))
    return rows


@dataclass(frozen=True, slots=True)
class Measured:
    """A run: images a second, and CPU seconds an image."""

    rate: float
    cpu_s: float


def _measured(images: Path, address: str, explain: str) -> Measured:
    """A whole run as it is by default; the CPU time is that of the client."""
    before = _cpu_s()
    summary = score(images, address, "cost", explain=explain, batch_size=BATCH)
    return Measured(summary.scored_now / summary.seconds, (_cpu_s() - before) / summary.scored_now)


def _check(name: str, cost: ClientCost, server_s: float, predicted: Measured, run: Measured) -> str:
    return (
        f"| {name} | {1000 * cost.cpu_s:.1f} | {1000 * server_s:.1f} "
        f"| {1000 * predicted.cpu_s:.1f} | {1000 * run.cpu_s:.1f} | {run.cpu_s / predicted.cpu_s:.2f} "
        f"| {predicted.rate:.1f} | {run.rate:.1f} | {run.rate / predicted.rate:.2f} |"
    )


def _server_cost(server: EmbeddedTriton, explain: str, count: int = 32) -> float:
    """CPU seconds that a server spends on an image, in a run of its own after one that warms it up."""
    for _ in range(2):
        before = _cpu_s_of(server)
        score(phantoms(count), server.grpc_url, "cost", explain=explain, in_flight=1, decoders=1, batch_size=BATCH)
    return (_cpu_s_of(server) - before) / count


def _million(client_s: float, gpu_s: float) -> str:
    core_hours, gpu_hours = 1e6 * client_s / 3600, 1e6 * gpu_s / 3600
    return (
        f"| {1000 * gpu_s:g} | {core_hours:.1f} | {gpu_hours:.1f} | {client_s / gpu_s:.1f} | {gpu_hours:.1f} "
        f"| {CORE_HOUR * core_hours:.2f} | {GPU_HOUR * gpu_hours:.2f} |"
    )


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _cpu_s_of(server: EmbeddedTriton) -> float:
    """CPU seconds of a server and its model processes."""
    processes = [triton_process(server), *triton_process(server).children()]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


if __name__ == "__main__":
    main()
