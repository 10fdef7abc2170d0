"""What explanations cost beside classification: the combined graph in ONNX Runtime on this machine's CPU.

    OMP_NUM_THREADS=2 python -m benchmarks.graph --output benchmarks/graph.md

What is compared runs in turn, round by round, and a ratio is the median over rounds of the ratio within each: so a busy
machine slows both sides alike. First forward and maps, the same number of images for each size of a batch; then, for
the ratios to it, eager PyTorch and maps once more. ``maps`` is what the client asks for: logits, explained classes,
heat maps and gradient maps. ``forward`` is the same file cut down to its logits. Both run as in the embedded server: a
batch that keeps all threads busy image by image, one on each thread; a smaller one as a whole.
"""

import datetime as dt
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import nn

from benchmarks.eager import HandBatched, OneClassAtATime
from crosseai.contract import ModelSpec
from crosseai.export import export_onnx, prune
from crosseai.export.verify import sample_images
from crosseai.serve.environment import KERNELS
from crosseai.training import build_model
from triton_models.backends.onnxruntime.cpu.runner import Runner, compiled, optimised, session_options

BATCHES = (1, 8)
EXPLAINED = (1, 3, 8)
EAGER = (1, 3)
"""Numbers of classes that eager PyTorch explains, too."""

OUTPUT_CHOICES = {
    "logits": ("logits",),
    "heat maps": ("logits", "explained", "heatmaps"),
    "maps": ("logits", "explained", "heatmaps", "gradient_maps"),
    "raw input gradients": ("logits", "explained", "heatmaps", "input_gradients"),
    "everything raw": ("logits", "explained", "activations", "activation_gradients", "input_gradients"),
}

RUN = """
import pathlib, re, sys, numpy
from crosseai.serve.environment import KERNELS
from triton_models.backends.onnxruntime.cpu.runner import Runner
folder, threads, *outputs = sys.argv[1:]
runner = Runner(pathlib.Path(folder, "model.onnx"), int(threads), batched=True, kernels=KERNELS)
runner.run(outputs, dict(numpy.load(pathlib.Path(folder, "feeds.npz"))))
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""

TRIED = """\
K = 3, one image on one thread:

- The convolutions of the reverse pass are at their bound: each class costs as many operations as the forward pass,
  and they run at the same speed, so that they take 0.9 to 1.1 x (1 + K) x forward. What remains is memory traffic:
  a ReLU's mask is compared and applied, strides and pooling are undone, and triplet attention makes about eight passes
  over each map for each class, and three to find its maxima. The forward pass has its ReLUs and additions inside its
  convolutions.
- The graph is run in the layout of the convolutions (`cpu/blocked.py`): channels in blocks of 8 or 16. ONNX Runtime
  itself leaves that layout for every operator that it has no blocked kernel for, and converts each map of the reverse
  pass twice. Kept in it, additions and ReLUs are done by the convolutions, interleaving copies 16 numbers at a time
  instead of one, and at 14 x 14 a product with what is the same in all rows is three times as fast. Told that both
  have the same shape, convolutions, masks and scatters work in place. The tables "In the layout of the convolutions"
  say what it saves. Classification with triplet attention profits, too, which the ratio to it hides.
- What ONNX Runtime does in two passes, on one thread, or a number at a time is done by operators of our own
  (`triton_models/kernels`): masks (its cast has one thread; ours take 2 to 4 % of an explanation), comparisons, places
  of maxima (three to five times as fast), strided slices, zeros between pixels and concatenation (on all threads), one
  number for each row of a map gathered and scattered in blocked layout.
- A batch is spread: each image on one thread, several at a time. Operators on all threads wait for each other, and
  eight images with three classes each are far beyond the caches. A single image is computed on all threads, for the
  sake of its latency, and pays that price: what one thread has just written the other has to fetch.
