"""How far a run is, and where its time goes."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import TypeVar

Result = TypeVar("Result")


class Meter:
    """Counts of a run, for the event loop's thread alone.

    Attributes
    ----------
    total
        Files found.
    done
        Files with an outcome, those of earlier runs included.
    failed
        Files that failed in this run.
    seconds
        Time spent in each stage, summed over what runs side by side: ``decode`` and ``boxes`` in threads, ``wait``
        for a free place at a server, ``request`` until its answer, ``write``.
    """

    def __init__(self) -> None:
        self.total = 0
        self.done = 0
        self.failed = 0
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        """Add the duration of the context to a stage."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] += time.monotonic() - began

    async def in_thread(self, stage: str, executor: Executor, function: Callable[..., Result], *args: object) -> Result:
        """Call a function in a thread, and add the time that it runs to a stage."""
        result, seconds = await asyncio.get_running_loop().run_in_executor(executor, _timed, function, *args)
        self.seconds[stage] += seconds
        return result


def _timed(function: Callable[..., Result], *args: object) -> tuple[Result, float]:
    began = time.monotonic()
    result = function(*args)
    return result, time.monotonic() - began
