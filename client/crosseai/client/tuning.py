"""How many files to decode and requests to send at a time, found out from the first seconds of a run."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from crosseai.client.flow import Places
from crosseai.client.meter import Meter

WINDOW_S = 2.0
WINDOW_IMAGES = 64
WORTH_IT = 1.05
"""Ratio of rates from which more work at a time is better, and not chance."""


@dataclass(frozen=True, slots=True)
class Knob:
    """How much of something may be under way at a time.

    Parameters
    ----------
    places
        Places for it.
    most
        Their greatest number.
    """

    places: Places
    most: int


async def tune(knobs: Sequence[Knob], meter: Meter) -> None:
    """Double one knob after the other for as long as the rate of images grows; the last doubling stays."""
    rate = await _rate(meter)
    for knob in knobs:
        while knob.places.size < knob.most:
            before = rate
            knob.places.resize(min(2 * knob.places.size, knob.most))
            rate = await _rate(meter)
            if rate < WORTH_IT * before:
                break


async def _rate(meter: Meter) -> float:
    """Images a second, over a few seconds and enough images."""
    began, done = time.monotonic(), meter.done
    while time.monotonic() - began < WINDOW_S or meter.done - done < WINDOW_IMAGES:
        await asyncio.sleep(WINDOW_S / 10)
    return (meter.done - done) / (time.monotonic() - began)
