"""Every image decoded and resized once, as scoring preprocesses it, and memory-mapped from then on.

Two files, named by what they are made from (names, sizes and times of the images, the spec's preprocessing): the
pixels, and a checksum for each image. An image without its checksum is decoded (again), which covers a first use, a
build that was interrupted and a file that was spoilt.
"""

import fcntl
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crosseai.contract import InputError, ModelSpec
from crosseai.imaging import preprocess, read_radiograph
from crosseai.training.dataset import LabelledRadiographs

CACHE_FOLDER = ".crosseai-cache"

Progress = Callable[[int, int], None]
"""Called with the number of images done, and that of all."""


@dataclass(frozen=True, slots=True)
class DecodedImages:
    """A data set's images as the model takes them.

    Parameters
    ----------
    pixels
        uint8 ``[n, 1, S, S]``, memory-mapped; writing to it does not change the file. Corrupted images are black.
    corrupted
        Position of every image that cannot be read, and why.
    """

    pixels: npt.NDArray[np.uint8]
    corrupted: Mapping[int, str]


def decoded_images(
    radiographs: LabelledRadiographs, spec: ModelSpec, cache: Path, on_progress: Progress = lambda _done, _all: None
) -> DecodedImages:
    """Open the cache of a data set's images, and complete it first where it is not.

    Every image is compared with its checksum, and a few are decoded again, so that a cache of other preprocessing code
    is noticed. Processes that open one cache at once wait for the first of them.

    Parameters
    ----------
    cache
        Folder for cache files; made if absent.
    on_progress
        Called after every decoded image.

    Raises
    ------
    InputError
        If no image can be read, or the cache cannot be written.
    """
    file = cache / f"{_cache_key(radiographs, spec)}.npy"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(file):
            pixels, checksums = _open(file, (len(radiographs), 1, spec.input_size, spec.input_size))
            corrupted = _complete(radiographs.paths, spec, pixels, checksums, on_progress)
    except OSError as error:
        raise InputError(f"cache of decoded images: cannot write {file}: {error.strerror}") from error
    if len(corrupted) == len(radiographs):
        raise InputError(f"none of {len(radiographs)} images can be read: {next(iter(corrupted.values()))}")
    return DecodedImages(np.load(file, mmap_mode="c"), corrupted)


def _cache_key(radiographs: LabelledRadiographs, spec: ModelSpec) -> str:
    sources: list[tuple[Any, ...]] = [
        (name, (status := path.stat()).st_size, status.st_mtime_ns)
        for name, path in zip(radiographs.image_ids, radiographs.paths, strict=True)
    ]
    made_from = json.dumps([spec.resize, spec.input_size, sources])
    return hashlib.sha256(made_from.encode()).hexdigest()[:16]


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _open(file: Path, shape: tuple[int, ...]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32]]:
    """Pixels and checksums, writable; new and empty where the files are not whole."""
    sums = file.with_suffix(".crc32.npy")
    try:
        pixels, checksums = np.load(file, mmap_mode="r+"), np.load(sums, mmap_mode="r+")
    except (OSError, ValueError, EOFError):
        sums.unlink(missing_ok=True)
        pixels = np.lib.format.open_memmap(file, "w+", np.uint8, shape)
        checksums = np.lib.format.open_memmap(sums, "w+", np.uint32, shape[:1])
    for whole in (file, sums):
        with whole.open("rb+") as stream:  # a full disk is an error here, and a crash once the pages are written
            os.posix_fallocate(stream.fileno(), 0, whole.stat().st_size)
    return pixels, checksums


def _complete(
    paths: Sequence[Path],
    spec: ModelSpec,
    pixels: npt.NDArray[np.uint8],
    checksums: npt.NDArray[np.uint32],
    on_progress: Progress,
) -> dict[int, str]:
    """Decode every image that is missing or spoilt; returns why for those that cannot be."""

    def holds(i: int) -> bool:
        return bool(checksums[i]) and zlib.crc32(pixels[i]) == checksums[i]

    def decode(i: int) -> str | None:
        try:
            pixels[i] = preprocess(read_radiograph(paths[i]), spec)
        except InputError as error:
            return str(error)
        except Exception as error:
            # Only the kind is told: the message may hold identifiers.
            return f"{paths[i]}: the decoder failed with {type(error).__name__}"
        checksums[i] = zlib.crc32(pixels[i])
        return None

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # all of it releases the GIL: quicker than processes
        whole = np.fromiter(pool.map(holds, range(len(paths))), np.bool_, len(paths))
        samples = np.flatnonzero(whole)[[0, whole.sum() // 2, -1]] if whole.any() else ()
        if not all(np.array_equal(pixels[i], preprocess(read_radiograph(paths[i]), spec)) for i in samples):
            whole[:] = False
        missing = np.flatnonzero(~whole).tolist()
        corrupted = {}
        for done, (i, failure) in enumerate(zip(missing, pool.map(decode, missing), strict=True), start=1):
            on_progress(done, len(missing))
            if failure is not None:
                corrupted[i] = failure
    return corrupted
