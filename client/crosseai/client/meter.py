"""How far a run is, and where its time goes."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import TypeVar

from crosseai.contract import ImageFailure, ImageResult, Stage

Result = TypeVar("Result")


class Meter:
    """Counts of a run, for the event loop's thread alone.

    Attributes
    ----------
    total
        Files found.
    done
        Files with an outcome, those of earlier runs included.
    scored
        Images that this run scored.
    positive
        Images that this run called positive, by disease.
    failures
        Files that failed in this run, by the stage that they failed in.
    seconds
        Time spent in each stage, summed over what runs side by side: ``decode`` and ``boxes`` in threads, ``wait``
        for a free place at a server, ``request`` until its answer, ``write``.
    """

    def __init__(self) -> None:
        self.total = 0
        self.done = 0
        self.scored = 0
        self.positive: Counter[str] = Counter()
        self.failures: Counter[Stage] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def count(self, outcome: ImageResult | ImageFailure) -> None:
        """Count what became of a file."""
        if isinstance(outcome, ImageFailure):
            self.failures[outcome.stage] += 1
        else:
            self.scored += 1
            self.positive.update(disease for disease, positive in outcome.positive.items() if positive)

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
