"""Bounded concurrency over asynchronous streams."""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def map_ordered(
    function: Callable[[Item], Awaitable[Result]], items: AsyncIterable[Item], limit: int
) -> AsyncIterator[Result]:
    """Apply a coroutine function to a stream, at most ``limit`` items at a time, and yield results in order.

    Memory is bounded by ``limit``, whatever the length of the stream. The first error ends the stream and cancels
    what is under way.
    """
    running: deque[asyncio.Task[Result]] = deque()
    try:
        async for item in items:
            running.append(asyncio.ensure_future(_call(function, item)))
            if len(running) >= limit:
                yield await running.popleft()
        while running:
            yield await running.popleft()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def batched(
    items: AsyncIterable[Item], size: int, counts: Callable[[Item], bool] = lambda _: True
) -> AsyncIterator[list[Item]]:
    """Group a stream into lists holding ``size`` items that count, and any number that do not."""
    batch: list[Item] = []
    filled = 0
    async for item in items:
        batch.append(item)
        filled += counts(item)
        if filled == size:
            yield batch
            batch, filled = [], 0
    if batch:
        yield batch


async def _call(function: Callable[[Item], Awaitable[Result]], item: Item) -> Result:
    return await function(item)
