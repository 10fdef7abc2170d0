"""DICOM's grayscale transform, one pixel at a time, written from the pseudo-code of PS3.3 C.11.1 and C.11.2."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Lut:
    """``LUTDescriptor`` and ``LUTData``: the first value mapped, the bits of an entry, the entries."""

    first: int
    bits: int
    entries: tuple[int, ...]

    def look_up(self, x: float) -> int:
        position = math.floor(x) - self.first
        return self.entries[min(max(position, 0), len(self.entries) - 1)]


@dataclass(frozen=True)
class Transform:
    """The attributes of a file that say how its stored values are displayed."""

    bits: int
    signed: bool = False
    inverted: bool = False
    slope: float = 1.0
    intercept: float = 0.0
    modality_lut: Lut | None = None
    voi_lut: Lut | None = None
    window: tuple[float, float] | None = None
    function: Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"] = "LINEAR"
    padding: tuple[int, int] | None = None


def displayed_shares(pixels: Sequence[int], transform: Transform) -> list[float]:
    """Brightness of every pixel, 0..1."""
    shown = [value for value in pixels if not _is_padding(value, transform)]
    shares = []
    for value in pixels:
        if _is_padding(value, transform):
            shares.append(0.0)
            continue
        share = _values_of_interest(_modality(value, transform), shown, transform)
        shares.append(1.0 - share if transform.inverted else share)
    return shares


def _is_padding(value: int, transform: Transform) -> bool:
    return transform.padding is not None and min(transform.padding) <= value <= max(transform.padding)


def _storable(transform: Transform) -> range:
    low = -(2 ** (transform.bits - 1)) if transform.signed else 0
    return range(low, low + 2**transform.bits)


def _modality(value: int, transform: Transform) -> float:
    if transform.modality_lut is not None:
        return transform.modality_lut.look_up(value)
    return transform.slope * value + transform.intercept


def _values_of_interest(x: float, shown: Sequence[int], transform: Transform) -> float:
    if transform.voi_lut is not None:
        return transform.voi_lut.look_up(x) / (2**transform.voi_lut.bits - 1)
    if transform.window is not None:
        return _window(x, *transform.window, transform.function)
    if transform.bits <= 8:
        ends = [_modality(value, transform) for value in _storable(transform)]
    else:
        ends = [_modality(value, transform) for value in shown]
    return (x - min(ends)) / (max(ends) - min(ends))


def _window(x: float, center: float, width: float, function: str) -> float:
    if function == "SIGMOID":
        return 1 / (1 + math.exp(min(-4 * (x - center) / width, 700)))
    if function == "LINEAR_EXACT":
        if x <= center - width / 2:
            return 0.0
        if x > center + width / 2:
            return 1.0
        return (x - center) / width + 0.5
    if x <= center - 0.5 - (width - 1) / 2:
        return 0.0
    if x > center - 0.5 + (width - 1) / 2:
        return 1.0
    return (x - (center - 0.5)) / (width - 1) + 0.5
