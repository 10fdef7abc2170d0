import asyncio
import time

import pytest

from crosseai.client import tuning
from crosseai.client.flow import Places
from crosseai.client.tuning import Knob, tune


class SteadyMeter:
    """Counts images at a rate that grows with the places of a knob, up to ``useful`` of them."""

    def __init__(self, knob: Knob, useful: int) -> None:
        self._knob, self._useful = knob, useful
        self._last, self._done = time.monotonic(), 0.0

    @property
    def done(self) -> float:
        now = time.monotonic()
        self._done += 100_000 * (now - self._last) * min(self._knob.places.size, self._useful)
        self._last = now
        return self._done


@pytest.mark.parametrize(("useful", "found"), [(1, 2), (2, 4), (5, 16), (100, 16)])
def test_doubled_for_as_long_as_it_helps(monkeypatch: pytest.MonkeyPatch, useful: int, found: int) -> None:
    monkeypatch.setattr(tuning, "WINDOW_S", 0.05)

    async def run() -> tuple[Knob, Knob]:
        knob, other = (Knob(Places(1), most=16) for _ in range(2))
        await tune([knob, other], SteadyMeter(knob, useful))  # type: ignore[arg-type]
        for _ in range(knob.places.size):
            await knob.places.acquire()
        assert knob.places.locked()
        return knob, other

    knob, other = asyncio.run(run())
    assert knob.places.size == found
    assert other.places.size == 2, "one doubling, which does not help"
