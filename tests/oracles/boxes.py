"""The box algorithm of the design's section 4 in plain NumPy and Python, written for clarity from the text alone.

Every step is in double precision. The C++ code shares nothing with it: largest rectangles come from a stack over
histogram bars here (or from trying every rectangle), and rings are counted pixel by pixel.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

Box = tuple[int, int, int, int]
Map = npt.NDArray[np.float64]
Mask = npt.NDArray[np.uint8]


def enlarge(heatmap: npt.NDArray[Any], height: int, width: int) -> Map:
    """Bilinear, half-pixel centres, clamped edges."""
    for axis, size in enumerate((height, width)):
        old = heatmap.shape[axis]
        position = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
        lower = np.floor(position).astype(int)
        upper = np.minimum(lower + 1, old - 1)
        weight = (position - lower).reshape([-1, 1] if axis == 0 else [1, -1])
        source = heatmap.astype(np.float64)
        heatmap = source.take(lower, axis) * (1 - weight) + source.take(upper, axis) * weight
    return heatmap


def rescale(image: npt.NDArray[Any]) -> Map:
    """Min..max to 0..255; a constant map becomes zeros."""
    image = image.astype(np.float64)
    low, high = image.min(), image.max()
    return np.zeros_like(image) if low == high else 255 * (image - low) / (high - low)


def box_radii(sigma_px: float) -> tuple[int, ...]:
    """Three radii, equal or one apart, whose boxes together have the variance nearest to a Gaussian's."""
    candidates = [
        (radius,) * narrow + (radius + 1,) * (3 - narrow) for radius in range(int(sigma_px) + 2) for narrow in (3, 2, 1)
    ]  # of two that are equally near, the narrower one
    return min(candidates, key=lambda radii: round(abs(sum((r**2 + r) / 3 for r in radii) - sigma_px**2), 9))


def smooth(image: Map, sigma_px: float) -> Map:
    """Three box filters in each direction, the border repeated."""
    for axis in (0, 1):
        for radius in box_radii(sigma_px):
            padding = [(radius, radius) if a == axis else (0, 0) for a in (0, 1)]
            padded = np.pad(image, padding, mode="edge")
            image = np.mean(
                [padded.take(np.arange(image.shape[axis]) + k, axis) for k in range(2 * radius + 1)], axis=0
            )
    return image


def fuse(
    heatmap: npt.NDArray[Any],
    gradient_map: npt.NDArray[Any],
    t: float = 0.30,
    gradient_power: float = 1.0,
    gradient_sigma: float = 0.0,
) -> Map:
    """Weighted average of both maps."""
    height, width = gradient_map.shape
    gradient = smooth((rescale(gradient_map) / 255) ** gradient_power, gradient_sigma * min(height, width))
    return t * rescale(enlarge(heatmap, height, width)) + (1 - t) * rescale(gradient)


def binarize(fused: npt.NDArray[Any], threshold: float = 0.35) -> Mask:
    """Pixels above a share of the maximum."""
    if fused.max() <= 0:
        return np.zeros(fused.shape, np.uint8)
    return (fused > threshold * fused.max()).astype(np.uint8)


def all_rectangles(mask: Mask) -> Iterator[Box]:
    """Every rectangle of ones."""
    height, width = mask.shape
    for y0, x0 in product(range(height), range(width)):
        for y1, x1 in product(range(y0 + 1, height + 1), range(x0 + 1, width + 1)):
            if mask[y0:y1, x0:x1].all():
                yield x0, y0, x1, y1


def order(box: Box) -> tuple[int, ...]:
    """Largest area first, then smallest y0, x0, y1."""
    x0, y0, _, y1 = box
    return -area(box), y0, x0, y1


def area(box: Box) -> int:
    """Pixels of a box."""
    x0, y0, x1, y1 = box
    return (x1 - x0) * (y1 - y0)


def bar_rectangles(mask: Mask) -> Iterator[Box]:
    """Every rectangle of ones that is widest for its height and bottom row; the largest ones are among them."""
    height, width = mask.shape
    bars = np.zeros(width, int)
    for bottom in range(height):
        bars = (bars + 1) * mask[bottom]
        open_bars: list[tuple[int, int]] = []  # (left edge, height), heights increasing
        for x, bar in enumerate([*bars.tolist(), 0]):
            left = x
            while open_bars and open_bars[-1][1] >= bar:
                left, tall = open_bars.pop()
                if tall:
                    yield left, bottom + 1 - tall, x, bottom + 1
            open_bars.append((left, bar))


def maximal_rectangles(
    mask: Mask, max_candidates: int = 8, min_area: int = 1, *, brute_force: bool = False
) -> list[Box]:
    """Largest rectangles, each cleared before the next is sought."""
    left = mask.copy()
    candidates: list[Box] = []
    while len(candidates) < max_candidates:
        rectangles = all_rectangles(left) if brute_force else bar_rectangles(left)
        best = min(rectangles, key=order, default=None)
        if best is None or area(best) < min_area:
            break
        candidates.append(best)
        x0, y0, x1, y1 = best
        left[y0:y1, x0:x1] = 0
    return candidates


def expand(mask: Mask, box: Box) -> Box:
    """Rings are added while ones are at least as many as zeros in each."""
    height, width = mask.shape
    while True:
        x0, y0, x1, y1 = box
        grown = max(x0 - 1, 0), max(y0 - 1, 0), min(x1 + 1, width), min(y1 + 1, height)
        ring = np.zeros(mask.shape, bool)
        ring[grown[1] : grown[3], grown[0] : grown[2]] = True
        ring[y0:y1, x0:x1] = False
        if not ring.any() or (mask[ring] == 0).sum() > (mask[ring] == 1).sum():
            return box
        box = grown


def score(fused: npt.NDArray[Any], mask: Mask, box: Box) -> float:
    """Mean of the masked map over a box."""
    x0, y0, x1, y1 = box
    return float((fused.astype(np.float64) * mask)[y0:y1, x0:x1].mean())


def localize(
    heatmap: npt.NDArray[Any],
    gradient_map: npt.NDArray[Any],
    t: float = 0.30,
    threshold: float = 0.35,
    max_candidates: int = 8,
    min_area: int = 1,
) -> list[tuple[Box, float]]:
    """Every expanded candidate with its score; the first of the highest is the box."""
    fused = fuse(heatmap, gradient_map, t)
    mask = binarize(fused, threshold)
    boxes = [expand(mask, box) for box in maximal_rectangles(mask, max_candidates, min_area)]
    return [(box, score(fused, mask, box)) for box in boxes]
