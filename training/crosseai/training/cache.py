"""Every image decoded and resized once, as scoring preprocesses it, in memory-mapped shards that machines can share.

An image is found by its key (name, size and time of its file), in whatever shard it is; what no shard has goes into new
ones. So a data set may grow, shrink and change its order, and only what is new in it is decoded.
"""

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crosseai.contract import InputError, ModelSpec
from crosseai.training.dataset import LabelledRadiographs
from crosseai.training.shard import INDEX_SUFFIX, Shard, locked

CACHE_FOLDER = ".crosseai-cache"

SHARD_IMAGES = 8192
"""411 MB at 224 pixels, which two cores decode in a minute: enough shards to divide the work, few enough to map all."""

Progress = Callable[[int, int], None]
"""Called with the number of images done, and that of all to be done here: fewer when other processes have done some."""

_Places = npt.NDArray[np.int32]

_log = logging.getLogger(__name__)


class DecodedImages:
    """A data set's images as the model takes them, in the order of its listing; read by position, as an array is.

    Parameters
    ----------
    shards
        Where they are, opened.
    places
        Shard of each image, and position in it, int32 ``[n, 2]``.
    spec
        How they are preprocessed.
    corrupted
        Position of every image that cannot be read, and why.
    """

    def __init__(self, shards: Sequence[Shard], places: _Places, spec: ModelSpec, corrupted: Mapping[int, str]) -> None:
        self._shards, self._places, self._spec = shards, places, spec
        self.shape = (len(places), 1, spec.input_size, spec.input_size)
        self.corrupted = corrupted

    def __getitem__(self, rows: npt.NDArray[np.int64] | slice, /) -> npt.NDArray[np.uint8]:
        """Images uint8 ``[rows, 1, S, S]``, copied; each is compared with its checksum, and decoded if they differ.

        Raises
        ------
        InputError
            If one is corrupted.
        """
        places = self._places[rows].tolist()
        pixels = np.empty((len(places), *self.shape[1:]), np.uint8)
        for image, (number, at) in zip(pixels, places, strict=True):
            shard = self._shards[number]
            image[:] = shard.pixels[at]
            if zlib.crc32(image.data) != shard.checksums[at]:
                _log.warning("%s: image %d is spoilt, and is decoded again", shard.file, at)
                shard.decode(at, self._spec)
                image[:] = shard.pixels[at]
        return pixels


def decoded_images(
    radiographs: LabelledRadiographs, spec: ModelSpec, cache: Path, on_progress: Progress = lambda _done, _all: None
) -> DecodedImages:
    """Open the cache of a data set's images, and complete it first where it is not.

    Processes that open one cache at once, on one machine or several, share the work: each takes the next shard that
    nobody holds, and waits for the others at the end. A few images of every shard are decoded again, so that a cache of
    other preprocessing code is noticed.

    Parameters
    ----------
    cache
        Folder for cache files; made if absent.
    on_progress
        Called after every image that is decoded here.

    Raises
    ------
    InputError
        If no image can be read, or the cache cannot be written.
    """
    folder = cache / f"{spec.resize}-{spec.input_size}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shards, places = _plan(folder, radiographs, spec.input_size)
        failures = _complete([shard for shard in shards if shard.sources], spec, on_progress)
    except OSError as error:
        raise InputError(f"cache of decoded images: cannot write {folder}: {error.strerror}") from error
    if len(failures) == len(radiographs):
        raise InputError(f"none of {len(radiographs)} images can be read: {next(iter(failures.values()))}")
    corrupted = {i: failures[path] for i, path in enumerate(radiographs.paths) if path in failures}
    return DecodedImages(shards, places, spec, corrupted)


def _plan(folder: Path, radiographs: LabelledRadiographs, side: int) -> tuple[list[Shard], _Places]:
    """All shards of a folder, with new ones for images that none has, and the place of each image."""
    keys = [_key(*source) for source in zip(radiographs.image_ids, radiographs.paths, strict=True)]
    with locked(folder / "lock"):
        shards = list(_readable(folder))
        known = {key for shard in shards for key in shard.keys}
        new = [key for key in keys if key not in known]
        parts = (new[start : start + SHARD_IMAGES] for start in range(0, len(new), SHARD_IMAGES))
        shards += [Shard.new(folder, part, side) for part in parts]
    found = {key: (number, at) for number, shard in enumerate(shards) for at, key in enumerate(shard.keys)}
    places = [found[key] for key in keys]
    for (number, at), path in zip(places, radiographs.paths, strict=True):
        shards[number].sources[at] = path
    return shards, np.array(places, np.int32)


def _key(name: str, path: Path) -> bytes:
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    made_from = json.dumps([name, status.st_size, status.st_mtime_ns])
    return hashlib.sha256(made_from.encode()).hexdigest()[:32].encode()


def _readable(folder: Path) -> Iterator[Shard]:
    """The shards of a folder; an index that is spoilt is removed."""
    for index in sorted(folder.glob(f"*{INDEX_SUFFIX}")):
        try:
            yield Shard(index)
        except (ValueError, EOFError):
            index.unlink()


def _complete(shards: Sequence[Shard], spec: ModelSpec, on_progress: Progress) -> dict[Path, str]:
    """Decode what is missing and nobody else decodes; returns why for the files that cannot be."""
    ahead = {shard.file: len(shard.missing()) for shard in shards}
    failures: dict[Path, str] = {}
    done = 0

    def failure_of(shard: Shard, at: int) -> str | None:
        try:
            shard.decode(at, spec)
        except InputError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # all of it releases the GIL: quicker than processes
        for shard in _in_turn(shards):
            missing = shard.open(spec, pool)
            ahead[shard.file] = len(missing)
            for at, failure in zip(missing, pool.map(failure_of, [shard] * len(missing), missing), strict=True):
                if failure is not None:
                    failures[shard.sources[at]] = failure
                ahead[shard.file] -= 1
                done += 1
                on_progress(done, done + sum(ahead.values()))
    return failures


def _in_turn(shards: Sequence[Shard]) -> Iterator[Shard]:
    """Each shard once, while it is locked: first those that nobody holds, then the others as they are let go."""
    for wait in (False, True):
        held = []
        for shard in shards:
            with locked(shard.index, wait=wait) as mine:
                if mine:
                    yield shard
                else:
                    held.append(shard)
        shards = held