- Kept: classes outermost, so that a mask is one span to broadcast (products twice as fast at N = 8); masks compared as
  soon as the map is there, of which then a quarter is kept; a pooling window taken along its rows, then its column
  (six taps for nine), each tap a phase of the map; the first maximum by a chain of comparisons instead of an arg-max
  over stacked windows (half the time); the gradient of a maximum along a dimension scattered to its place instead of
  multiplied by a mask and added; rows and columns of attention's gates reordered by ONNX Runtime's own operator
  instead of its general transposition (five to eight times as fast on two threads, and a network has a hundred); one
  convolution a phase instead of `ConvTranspose`, except for the stem (3-10x slower there); zeros between pixels by one
  `Pad` (a third faster than one for each axis); the guided rule before the mask, where it goes into the convolution
  before it; no product of a number and a tensor whose last dimension is 1 (5x).
- Left: comparisons (1 to 2 %; they would have to be made inside the convolutions), the stem's
  `ConvTranspose` on one thread (1 to 2 %), a copy of the map for its maxima along the channels.
- Not done: masks as penalties (0 or -1e20) that the convolution adds, which must be repeated for each class.
- Tried and left: one graph for each K with all sizes known (equal); masks as `HardSigmoid` of the map (equal), or the
  lesser of gradient and map with gradients scaled below any activation (1 %); huge pages (equal); `OneHot` for masks
  of maxima, `Sum` for several additions (slower); one sub-pixel convolution with zero taps; `DepthToSpace`, `Gather`
  or a permutation matrix to interleave; 1x1 convolutions as `MatMul`; OpenVINO 2026.4 in place of ONNX Runtime (the
  forward pass equal, maps 6-18 % slower than before); other spinning of ONNX Runtime's threads, and smaller blocks of
  work for them (equal); chains of reshapes made one (equal)."""

Feeds = dict[str, npt.NDArray[Any]]
Cases = Mapping[str, Callable[[], object]]


def calibrated(*, triplet_attention: bool, size: int) -> nn.Module:
    """A ResNet-50 of random weights whose batch norms have seen images, so that activations are of usual size."""
    torch.manual_seed(0)
    model = build_model("resnet50", triplet_attention=triplet_attention)
    for name, parameter in model.named_parameters():
        if name.endswith("bn3.weight"):
            nn.init.constant_(parameter, 0.4)
    with torch.no_grad():
        model((torch.from_numpy(sample_images(size, 8)).float() / 255 - 0.449) / 0.226)
    return model.eval()


def profiled_session(model: onnx.ModelProto, folder: Path) -> onnxruntime.InferenceSession:
    """A session of one thread that writes down what each operator takes."""
    options = session_options(1)
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    return compiled(model, optimised(model, folder, 1)[1], options, KERNELS)


def feeds_of(spec: ModelSpec, batch: int, explained: int) -> Feeds:
    """A batch of different images, the same classes for each."""
    return {"image": sample_images(spec.input_size, batch), "targets": np.tile(np.arange(explained), (batch, 1))}


def times_ms(cases: Cases, rounds: int) -> dict[str, list[float]]:
    """Wall times of each case over interleaved rounds, after one that warms up."""
    times = defaultdict(list)
    for i in range(rounds + 1):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            if i:
                times[name].append((time.perf_counter() - start) * 1e3)
    return times


def ratio(times: Mapping[str, list[float]], numerator: str, denominator: str) -> float:
    """Median over rounds of the ratio within each."""
    return statistics.median(a / b for a, b in zip(times[numerator], times[denominator], strict=True))


def cost_rows(file: Path, model: nn.Module, spec: ModelSpec, threads: int, rounds: int) -> list[str]:
    """One row for each batch size and number of explained classes."""
    runner = Runner(file, threads, batched=True, kernels=KERNELS)
    by_hand, one_at_a_time = HandBatched(model, spec), OneClassAtATime(model, spec)
    table = []
    for batch in BATCHES:
        for explained in EXPLAINED:
            feeds = feeds_of(spec, batch, explained)
            cases = {
                "forward": lambda feeds=feeds: runner.run(OUTPUT_CHOICES["logits"], feeds),
                "maps": lambda feeds=feeds: runner.run(OUTPUT_CHOICES["maps"], feeds),
                "by hand": lambda feeds=feeds: by_hand.explain(feeds["image"], feeds["targets"]),
                "one at a time": lambda feeds=feeds: one_at_a_time.explain(feeds["image"], feeds["targets"]),
            }
            fast = times_ms({name: cases[name] for name in ("forward", "maps")}, 3 * rounds * max(BATCHES) // batch)
            cells = [batch, explained, *(f"{statistics.median(fast[name]):.0f}" for name in fast)]
            cells += [f"{ratio(fast, 'maps', 'forward') / (1 + explained):.2f}"]
            if explained in EAGER:
                slow = times_ms({name: cases[name] for name in ("maps", "by hand", "one at a time")}, 3 * rounds)
                for name in ("by hand", "one at a time"):
                    cells += [f"{statistics.median(slow[name]):.0f}", f"{ratio(slow, name, 'maps'):.1f}"]
            table.append(row(cells))
            click.echo(table[-1], err=True)
    return table


def profile_rows(graph: onnx.ModelProto, spec: ModelSpec, explained: int) -> list[str]:
    """Time by operator of one image on one thread, forward and with maps: for each node the least of five runs."""
    totals: list[dict[str, float]] = []
    for names in (OUTPUT_CHOICES["logits"], OUTPUT_CHOICES["maps"]):
        with tempfile.TemporaryDirectory() as folder:
            profiled = profiled_session(prune(graph, names), Path(folder))
            for _ in range(5):
                profiled.run(None, feeds_of(spec, 1, explained))
            events = json.loads(Path(profiled.end_profiling()).read_text())
        least: dict[tuple[str, str], float] = {}
        for event in events:
            if event["name"].endswith("_kernel_time"):
                key = event["args"]["op_name"], event["name"]
                least[key] = min(least.get(key, float("inf")), event["dur"] / 1e3)
        total: dict[str, float] = defaultdict(float)
        for (operator, _), duration in least.items():
            total[operator] += duration
        totals.append(total)
    forward, maps = totals
    largest = sorted(maps, key=lambda name: -maps[name])[:14]
    cells = [[name, f"{forward.get(name, 0):.1f}", f"{maps[name]:.1f}"] for name in largest]
    cells.append(["all", *(f"{sum(total.values()):.1f}" for total in totals)])
    return [row(line) for line in cells]


def layout_rows(graph: onnx.ModelProto, spec: ModelSpec, rounds: int) -> list[str]:
    """One image on one thread: as ONNX Runtime optimises the graph, and kept in the layout of the convolutions."""
    table = []
    for outputs, explained in (("logits", 1), ("maps", 1), ("maps", 3)):
        pruned, feeds = prune(graph, OUTPUT_CHOICES[outputs]), feeds_of(spec, 1, explained)
        with tempfile.TemporaryDirectory() as folder:
            own, file = optimised(pruned, Path(folder), 1)
            kept = compiled(pruned, file, session_options(1), KERNELS)
        cases = {"own": partial(own.run, None, feeds), "kept": partial(kept.run, None, feeds)}
        times = times_ms(cases, rounds)
        milliseconds = (f"{statistics.median(times[name]):.0f}" for name in ("own", "kept"))
        table.append(row([outputs, explained, *milliseconds, f"{ratio(times, 'kept', 'own'):.2f}"]))
    return table


def peak_memory_mb(model: onnx.ModelProto, feeds: Feeds, outputs: Iterable[str], threads: int) -> float:
    """Peak resident memory of a process that loads a graph and runs it."""
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, Path(folder) / "model.onnx")
        np.savez(Path(folder) / "feeds.npz", **feeds)
        command = [sys.executable, "-c", RUN, folder, str(threads), *outputs]
        finished = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(finished.stdout) / 1e3


def size_rows(graph: onnx.ModelProto, spec: ModelSpec, threads: int) -> list[str]:
    """File size, and memory at run time, of the forward pass and of the whole."""
    table = []
    for name in ("logits", "maps"):
        outputs = OUTPUT_CHOICES[name]
        pruned = prune(graph, outputs)
        peaks = [peak_memory_mb(pruned, feeds_of(spec, *size), outputs, threads) for size in ((1, 1), (8, 3))]
        table.append(row([name, f"{pruned.ByteSize() / 1e6:.1f}", *(f"{peak:.0f}" for peak in peaks)]))
    return table


def wire_rows(spec: ModelSpec) -> list[str]:
    """Bytes an image takes in an answer, for each choice of outputs."""
    table = []
    for choice, names in OUTPUT_CHOICES.items():
        cells: list[str] = []
        for explained in EXPLAINED:
            sizes = {"N": 1, "K": explained}
            chosen = [tensor for tensor in spec.outputs if tensor.name in names]
            count = sum(
                math.prod(sizes.get(size, size) for size in tensor.shape) * np.dtype(tensor.dtype).itemsize
                for tensor in chosen
            )
            cells.append(f"{count:,}")
        table.append(row([choice, ", ".join(f"`{name}`" for name in names), *cells]))
    return table


def row(cells: list[Any]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def table(header: list[str], rows: list[str]) -> list[str]:
    """A Markdown table, numbers to the right."""
    return ["", row(header), row(["---:"] * len(header)), *rows]


def processor() -> str:
    """Model name of the CPU."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


