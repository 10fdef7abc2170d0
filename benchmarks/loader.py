"""Can the images be decoded, and read, as fast as a GPU trains on them? Writes ``benchmarks/loader.md``.

    python -m benchmarks.loader [--data DIR] [--rate IMAGES_PER_SECOND]

Decoding is measured on real radiographs where they are at hand, by threads (which ``decoded_images`` uses) and by
processes; reading on a cache that is larger than any processor's own, in random batches of 128 as training reads it.
"""

import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np
import torch

from crosseai.contract import ModelSpec
from crosseai.imaging import preprocess, read_radiograph
from crosseai.training.cache import SHARD_IMAGES, DecodedImages, decoded_images
from crosseai.training.dataset import read_labelled_radiographs
from crosseai.training.evaluation import ImageSource
from crosseai.training.phantoms import write_phantoms
from crosseai.training.shard import Shard

SPEC = ModelSpec()
BATCH = 128
CACHED = 10_000
"""Images of the cache that is read: 0.5 GB."""
NIH_IMAGES = 112_120

Rate = Callable[[Path], float]


def build(data: Path) -> float:
    """Images a second that go into a new cache."""
    radiographs = read_labelled_radiographs(data)
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        decoded_images(radiographs, SPEC, Path(cache))
        return len(radiographs) / (time.perf_counter() - start)


def build_by_processes(data: Path) -> float:
    """The same with as many processes as cores, which hand the pixels over."""
    paths = read_labelled_radiographs(data).paths
    pixels = np.empty((len(paths), 1, SPEC.input_size, SPEC.input_size), np.uint8)
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn")) as pool:
        list(pool.map(decode, paths[:2]))  # started, and everything imported
        start = time.perf_counter()
        for i, image in enumerate(pool.map(decode, paths, chunksize=4)):
            pixels[i] = image
        return len(paths) / (time.perf_counter() - start)


def decode(path: Path) -> np.ndarray:
    """One image as the model takes it."""
    return preprocess(read_radiograph(path), SPEC)


@contextmanager
def large_cache() -> Iterator[DecodedImages]:
    """Half a gigabyte of images in two shards as training opens them, in the page cache; there is nothing to decode."""
    side, random = SPEC.input_size, np.random.default_rng(0)
    pixels = random.integers(0, 256, (1, side, side), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        shards = []
        for start in range(0, CACHED, SHARD_IMAGES):
            keys = [f"{i:032d}".encode() for i in range(start, min(start + SHARD_IMAGES, CACHED))]
            shard = Shard.new(Path(folder), keys, side)
            with ThreadPoolExecutor(1) as pool:
                shard.open(SPEC, pool)
            shard.pixels[:], shard.checksums[:] = pixels, zlib.crc32(pixels)
            shards.append(shard)
        places = np.array([divmod(i, SHARD_IMAGES) for i in range(CACHED)], np.int32)
        yield DecodedImages(shards, places, SPEC, {})


def read(_data: Path) -> float:
    """Images a second in random batches, as tensors."""
    with large_cache() as images:
        return batches_of(images)


def read_one_file(_data: Path) -> float:
    """The same from one mapped file without checksums: what the shards and the checking cost."""
    with large_cache() as images, tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "pixels.npy", images[:])
        return batches_of(np.load(Path(folder) / "pixels.npy", mmap_mode="r"))


def batches_of(images: ImageSource) -> float:
    """Images a second of an epoch."""
    order = np.random.default_rng(1).permutation(CACHED)
    start = time.perf_counter()
    for first in range(0, CACHED, BATCH):
        torch.from_numpy(images[order[first : first + BATCH]])
    return CACHED / (time.perf_counter() - start)


def on_cores(count: int, measure: Rate, data: Path) -> float:
    """A measurement in a process of its own that is bound to so many cores; the better of two."""
    cores = sorted(os.sched_getaffinity(0))[:count]
    with ProcessPoolExecutor(1, get_context("spawn"), os.sched_setaffinity, (0, cores)) as pool:
        return max(pool.submit(measure, data).result() for _ in range(2))


@contextmanager
def data_set(folder: Path | None) -> Iterator[tuple[Path, str]]:
    """The data set to decode, and what it is."""
    real = Path(__file__).resolve().parents[2] / "shared" / "data" / "nih"
    if folder is not None or real.is_dir():
        chosen = folder or real
        yield chosen, f"{len(read_labelled_radiographs(chosen))} radiographs of `{chosen.name}`"
        return
    with tempfile.TemporaryDirectory() as drawn:
        write_phantoms(Path(drawn), count=64, seed=0)
        yield Path(drawn), "64 phantoms"


def table(rates: dict[str, dict[int, float]], cores: Sequence[int]) -> list[str]:
    """One row a measurement, images a second."""
    lines = [
        f"| images/s | {' | '.join(f'{n} core' + 's' * (n > 1) for n in cores)} |",
        "|---" * (len(cores) + 1) + "|",
    ]
    for name, by_cores in rates.items():
        lines.append(f"| {name} | {' | '.join(f'{by_cores[n]:,.0f}' if n in by_cores else '' for n in cores)} |")
    return lines


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Data set to decode.")
@click.option("--rate", default=3000, help="Images a second that the GPU trains on.")
def main(data: Path | None, rate: int) -> None:
    """Measure, and write the table."""
    measurements: dict[str, Rate] = {
        "decode and resize into the cache, threads (as built)": build,
        "decode and resize, processes": build_by_processes,
        "random batches of 128 out of the cache, checked, as tensors": read,
        "random batches of 128 out of one mapped file, not checked": read_one_file,
    }
    cores = sorted({1, len(os.sched_getaffinity(0))})
    with data_set(data) as (folder, description):
        rates = {
            name: {n: on_cores(n, measure, folder) for n in (cores if measure in (build, build_by_processes) else [1])}
            for name, measure in measurements.items()
        }
    built, _, served, bare = rates.values()
    one_epoch_of_decoding = rate / built[1]
    lines = [
        "# Can a GPU be fed?",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, made by `benchmarks/loader.py`: {description}, to {SPEC.input_size} x "
        f"{SPEC.input_size}; the better of two runs. The processor's cores are shared with other guests of its host.",
        "",
        *table(rates, cores),
        "",
        f"One core feeds a GPU that trains on {rate:,} images/s {served[1] / rate:,.0f} times over out of the cache, "
        f"at {served[1] / bare[1]:.2f} of the rate of a file that is not checked; decoding anew every epoch would "
        f"take {one_epoch_of_decoding:,.0f} cores. NIH's {NIH_IMAGES:,} images go into the cache once, in "
        f"{NIH_IMAGES / built[1] / 60:,.0f} core-minutes.",
        "",
    ]
    Path(__file__).with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
