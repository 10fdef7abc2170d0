"""Bounded concurrency over asynchronous streams.

A stream is an asynchronous generator; closing the last one of a chain closes all of them, and what they started.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import TypeAlias, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Stream: TypeAlias = AsyncGenerator[Item, None]


class Places(asyncio.Semaphore):
    """A semaphore whose number of places may change.

    Attributes
    ----------
    size
        Places in all, free or taken; after a cut it is reached as places are given back.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size
        self._too_many = 0

    def resize(self, size: int) -> None:
        """Have so many places from now on."""
        added = size - self.size - self._too_many
        self.size, self._too_many = size, max(0, -added)
        for _ in range(added):
            super().release()

    def release(self) -> None:
        """Give a place back."""
        if self._too_many:
            self._too_many -= 1
        else:
            super().release()


async def stream(items: Iterable[Item]) -> Stream[Item]:
    """The items of an ordinary iterable."""
    for item in items:
        yield item


async def map_ordered(function: Callable[[Item], Awaitable[Result]], items: Stream[Item], limit: int) -> Stream[Result]:
    """Apply a coroutine function to a stream, at most ``limit`` items at a time, and yield results in order.

    Work goes on while the consumer is busy, until ``limit`` results wait for it and one more item has been taken:
    memory is bounded, whatever the length of the stream. The first error ends the stream and cancels what is under
    way.
    """
    started: asyncio.Queue[asyncio.Future[Result] | None] = asyncio.Queue()
    free = asyncio.Semaphore(limit)

    async def start() -> None:
        try:
            async with aclosing(items):
                async for item in items:
                    await free.acquire()
                    started.put_nowait(asyncio.ensure_future(function(item)))
        finally:
            started.put_nowait(None)

    starter = asyncio.ensure_future(start())
    running: asyncio.Future[Result] | None = None
    try:
        while (running := await started.get()) is not None:
            result = await running
            free.release()
            yield result
        await starter
    finally:
        starter.cancel()
        await asyncio.gather(starter, return_exceptions=True)
        unfinished = [running] if running else []
        while not started.empty():
            if task := started.get_nowait():
                unfinished.append(task)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)


async def batched(items: Stream[Item], size: int, patience_s: float | None = None) -> Stream[list[Item]]:
    """Group a stream into lists of ``size`` items.

    The last list may be shorter, and so is one whose next item does not come within ``patience_s``.
    """
    batch: list[Item] = []
    following: asyncio.Future[Item] | None = None
    async with aclosing(items):
        try:
            while True:
                following = following or asyncio.ensure_future(anext(items))
                await asyncio.wait([following], timeout=patience_s if batch else None)
                if following.done():
                    try:
                        batch.append(following.result())
                    except StopAsyncIteration:
                        break
                    following = None
                if len(batch) == size or following is not None:
                    yield batch
                    batch = []
        finally:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
    if batch:
        yield batch
