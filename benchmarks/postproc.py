"""How fast is the box algorithm? Writes ``benchmarks/postproc.md``.

    python -m benchmarks.postproc

The yardstick is OpenCV doing only the first four steps (resize, two min-max normalisations, addWeighted, threshold) on
the same arrays with one thread. The calls of a row take turns, and each time is the least of many, so that a busy
machine disturbs the ratios little.
"""

import os
import platform
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.explanations import nih_explanations, phantom_explanations
from crosseai import postproc
from tests.oracles import boxes as oracle

Maps = tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]
BATCH = 16


def opencv_steps_1_to_4(heatmap: npt.NDArray[np.float32], gradient_map: npt.NDArray[np.uint8]) -> Any:
    """The same mask as ``binarize(fuse(...))``."""
    height, width = gradient_map.shape
    heat = cv2.resize(heatmap, (width, height), interpolation=cv2.INTER_LINEAR)
    heat = cv2.normalize(heat, None, 0, 255, cv2.NORM_MINMAX)
    gradient = cv2.normalize(gradient_map, None, 0, 255, cv2.NORM_MINMAX, dtype=cv2.CV_32F)
    fused = cv2.addWeighted(heat, 0.30, gradient, 0.70, 0)
    peak = cv2.minMaxLoc(fused)[1]
    return cv2.threshold(fused, 0.35 * peak, 1, cv2.THRESH_BINARY)[1]


def synthetic_maps(side: int) -> Iterator[tuple[str, Maps]]:
    """Masks that are hard for one part of the algorithm or another."""
    random = np.random.default_rng(side)
    heatmaps = random.random((BATCH, 7, 7), dtype=np.float32)
    row, column = np.indices((side, side))
    coarse = random.random((20, 20), dtype=np.float32) * 255

    def batch(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        return np.ascontiguousarray(np.broadcast_to(image.astype(np.uint8), (BATCH, side, side)))

    yield "uniform noise", (heatmaps, random.integers(0, 256, (BATCH, side, side), dtype=np.uint8))
    yield "90 % ones, scattered", (heatmaps, 255 * (random.random((BATCH, side, side)) < 0.9).astype(np.uint8))
    yield (
        "smooth blobs",
        (heatmaps, batch(np.clip(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC), 0, 255))),
    )
    yield "waves", (heatmaps, batch(127 + 60 * np.sin(column / 10) + 60 * np.cos(row / 8)))
    yield "staircase", (heatmaps, batch(255 * (row + column < side)))
    yield "checkerboard", (heatmaps, batch(255 * ((row + column) % 2)))
    yield "all ones but one", (heatmaps, batch(255 * (row + column > 0)))


def real_maps() -> Iterator[tuple[str, Maps]]:
    """Guided gradients of phantoms and of real radiographs."""
    for name, maps in (("phantoms", phantom_explanations("test")), ("NIH radiographs", nih_explanations())):
        if maps is not None:
            yield f"guided gradients, {name}", (maps.heatmaps[:BATCH], maps.gradient_maps[:BATCH])


def least_seconds(calls: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, float]:
    """Least time of each call, the calls taken in turns."""
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            least[name] = min(least[name], time.perf_counter() - start)
    return least


def compare_with_opencv(maps: Maps) -> tuple[float, float]:
    """Microseconds a map: OpenCV's steps 1 to 4, and everything by ``localize``, each on one thread."""
    count = len(maps[0])
    seconds = least_seconds(
        {
            "opencv": lambda: [opencv_steps_1_to_4(*pair) for pair in zip(*maps, strict=True)],
            "localize": lambda: postproc.localize(*maps, threads=1),
        },
        rounds=40,
    )
    return seconds["opencv"] / count * 1e6, seconds["localize"] / count * 1e6


def speed_rows() -> Iterator[str]:
    """Markdown rows: maps, size, OpenCV, localize, ratio, nanoseconds a pixel."""
    cases = [*real_maps(), *(case for side in (224, 512, 1024) for case in synthetic_maps(side))]
    for name, maps in cases:
        height, width = maps[1].shape[1:]
        opencv, ours = compare_with_opencv(maps)
        per_pixel = ours * 1e3 / (width * height)
        yield f"| {name} | {width} x {height} | {opencv:.0f} | {ours:.0f} | {ours / opencv:.2f} | {per_pixel:.1f} |"


