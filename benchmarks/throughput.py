"""How fast does the client score? Writes ``benchmarks/throughput.md``.

    python -m benchmarks.throughput     alone on the machine, about fourteen minutes

Yardsticks: where decoding is the bottleneck (a tiny model), a bare loop of ``cv2.imread`` and ``cv2.resize`` on all
cores; where the server is (a ResNet-50), Triton's own ``perf_analyzer`` on the same server, batch size and outputs.
Client, server and yardsticks share the machine's cores. Everything that is made lies in ``build/benchmarks``.
"""

import asyncio
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
import cv2
import numpy as np
import psutil
import torch
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from crosseai.client import score_directory
from crosseai.client.explain import ExplainByName, ExplainByProbability, ExplainPolicy
from crosseai.client.findings import Localizer
from crosseai.client.flow import stream
from crosseai.client.inference import MAPS, Inference
from crosseai.client.memory import keep_freed_memory
from crosseai.client.meter import Meter
from crosseai.client.pipeline import Pipeline
from crosseai.client.servers.pool import ServerPool
from crosseai.client.servers.transport import TritonTransport
from crosseai.client.sources.source import Directory
from crosseai.contract import MODEL_FILENAME, ModelSpec, box_preset
from crosseai.serve.embedded import EmbeddedTriton
from crosseai.serve.environment import server_environment
from crosseai.serve.repository import place_version
from crosseai.training import build_model
from crosseai.training.phantoms import write_phantoms
from tests.tiny_model import write_tiny_model

CACHE = Path(__file__).resolve().parents[1] / "build" / "benchmarks"
TABLE = Path(__file__).with_suffix(".md")
CORES = os.cpu_count() or 1
BATCH, IN_FLIGHT, ROUNDS, SLOW_ROUNDS = 8, 2, 3, 2
TINY = ModelSpec(feature_shape=(4, 7, 7))


@click.command()
@click.option("--many", default=200_000, show_default=True, help="Files of the larger directory, for the memory.")
def main(many: int) -> None:
    """Measure, and write the table."""
    keep_freed_memory()  # as crosseai-client does
    parts = (_heading, decoding_bound, server_bound, positives, lambda: memory(many))
    texts = []
    for part in parts:
        texts.append(part())
        click.echo(texts[-1])
    TABLE.write_text("\n\n".join(texts) + "\n")


def _heading() -> str:
    return (
        f"# Throughput of the client\n\n{datetime.now(UTC):%Y-%m-%d}, {CORES} cores for client and server together, "
        f"load average {os.getloadavg()[0]:.1f} at the start, OpenCV {cv2.__version__}, Python "
        f"{platform.python_version()}. Made by `benchmarks/throughput.py`."
    )


def decoding_bound() -> str:
    """A model that costs nothing, on cores that are not the client's, against a bare decoding loop."""
    images = phantoms(1000)
    files = sorted(images.iterdir())
    size = cv2.imread(str(files[0]), cv2.IMREAD_GRAYSCALE).shape
    theirs, own = _divided_cores()
    with _pinned(theirs), server(tiny_model()) as address, _pinned(own):
        ours, bare = [], []
        for _ in range(ROUNDS):  # they take turns
            bare.append(_rate_and_cpu(lambda: bare_loop(files, len(own)), len(files)))
            ours.append(_rate_and_cpu(lambda: score(images, address, "none"), len(files)))
    (rate, cpu_ms), (best, bare_cpu_ms) = max(ours), max(bare)
    return (
        f"## Decoding is the bottleneck: PNG of {size[1]} x {size[0]}, a tiny model\n\n"
        "| | images/s | ratio | CPU time of the process, ms an image | ratio |\n|---|---|---|---|---|\n"
        f"| bare `cv2.imread` and `cv2.resize`, {len(own)} threads | {best:.1f} | 1.00 | {bare_cpu_ms:.2f} | 1.00 |\n"
        f"| `crosseai-client run --explain none` | {rate:.1f} | {rate / best:.2f} | {cpu_ms:.2f} "
        f"| {bare_cpu_ms / cpu_ms:.2f} |\n\n"
        f"Both have the same {len(own)} of {CORES} cores, and the server has the others, as if it were elsewhere. The "
        "client reads, hashes and checks each file, has it scored and writes tables. The best of "
        f"{ROUNDS} rounds each, in turns."
    )


