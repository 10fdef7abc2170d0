import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosseai.client.flow import Places, Stream, batched, map_ordered, stream


@given(st.lists(st.integers(0, 3), max_size=20), st.integers(1, 5))
def test_order_is_kept_and_concurrency_is_bounded(delays: list[int], limit: int) -> None:
    running, peak = 0, 0

    async def slow(delay: int) -> int:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        for _ in range(delay):
            await asyncio.sleep(0)
        running -= 1
        return delay

    async def collect() -> list[int]:
        return [result async for result in map_ordered(slow, stream(delays), limit)]

    assert asyncio.run(collect()) == delays
    assert peak <= limit


def test_a_slow_consumer_holds_the_map_up() -> None:
    """It is ahead by its limit and one item: what of a run is lost with its process (docs/scale.md)."""
    ahead = 0

    async def scored(item: int) -> int:
        nonlocal ahead
        ahead += 1
        return item

    async def consume() -> int:
        nonlocal ahead
        most = 0
        async for _ in map_ordered(scored, stream(range(30)), limit=3):
            for _ in range(20):
                await asyncio.sleep(0)
            most = max(most, ahead)
            ahead -= 1
        return most

    assert asyncio.run(consume()) == 3 + 1


def test_an_error_cancels_what_is_under_way() -> None:
    cancelled = []

    async def work(item: int) -> int:
        if item == 1:
            raise ValueError(item)
        try:
            await asyncio.sleep(60 if item > 1 else 0)
        except asyncio.CancelledError:
            cancelled.append(item)
            raise
        return item

    async def collect() -> None:
        async for _ in map_ordered(work, stream([0, 1, 2, 3]), limit=4):
            pass

    with pytest.raises(ValueError, match="1"):
        asyncio.run(collect())
    assert cancelled == [2, 3]


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 4))
def test_batches_hold_size_items(items: list[int], size: int) -> None:
    async def collect() -> list[list[int]]:
        return [batch async for batch in batched(stream(items), size)]

    batches = asyncio.run(collect())
    assert [item for batch in batches for item in batch] == items
    assert all(len(batch) == size for batch in batches[:-1])
    assert all(batch for batch in batches)


def test_work_goes_on_while_the_consumer_is_busy() -> None:
    begun = []

    async def work(item: int) -> int:
        begun.append(item)
        return item

    async def collect() -> None:
        async with aclosing(map_ordered(work, stream(range(100)), limit=4)) as results:
            async for _ in results:
                await asyncio.sleep(0.01)
                assert begun == list(range(5)), "one was taken, four wait"
                break

    asyncio.run(collect())


def test_an_error_upstream_comes_after_what_was_before_it() -> None:
    async def source() -> Stream[int]:
        yield 1
        yield 2
        raise ValueError("source")

    async def same(item: int) -> int:
        return item

    async def collect() -> list[int]:
        found = []
        with pytest.raises(ValueError, match="source"):
            async for item in map_ordered(same, source(), limit=3):
                found.append(item)  # noqa: PERF401 - it must outlive the error
        return found

    assert asyncio.run(collect()) == [1, 2]


def test_closing_the_end_closes_the_chain() -> None:
    closed = []

    async def source() -> Stream[int]:
        try:
            for item in range(100):
                yield item
        finally:
            closed.append("source")

    async def same(item: int) -> int:
        return item

    async def collect() -> list[int]:
        first = []
        async with aclosing(map_ordered(same, batched(source(), 2), limit=3)) as results:
            async for result in results:
                first.append(result)
                break
        assert closed == ["source"]
        return first

    assert asyncio.run(collect()) == [[0, 1]]


def test_a_batch_does_not_wait_long_for_its_last_items() -> None:
    async def source() -> Stream[int]:
        yield 1
        yield 2
        await asyncio.sleep(0.5)
        yield 3

    async def collect() -> list[list[int]]:
        return [batch async for batch in batched(source(), 8, patience_s=0.05)]

    assert asyncio.run(collect()) == [[1, 2], [3]]


@given(st.integers(1, 6), st.lists(st.one_of(st.integers(1, 6), st.sampled_from(["take", "give"])), max_size=30))
def test_places_follow_their_size(size: int, steps: list[int | str]) -> None:
    async def run() -> int:
        places, taken = Places(size), 0
        for step in steps:
            if isinstance(step, int):
                places.resize(step)
            elif step == "take" and not places.locked():
                await places.acquire()
                taken += 1
            elif step == "give" and taken:
                places.release()
                taken -= 1
        while not places.locked():
            await places.acquire()
            taken += 1
        for _ in range(taken):
            places.release()
        free = 0
        while not places.locked():
            await places.acquire()
            free += 1
        assert free == places.size
        return free

    assert asyncio.run(run()) == next((step for step in reversed(steps) if isinstance(step, int)), size)