def keyword_rows(maps: Maps) -> Iterator[str]:
    """Markdown rows: keywords, microseconds a map."""
    cases: list[dict[str, Any]] = [
        {},
        {"gradient_percentile": 99.0},
        {"gradient_power": 0.5},
        {"gradient_sigma": 0.03},
        {"closing": 0.02},
        {"candidates": "components"},
        {"candidates": "all"},
    ]
    calls = {", ".join(f"`{name}={value!r}`" for name, value in case.items()) or "the paper's": case for case in cases}
    seconds = least_seconds(
        {name: lambda case=case: postproc.localize(*maps, threads=1, **case) for name, case in calls.items()},
        rounds=40,
    )
    for name, value in seconds.items():
        yield f"| {name} | {value / len(maps[0]) * 1e6:.0f} |"


def thread_rows(maps: Maps) -> Iterator[str]:
    """Markdown rows: threads, microseconds a map, speed-up per thread."""
    many = tuple(np.concatenate([array] * 32) for array in maps)
    available = len(os.sched_getaffinity(0))
    calls = {str(n): lambda n=n: postproc.localize(*many, threads=n) for n in range(1, available + 1)}
    seconds = least_seconds(calls, rounds=30)
    for threads, value in seconds.items():
        share = seconds["1"] / value / int(threads)
        yield f"| {threads} | {value / len(many[0]) * 1e6:.0f} | {share:.2f} |"


def oracle_row(maps: Maps) -> str:
    """Markdown row: microseconds a map of the plain NumPy oracle and of ``localize``."""
    heatmaps, gradient_maps = (array[:2] for array in maps)
    seconds = least_seconds(
        {
            "oracle": lambda: [oracle.localize(*pair) for pair in zip(heatmaps, gradient_maps, strict=True)],
            "localize": lambda: postproc.localize(heatmaps, gradient_maps, threads=1),
        },
        rounds=3,
    )
    slow, fast = (seconds[name] / len(heatmaps) * 1e6 for name in ("oracle", "localize"))
    return f"| {slow:.0f} | {fast:.0f} | {slow / fast:.0f} |"


def processor() -> str:
    """Name of this machine's processor."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path(__file__).with_suffix(".md"))
def main(output: Path) -> None:
    """Measure and write the table."""
    cv2.setNumThreads(1)
    blobs = dict(synthetic_maps(224))["smooth blobs"]
    load = os.getloadavg()[0]
    lines = [
        "# Speed of the box algorithm",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {processor()}, {len(os.sched_getaffinity(0))} cores, load average {load:.1f} at"
        f" the start, OpenCV {cv2.__version__}, NumPy {np.__version__}. Made by `benchmarks/postproc.py`.",
        "",
        "## One thread, microseconds a map",
        "",
        f"`localize` does everything (batch of {BATCH}, up to 8 candidates); OpenCV only steps 1 to 4."
        " Heat maps are 7 x 7, gradient maps uint8.",
        "",
        "| maps | size | OpenCV, steps 1-4 | localize, all steps | ratio | ns a pixel |",
        "|---|---|---|---|---|---|",
        *speed_rows(),
        "",
        "## What keywords beyond the paper cost, guided gradients of phantoms, microseconds a map",
        "",
        "| keywords | microseconds a map |",
        "|---|---|",
        *keyword_rows(dict(real_maps())["guided gradients, phantoms"]),
        "",
        "## Plain NumPy and Python (the oracle), smooth blobs, 224 x 224",
        "",
        "| oracle, us | localize, us | ratio |",
        "|---|---|---|",
        oracle_row(blobs),
        "",
        "## Threads, smooth blobs, 224 x 224, batch of 512",
        "",
        "| threads | microseconds a map | speed-up per thread |",
        "|---|---|---|",
        *thread_rows(blobs),
    ]
    output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
