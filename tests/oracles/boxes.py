"""The box algorithm of the design's section 4 in plain NumPy and Python, written for clarity from the text alone.

Every step is in double precision. The C++ code shares nothing with it: largest rectangles come from a stack over
histogram bars here (or from trying every rectangle), components from filling, and rings are counted pixel by pixel.
What goes beyond that section is written from the documentation of ``localize``.
"""

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

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


def shape_gradient(
    gradient_map: npt.NDArray[Any],
    gradient_positive: bool = False,
    gradient_percentile: float = 100.0,
    gradient_power: float = 1.0,
    gradient_sigma: float = 0.0,
) -> Map:
    """The gradient map as the keywords change it, in their order."""
    gradient = gradient_map.astype(np.float64)
    if gradient_positive:
        gradient = np.maximum(gradient, 0)
    rank = max(1, math.ceil(gradient_percentile * gradient.size / 100))  # NumPy rounds such a rank otherwise
    gradient = np.minimum(gradient, np.sort(gradient, axis=None)[rank - 1])
    return smooth((rescale(gradient) / 255) ** gradient_power, gradient_sigma * min(gradient.shape))


def fuse(heatmap: npt.NDArray[Any], gradient_map: npt.NDArray[Any], t: float = 0.30, **shape: Any) -> Map:
    """Weighted average of both maps."""
    height, width = gradient_map.shape
    gradient = shape_gradient(gradient_map, **shape)
    return t * rescale(enlarge(heatmap, height, width)) + (1 - t) * rescale(gradient)


def close(mask: Mask, closing: float) -> Mask:
    """Dilation, then erosion, by a square; zeros beyond the border for the one, ones for the other."""
    radius = int(np.floor(closing * min(mask.shape) + 0.5))
    size = (2 * radius + 1, 2 * radius + 1)
    dilated = sliding_window_view(np.pad(mask, 2 * radius), size).max((2, 3))  # with a margin of one radius
    return sliding_window_view(dilated, size).min((2, 3))


def binarize(fused: npt.NDArray[Any], threshold: float = 0.35, closing: float = 0.0) -> Mask:
    """Pixels above a share of the maximum, and the gaps between them."""
    if fused.max() <= 0:
        return np.zeros(fused.shape, np.uint8)
    return close((fused > threshold * fused.max()).astype(np.uint8), closing)


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


def component_boxes(mask: Mask) -> Iterator[Box]:
    """Bounding box of each 8-connected component."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    while left:
        component, border = [], [left.pop()]
        while border:
            y, x = border.pop()
            component.append((y, x))
            neighbours = {(y + dy, x + dx) for dy, dx in product((-1, 0, 1), repeat=2)} & left
            left -= neighbours
            border += neighbours
        ys, xs = zip(*component, strict=True)
        yield min(xs), min(ys), max(xs) + 1, max(ys) + 1


def contains(outer: Box, inner: Box) -> bool:
    """Whether one box lies in another."""
    return outer[0] <= inner[0] and outer[1] <= inner[1] and outer[2] >= inner[2] and outer[3] >= inner[3]


def unextendable_rectangles(mask: Mask, *, brute_force: bool = False) -> Iterator[Box]:
    """Every rectangle of ones that lies in no larger one."""
    found = set(all_rectangles(mask) if brute_force else bar_rectangles(mask))
    height, width = mask.shape
    for x0, y0, x1, y1 in found:
        larger = (x0 - 1, y0, x1, y1), (x0, y0 - 1, x1, y1), (x0, y0, x1 + 1, y1), (x0, y0, x1, y1 + 1)
        inside = (box for box in larger if contains((0, 0, width, height), box))
        if not any(mask[b:d, a:c].all() for a, b, c, d in inside):
            yield x0, y0, x1, y1


def find_candidates(
    mask: Mask,
    candidates: str = "greedy",
    max_candidates: int = 8,
    min_area: int = 1,
    min_area_share: float = 0.0,
    *,
    brute_force: bool = False,
) -> list[Box]:
    """The largest boxes by one of the rules."""
    least = max(min_area, math.ceil(min_area_share * mask.size))
    if candidates == "greedy":
        return maximal_rectangles(mask, max_candidates, least, brute_force=brute_force)
    all_boxes = (
        component_boxes(mask) if candidates == "components" else unextendable_rectangles(mask, brute_force=brute_force)
    )
    return sorted((box for box in all_boxes if area(box) >= least), key=order)[:max_candidates]


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
    closing: float = 0.0,
    candidates: str = "greedy",
    max_candidates: int = 8,
    min_area: int = 1,
    min_area_share: float = 0.0,
    **shape: Any,
) -> list[tuple[Box, float]]:
    """Every expanded candidate with its score; the first of the highest is the box."""
    fused = fuse(heatmap, gradient_map, t, **shape)
    mask = binarize(fused, threshold, closing)
    found = find_candidates(mask, candidates, max_candidates, min_area, min_area_share)
    return [(box, score(fused, mask, box)) for box in (expand(mask, box) for box in found)]


def criterion(candidate: tuple[Box, float], area_power: float = 0.0) -> float:
    """What candidates are compared by."""
    box, mean = candidate
    return float(mean * area(box) ** area_power)


def overlap(a: Box, b: Box) -> bool:
    """Whether two boxes share a pixel."""
    return max(a[0], b[0]) < min(a[2], b[2]) and max(a[1], b[1]) < min(a[3], b[3])


def select_many(
    candidates: list[tuple[Box, float]], area_power: float, score_ratio: float, max_boxes: int
) -> list[tuple[Box, float]]:
    """The best candidate and the next best ones that overlap none before them."""
    ranked = sorted(candidates, key=lambda candidate: -criterion(candidate, area_power))
    selected: list[tuple[Box, float]] = []
    for candidate in ranked:
        if criterion(candidate, area_power) < score_ratio * criterion(ranked[0], area_power):
            break
        if not any(overlap(candidate[0], other) for other, _ in selected):
            selected.append(candidate)
    return selected[:max_boxes]