@click.command()
@click.option("--output", type=click.Path(path_type=Path), help="Markdown file to write; else to stdout.")
@click.option("--models", type=click.Path(path_type=Path), help="Folder that keeps the exported files.")
@click.option("--threads", default=2, show_default=True)
@click.option("--rounds", default=3, show_default=True)
def main(output: Path | None, models: Path | None, threads: int, rounds: int) -> None:
    """Compare the combined graph with forward only and with eager PyTorch."""
    torch.set_num_threads(threads)
    spec = ModelSpec()
    lines = [
        "# Cost of explanations",
        "",
        f"{dt.date.today()}, {processor()}, {os.cpu_count()} cores, {threads} threads, ONNX Runtime "
        f"{onnxruntime.__version__}, torch {torch.__version__}. ResNet-50 of random weights, {spec.input_size} px, "
        "fp32; times in ms. `python -m benchmarks.graph` writes this file and says what each column is.",
    ]
    models = models or Path(tempfile.mkdtemp(prefix="crosseai-bench-"))
    models.mkdir(parents=True, exist_ok=True)
    for name, triplet_attention in (("plain", False), ("triplet attention", True)):
        model = calibrated(triplet_attention=triplet_attention, size=spec.input_size)
        path = models / f"{name.replace(' ', '_')}.onnx"
        if not path.exists():
            export_onnx(model, spec, path)
        graph = onnx.load(path)
        header = ["N", "K", "forward", "maps", "maps / ((1 + K) forward)"]
        header += ["by hand", "by hand / maps", "one at a time", "one at a time / maps"]
        lines += ["", f"## {name[0].upper()}{name[1:]}", *table(header, cost_rows(path, model, spec, threads, rounds))]
        lines += ["", "In the layout of the convolutions, one image on one thread:"]
        header = ["outputs", "K", "ONNX Runtime's own", "kept", "kept / own"]
        lines += table(header, layout_rows(graph, spec, 5 * rounds))
        lines += ["", "Time by operator, one image on one thread, K = 3:"]
        lines += table(["operator", "forward", "maps"], profile_rows(graph, spec, explained=3))
        lines += ["", "MB of the file, and of a process that runs it (all of it, ONNX Runtime and Python included):"]
        lines += table(["outputs", "file", "N = 1, K = 1", "N = 8, K = 3"], size_rows(graph, spec, threads))
    lines += ["", "## Bytes an image takes in an answer"]
    lines += table(["choice", "outputs", *(f"K = {k}" for k in EXPLAINED)], wire_rows(spec))
    lines += ["", "## Where the rest goes", "", TRIED]
    text = "\n".join(lines) + "\n"
    if output:
        output.write_text(text, encoding="utf-8")
    else:
        click.echo(text)


if __name__ == "__main__":
    main()
