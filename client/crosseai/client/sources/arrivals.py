"""Files as they arrive in a directory, such as a PACS drops them."""

import asyncio
import threading
from collections.abc import Container, Sequence
from pathlib import Path
from typing import TypeAlias

from crosseai.client.flow import Stream
from crosseai.client.meter import Meter
from crosseai.client.sources.discovery import discover, name_of
from crosseai.client.sources.storage import ImageFile

LOOK_EVERY_S = 2.0
STOP_EVERY_S = 0.2

_State: TypeAlias = tuple[int, int]


async def arrivals(
    directory: Path, output: Path, finished: Container[str], stop: threading.Event, meter: Meter
) -> Stream[ImageFile]:
    """Every file once, when it is complete: not empty, and of the same size and time at two looks.

    Parameters
    ----------
    directory, output
        As for :func:`crosseai.client.sources.discovery.discover`.
    finished
        Names of files to leave out.
    stop
        Ends the stream.
    meter
        Counts the files.
    """
    growing: dict[str, _State] = {}
    arrived: set[str] = set()
    while not stop.is_set():
        for path in await asyncio.to_thread(_complete, directory, output, (finished, arrived), growing):
            if stop.is_set():
                return
            file = ImageFile(name_of(path, directory), str(path))
            arrived.add(file.name)
            meter.total += 1
            yield file
        for _ in range(round(LOOK_EVERY_S / STOP_EVERY_S)):
            if not stop.is_set():
                await asyncio.sleep(STOP_EVERY_S)


def _complete(directory: Path, output: Path, known: Sequence[Container[str]], growing: dict[str, _State]) -> list[Path]:
    """Files that are as they were at the last look; ``growing`` remembers how the others are now."""
    complete = []
    for path in discover(directory, output):
        name = name_of(path, directory)
        state = None if any(name in names for names in known) else _state(path)
        if state is not None and growing.pop(name, None) == state:
            complete.append(path)
        elif state is not None:
            growing[name] = state
    return complete


def _state(path: Path) -> _State | None:
    """Size and time of a file with content; None of one that is empty, gone or no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns) if status.st_size else None