def _divided_cores() -> tuple[set[int], set[int]]:
    """Half of the cores for the server, half for the client; of one core, the same."""
    cores = sorted(os.sched_getaffinity(0))
    return set(cores[: max(1, len(cores) // 2)]), set(cores[len(cores) // 2 :])


@contextmanager
def _pinned(cores: set[int]) -> Iterator[None]:
    """This thread, and the threads and processes that it starts, on these cores alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _rate_and_cpu(work: Callable[[], float], count: int) -> tuple[float, float]:
    """What the work returns, and the CPU time that this process spends on an image, in milliseconds."""
    before = time.process_time()
    rate = work()
    return rate, 1000 * (time.process_time() - before) / count


def bare_loop(files: Sequence[Path], threads: int) -> float:
    """Images a second of reading and resizing alone."""

    def decode(path: Path) -> None:
        pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        cv2.resize(pixels, (TINY.input_size, TINY.input_size), interpolation=cv2.INTER_AREA)

    with ThreadPoolExecutor(threads) as executor:
        began = time.monotonic()
        list(executor.map(decode, files))
        return len(files) / (time.monotonic() - began)


def server_bound() -> str:
    """A ResNet-50, against perf_analyzer: on cores that are not the client's, and on the same ones."""
    everything, rows = os.sched_getaffinity(0), []
    cases = [("apart", *_divided_cores()), ("shared", everything, everything)]
    for name, theirs, own in cases:
        with _pinned(theirs), server(resnet50()) as address, _pinned(own):
            for explain, outputs, count in (("none", ("logits",), 256), ("top:1", ("logits", *MAPS), 128)):
                images, model = phantoms(count), model_name(outputs)
                rounds = [
                    (perf_analyzer(address, model), score(images, address, explain, IN_FLIGHT))
                    for _ in range(SLOW_ROUNDS)
                ]
                analyzer, ours = map(max, zip(*rounds, strict=True))
                rows.append(f"| {name} | {explain} | {analyzer:.2f} | {ours:.2f} | {ours / analyzer:.2f} |")
    return (
        f"## The server is the bottleneck: ResNet-50, {BATCH} images a request\n\n"
        "| cores of server and client | explain | perf_analyzer, images/s | client, images/s | ratio |\n"
        "|---|---|---|---|---|\n" + "\n".join(rows) + "\n\n"
        f"The best of {SLOW_ROUNDS} rounds each, in turns. The client's rate is that of a whole run of 256 images, or "
        "128 with boxes: PNG decoding, tables, and the start, when the first 64 files are decoded and the server has "
        "nothing to do. perf_analyzer sends one random image again and again. Both have "
        f"{IN_FLIGHT} requests under way. Apart, the server has {len(cases[0][1])} of {CORES} cores, as if it were "
        "elsewhere, and client or perf_analyzer the others. Shared, all have all cores, and what the client decodes, "
        "which perf_analyzer does not, takes time from the model."
    )


def positives() -> str:
    """``--explain positive`` at several shares of positive images, against the top 3 of every image."""
    count, rows = 64, []
    with server(resnet50()) as address:
        images = phantoms(count)
        threshold = np.sort(asyncio.run(probabilities(images, address)))

        def explain(share: float) -> ExplainPolicy:
            cut = np.append(threshold, np.inf)[count - round(count * share)]
            return ExplainByProbability(lambda p: (0,) if p[0] >= cut else ())

        cases = {f"positive, {share:.0%} of images": explain(share) for share in (0, 0.1, 0.3, 1)}
        seconds = {case: asyncio.run(pipeline_seconds(images, address, policy)) for case, policy in cases.items()}
        slowest = asyncio.run(pipeline_seconds(images, address, ExplainByName(lambda _: (-1, -1, -1))))
        rows = [f"| {case} | {count / s:.2f} | {slowest / s:.1f} |" for case, s in seconds.items()]
    return (
        f"## Explaining what is positive: ResNet-50, {count} images, one disease of each positive one\n\n"
        "| explained | images/s | times as fast as top:3 |\n|---|---|---|\n"
        f"| top:3 of every image | {count / slowest:.2f} | 1.0 |\n" + "\n".join(rows)
    )


async def pipeline_seconds(images: Path, address: str, policy: ExplainPolicy) -> float:
    """Time to score all images, after one request that warms the server up."""
    async with await ServerPool.connect([TritonTransport(address)]) as servers:
        blank = np.zeros((1, 1, servers.spec.input_size, servers.spec.input_size), np.uint8)
        await servers.infer(blank, np.full((1, 1), -1), ["logits", *MAPS])
        began = time.monotonic()
        with ThreadPoolExecutor(CORES) as executor:
            pipeline = Pipeline(
                inference=Inference(servers, policy, BATCH),
                localizer=Localizer(servers.spec, servers.model.version, box_preset("tuned")),
                meter=Meter(),
                executor=executor,
                batch_size=BATCH,
                decoders=asyncio.Semaphore(CORES),
            )
            async for _ in pipeline.run(stream(Directory(images, CACHE))):
                pass
        return time.monotonic() - began


async def probabilities(images: Path, address: str) -> np.ndarray:
    """Probability of the first class for every image."""
    seen: list[float] = []

    def remember(p: np.ndarray) -> tuple[int, ...]:
        seen.append(float(p[0]))
        return ()

    await pipeline_seconds(images, address, ExplainByProbability(remember))
    return np.array(seen)


def memory(many: int) -> str:
    """Greatest resident set of the client over 2,000 files and many."""
    rows = []
    with server(tiny_model()) as address:
        for count in (2_000, many):
            peak, seconds = peak_memory(small_files(count), address)
            rows.append((count, peak / 2**20, count / seconds))
    return (
        "## Memory: PNG of 64 x 64, a tiny model\n\n"
        "| files | greatest resident set, MiB | images/s, start included |\n|---|---|---|\n"
        + "\n".join(f"| {count:,} | {peak:.0f} | {rate:.0f} |" for count, peak, rate in rows)
        + f"\n\nThe larger directory takes {rows[1][1] - rows[0][1]:.0f} MiB more."
    )


def peak_memory(images: Path, address: str) -> tuple[int, float]:
    """Bytes and seconds of a run in a process of its own."""
    output = CACHE / "memory-output"
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "crosseai.client.cli", "run", images, "--output", output, "--server", address]
    began, peak = time.monotonic(), 0
    with subprocess.Popen([*map(str, command), "--explain", "none"], stdout=subprocess.DEVNULL) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, watched.memory_info().rss)
            time.sleep(0.1)
    return peak, time.monotonic() - began


def small_files(count: int) -> Path:
    """So many names of a few small images."""
    folder = CACHE / f"small-{count}"
    if not folder.is_dir():
        unfinished = Path(f"{folder}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        for number in range(count):
            part = unfinished / f"{number // 20_000:02d}"
            if number % 20_000 == 0:
                part.mkdir(parents=True)
                original = part / f"{number:06d}.png"
                cv2.imwrite(str(original), np.random.default_rng(number).integers(0, 256, (64, 64), np.uint8))
            else:
                (part / f"{number:06d}.png").hardlink_to(original)
        unfinished.rename(folder)
    return folder


def score(images: Path, address: str, explain: str, in_flight: int | None = None) -> float:
    """Images a second of a whole run, its tables included."""
    output = CACHE / "throughput-output"
    shutil.rmtree(output, ignore_errors=True)
    summary = score_directory(images, output, server=address, explain=explain, in_flight=in_flight)
    return summary.scored_now / summary.seconds


def phantoms(count: int) -> Path:
    """A folder of so many PNG files of 32 phantoms."""
    source = CACHE / "throughput-phantoms"
    if not source.is_dir():
        write_phantoms(source, count=32, seed=7, size=1024)
    folder = CACHE / f"throughput-{count}"
    if not folder.is_dir():
        folder.mkdir()
        originals = sorted((source / "images").iterdir())
        for number in range(count):
            (folder / f"{number:05d}.png").hardlink_to(originals[number % len(originals)])
    return folder


def tiny_model() -> Path:
    """Folder of a model that costs next to nothing."""
    return write_tiny_model(CACHE / "tiny", TINY)


def resnet50() -> Path:
    """Folder of a ResNet-50 with triplet attention and random weights."""
    from crosseai.export import export_onnx

    folder = CACHE / "resnet50"
    if not (folder / MODEL_FILENAME).is_file():
        torch.manual_seed(0)
        folder.mkdir(parents=True, exist_ok=True)
        export_onnx(build_model("resnet50").eval(), ModelSpec(), folder / MODEL_FILENAME).spec.save(folder)
    return folder


def model_name(outputs: Sequence[str]) -> str:
    """Name of the copy of the model that has these outputs alone, as perf_analyzer asks for all."""
    return f"crosseai_{len(outputs)}_outputs"


@contextmanager
def server(model: Path, max_batch_size: int = BATCH) -> Iterator[str]:
    """GRPC address of a server of a model, and of its copies with few outputs."""
    repository = CACHE / f"repository-{model.name}"
    shutil.rmtree(repository, ignore_errors=True)
    place_version(repository, model, 1)
    config = repository / "crosseai" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 8", f"max_batch_size: {max_batch_size}"))
    if model.name == "resnet50":
        for outputs in (("logits",), ("logits", *MAPS)):
            _with_outputs(repository, outputs)
    with EmbeddedTriton(repository) as triton:
        yield triton.grpc_url


def _with_outputs(repository: Path, outputs: Sequence[str]) -> None:
    original = repository / "crosseai"
    copy = repository / model_name(outputs)
    shutil.copytree(original, copy)
    config = text_format.Parse((original / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    config.name = copy.name
    kept = [output for output in config.output if output.name in outputs]
    del config.output[:]
    config.output.extend(kept)
    (copy / "config.pbtxt").write_text(text_format.MessageToString(config))


def perf_analyzer(address: str, model: str, *options: str) -> float:
    """Images a second that Triton's own load generator reaches."""
    side = ModelSpec().input_size
    image = np.random.default_rng(0).integers(0, 256, side * side).tolist()
    request = {"image": {"content": image, "shape": [1, side, side]}, "targets": {"content": [-1], "shape": [1]}}
    (CACHE / "request.json").write_text(json.dumps({"data": [request]}))
    binary, environment = _perf_analyzer_binary()
    command = [binary, "-m", model, "-i", "grpc", "-u", address, "-b", BATCH, "--input-data", CACHE / "request.json"]
    command += ["--concurrency-range", IN_FLIGHT, "--measurement-mode", "count_windows"]
    command += ["--measurement-request-count", 5, "--stability-percentage", 100, "--max-trials", 10, *options]
    finished = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
    found = re.findall(r"throughput: ([\d.]+) infer/sec", finished.stdout)
    if not found:
        raise click.ClickException(f"perf_analyzer: {finished.stdout[-1500:]}{finished.stderr[-1500:]}")
    return float(found[-1])


def _perf_analyzer_binary() -> tuple[Path, dict[str, str]]:
    """The one in tritonclient's wheel, with the libraries that PyTriton brings under other names."""
    folder = CACHE / "perf_analyzer"
    binary = folder / "perf_analyzer"
    environment = server_environment().variables()
    if not binary.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            folder,
            "tritonclient==2.51.0",
        ]
        subprocess.run(list(map(str, pip)), check=True)
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            binary.write_bytes(wheel.read("tritonclient-2.51.0.data/data/bin/perf_analyzer"))
        binary.chmod(0o755)
        libraries = Path(environment["LD_LIBRARY_PATH"].split(":")[-1])
        for name in ("libb64", "libcudart"):
            (source,) = libraries.glob(f"{name}*")
            wanted = {"libb64": "libb64.so.0d", "libcudart": "libcudart.so.12"}[name]
            (folder / wanted).symlink_to(source)
    return binary, environment | {"LD_LIBRARY_PATH": f"{folder}:{environment['LD_LIBRARY_PATH']}"}


if __name__ == "__main__":
    main()
