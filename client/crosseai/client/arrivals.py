"""Files as they arrive in a directory, such as a PACS drops them."""

import asyncio
import threading
from pathlib import Path

from crosseai.client.discovery import discover, name_of
from crosseai.client.flow import Stream
from crosseai.client.meter import Meter

LOOK_EVERY_S = 2.0
STOP_EVERY_S = 0.2


async def arrivals(
    directory: Path, output: Path, finished: set[str], stop: threading.Event, meter: Meter
) -> Stream[Path]:
    """Every file once, when it is complete: not empty, and of the same size and time at two looks.

    Parameters
    ----------
    directory, output
        As for :func:`crosseai.client.discovery.discover`.
    finished
        Names of files to leave out; those that arrive are added.
    stop
        Ends the stream.
    meter
        Counts the files.
    """
    growing: dict[str, tuple[int, int]] = {}
    while not stop.is_set():
        for path in discover(directory, output):
            name = name_of(path, directory)
            if name in finished or stop.is_set():
                continue
            state = _state(path)
            if state is not None and growing.get(name) == state:
                del growing[name]
                finished.add(name)
                meter.total += 1
                yield path
            elif state is not None:
                growing[name] = state
        for _ in range(round(LOOK_EVERY_S / STOP_EVERY_S)):
            if not stop.is_set():
                await asyncio.sleep(STOP_EVERY_S)


def _state(path: Path) -> tuple[int, int] | None:
    """Size and time of a file with content; None of one that is empty, gone or no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns) if status.st_size else None
