"""Finding the files that end the process that decodes them."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context

from crosseai.client.sources.storage import ImageFile, read_file
from crosseai.imaging import ReadPolicy, decode_radiograph


def deadly(files: Sequence[ImageFile], decode: Callable[[ImageFile], None]) -> Iterator[ImageFile]:
    """The files that end a process, each tried in one of its own where the one before it did.

    Parameters
    ----------
    files
        What is suspected.
    decode
        Does with a file what is dangerous; can be pickled, and raises nothing.
    """
    pool = _pool()
    try:
        for file in files:
            try:
                pool.submit(decode, file).result()
            except BrokenProcessPool:
                pool.shutdown()
                pool = _pool()
                yield file
    finally:
        pool.shutdown()


def try_decoding(reading: ReadPolicy, file: ImageFile) -> None:
    """Read and decode a file as a run does."""
    with suppress(Exception):  # what can be told of a file, the run tells
        decode_radiograph(read_file(file.location, reading), reading)


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))
