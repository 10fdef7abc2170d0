"""What explanations cost beside classification: the combined graph, ONNX Runtime on this machine's CPU.

    python benchmarks/graph.py --output benchmarks/graph.md

Times are the least of several interleaved rounds, so that a busy machine slows every row alike. ``joint`` computes
every output; ``forward`` is the same file cut down to its logits; ``eager`` explains one class after another by
PyTorch autograd with hooks, as Captum and pytorch-grad-cam do.
"""

import datetime as dt
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import onnx
import onnx.utils
import onnxruntime
import torch
from torch import nn

from crosseai.contract import ModelSpec
from crosseai.export import export_onnx
from crosseai.export.reference import EagerReference
from crosseai.export.verify import sample_images
from crosseai.training import build_model

BATCHES = (1, 8)
EXPLAINED = (1, 3, 8)


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


def session(path: Path, threads: int, *outputs: str) -> onnxruntime.InferenceSession:
    """A session over the file, cut down to some outputs if any are named."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    model = onnx.load(path)
    if outputs:
        inputs = [tensor.name for tensor in model.graph.input]
        model = onnx.utils.Extractor(model).extract_model(inputs, list(outputs))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def least_times_ms(cases: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Least wall time of each case over interleaved rounds, after one that warms up."""
    best = dict.fromkeys(cases, float("inf"))
    for _ in range(rounds + 1):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            elapsed = (time.perf_counter() - start) * 1e3
            best[name] = min(best[name], elapsed) if _ else best[name]
    return best


def rows(path: Path, model: nn.Module, spec: ModelSpec, threads: int, rounds: int, eager: bool) -> list[str]:
    """One table row for each batch size and number of explained classes."""
    joint, forward = session(path, threads), session(path, threads, "logits")
    reference = EagerReference(model, spec, torch.float32)
    table = []
    for batch in BATCHES:
        images = np.resize(sample_images(spec.input_size), (batch, 1, spec.input_size, spec.input_size))
        for explained in EXPLAINED:
            targets = np.tile(np.arange(explained), (batch, 1))
            feeds = {"image": images, "targets": targets}
            cases: dict[str, Callable[[], object]] = {
                "forward": lambda feeds=feeds: forward.run(None, feeds),
                "joint": lambda feeds=feeds: joint.run(None, feeds),
            }
            if eager:
                cases["eager"] = lambda images=images, targets=targets: [
                    reference.explain(images, column) for column in targets.T
                ]
            times = least_times_ms(cases, rounds)
            bound = (1 + explained) * times["forward"]
            cells = [str(batch), str(explained), *(f"{times[name]:.0f}" for name in cases)]
            cells += [f"{times['joint'] / bound:.2f}"]
            cells += [f"{times['eager'] / times['joint']:.1f}"] if eager else []
            table.append("| " + " | ".join(cells) + " |")
            click.echo(table[-1], err=True)
    return table


@click.command()
@click.option("--output", type=click.Path(path_type=Path), help="Markdown file to write; else to stdout.")
@click.option("--models", type=click.Path(path_type=Path), help="Folder that keeps the exported files.")
@click.option("--threads", default=2, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--eager/--no-eager", default=True, help="Also time eager PyTorch.")
def main(output: Path | None, models: Path | None, threads: int, rounds: int, eager: bool) -> None:
    """Compare the combined graph with forward only and with eager PyTorch."""
    torch.set_num_threads(threads)
    lines = [
        "# Cost of explanations",
        "",
        f"{dt.date.today()}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{threads} threads, ONNX Runtime {onnxruntime.__version__}, torch {torch.__version__}; ResNet-50, 224 px, ms.",
    ]
    models = models or Path(tempfile.mkdtemp(prefix="crosseai-bench-"))
    models.mkdir(parents=True, exist_ok=True)
    for name, triplet_attention in (("plain", False), ("triplet attention", True)):
        spec = ModelSpec()
        model = calibrated(triplet_attention=triplet_attention, size=spec.input_size)
        path = models / f"{name.replace(' ', '_')}.onnx"
        if not path.exists():
            export_onnx(model, spec, path)
        lines += ["", f"## {name} ({path.stat().st_size / 1e6:.0f} MB)", ""]
        header = ["N", "K", "forward", "joint", *(["eager"] if eager else []), "joint / ((1 + K) forward)"]
        header += ["eager / joint"] if eager else []
        lines += ["| " + " | ".join(header) + " |", "|" + "---:|" * len(header)]
        lines += rows(path, model, spec, threads, rounds, eager)
    text = "\n".join(lines) + "\n"
    if output:
        output.write_text(text, encoding="utf-8")
    else:
        click.echo(text)


if __name__ == "__main__":
    main()
