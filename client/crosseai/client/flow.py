"""Bounded concurrency over asynchronous streams.

A stream is an asynchronous generator; closing the last one of a chain closes all of them, and what they started.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import TypeAlias, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Stream: TypeAlias = AsyncGenerator[Item, None]


async def stream(items: Iterable[Item]) -> Stream[Item]:
    """The items of an ordinary iterable."""
    for item in items:
        yield item


async def map_ordered(function: Callable[[Item], Awaitable[Result]], items: Stream[Item], limit: int) -> Stream[Result]:
    """Apply a coroutine function to a stream, at most ``limit`` items at a time, and yield results in order.

    Memory is bounded by ``limit``, whatever the length of the stream. The first error ends the stream and cancels
    what is under way.
    """
    running: deque[asyncio.Future[Result]] = deque()
    async with aclosing(items):
        try:
            async for item in items:
                running.append(asyncio.ensure_future(function(item)))
                if len(running) >= limit:
                    yield await running.popleft()
            while running:
                yield await running.popleft()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


async def batched(
    items: Stream[Item], size: int, counts: Callable[[Item], bool] = lambda _: True
) -> Stream[list[Item]]:
    """Group a stream into lists of ``size`` items that count, and at most ``8 * size`` items in all."""
    batch: list[Item] = []
    filled = 0
    async with aclosing(items):
        async for item in items:
            batch.append(item)
            filled += counts(item)
            if filled == size or len(batch) == 8 * size:
                yield batch
                batch, filled = [], 0
    if batch:
        yield batch
