"""One shard of the cache of decoded images: a file of pixels, and an index with a key and a checksum for each image.

Checksums tell what is done: an image without one is decoded, and so is one that differs from its own when it is read.
That covers a first use, a build that was interrupted, and a file that was spoilt.
"""

import fcntl
import hashlib
import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crosseai.contract import InputError, ModelSpec
from crosseai.imaging import preprocess, read_radiograph

INDEX_SUFFIX = ".index.npy"

_ENTRY = np.dtype([("key", "S32"), ("crc32", np.uint32)])


class Shard:
    """Pixels and checksums of some images; those that are wanted have a file to decode.

    Parameters
    ----------
    index
        Its file.
    """

    def __init__(self, index: Path) -> None:
        entries = np.load(index)
        self.index, self.file = index, _pixels_file(index)
        self.keys: list[bytes] = entries["key"].tolist()
        self.checksums: npt.NDArray[np.uint32] = entries["crc32"]
        self.sources: dict[int, Path] = {}
        self.pixels: npt.NDArray[np.uint8]

    @classmethod
    def new(cls, folder: Path, keys: Sequence[bytes], side: int) -> "Shard":
        """Files for images that are not decoded yet; the index comes last, so that what has one is whole.

        Raises
        ------
        OSError
            If the disk is full.
        """
        index = folder / f"{hashlib.sha256(b''.join(keys)).hexdigest()[:16]}{INDEX_SUFFIX}"
        entries = np.zeros(len(keys), _ENTRY)
        entries["key"] = keys
        _new_pixels(_pixels_file(index), (len(keys), 1, side, side))
        with _replaced(index) as partial, partial.open("wb") as stream:
            np.save(stream, entries)
        return cls(index)

    def open(self, spec: ModelSpec, pool: Executor) -> list[int]:
        """Map the files, while they are locked.

        A few images are decoded to be compared: where they are others now, the code has changed, and all are dropped.

        Returns
        -------
        list of int
            Positions of the wanted images that are missing.
        """
        self.checksums = np.load(self.index, mmap_mode="r+")["crc32"]
        shape = (len(self.keys), 1, spec.input_size, spec.input_size)
        if not self._map(shape) or any(pool.map(lambda at: self._outdated(at, spec), self._samples())):
            self.checksums[:] = 0
            _new_pixels(self.file, shape)
            self._map(shape)
        _reserve(self.file)
        return self.missing()

    def missing(self) -> list[int]:
        """Positions of the wanted images that have no checksum."""
        return [at for at in self.sources if not self.checksums[at]]

    def decode(self, at: int, spec: ModelSpec) -> None:
        """Decode an image into its place.

        Raises
        ------
        InputError
            If it is corrupted.
        """
        self.pixels[at] = _decoded(self.sources[at], spec)
        self.checksums[at] = zlib.crc32(self.pixels[at])

    def _map(self, shape: tuple[int, ...]) -> bool:
        """Whether the file of pixels could be mapped, and is what it should be."""
        try:
            self.pixels = np.load(self.file, mmap_mode="r+")
        except (OSError, ValueError, EOFError):
            return False
        return self.pixels.shape == shape and bool(self.pixels.dtype == np.uint8)

    def _samples(self) -> list[int]:
        held = [at for at in self.sources if self.checksums[at]]
        return sorted({held[0], held[len(held) // 2], held[-1]}) if held else []

    def _outdated(self, at: int, spec: ModelSpec) -> bool:
        """Whether an image is not spoilt, and yet another than would be decoded now; if it can be decoded at all."""
        if zlib.crc32(self.pixels[at]) != self.checksums[at]:
            return False
        try:
            return not np.array_equal(self.pixels[at], _decoded(self.sources[at], spec))
        except InputError:
            return False


@contextmanager
def locked(file: Path, *, wait: bool = True) -> Iterator[bool]:
    """Whether a file's lock was got, against other processes and machines; for certain if it is waited for."""
    with file.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _decoded(path: Path, spec: ModelSpec) -> npt.NDArray[np.uint8]:
    try:
        return preprocess(read_radiograph(path), spec)
    except InputError:
        raise
    except Exception as error:
        # Only the kind is told: the message may hold identifiers.
        raise InputError(f"{path}: the decoder failed with {type(error).__name__}") from None


def _pixels_file(index: Path) -> Path:
    return index.with_name(f"{index.name.removesuffix(INDEX_SUFFIX)}.npy")


def _new_pixels(file: Path, shape: tuple[int, ...]) -> None:
    """Another file, so that those who have mapped the one before keep it."""
    with _replaced(file) as partial:
        np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
        _reserve(partial)


def _reserve(file: Path) -> None:
    """Take the blocks of a whole file: on a full disk an error here, and a crash once the pages are written."""
    with file.open("rb+") as stream:
        os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)


@contextmanager
def _replaced(file: Path) -> Iterator[Path]:
    """A name to write to, whose file takes the other's place once it is whole."""
    partial = file.with_suffix(".partial")
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
