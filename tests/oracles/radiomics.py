"""Gray level co-occurrence and its features, pixel by pixel and sum by sum, after PyRadiomics' documentation."""

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import numpy.typing as npt

STEPS = ((0, 1), (1, 1), (1, 0), (1, -1))


def texture_features(region: npt.NDArray[np.floating], bin_width: float) -> dict[str, float]:
    """Mean of each feature over the directions that have a pair of pixels."""
    lowest = math.floor(region.min() / bin_width)
    levels = [[math.floor(gray / bin_width) - lowest + 1 for gray in row] for row in region.tolist()]
    found = [_features(_pairs(levels, step), max(map(max, levels))) for step in STEPS]
    present = [features for features in found if features] or [_features({(1, 1): 1.0}, 1)]
    return {name: sum(features[name] for features in present) / len(present) for name in present[0]}


def _pairs(levels: list[list[int]], step: tuple[int, int]) -> dict[tuple[int, int], float]:
    """Share of every ordered pair of levels, both ways round."""
    counts: dict[tuple[int, int], int] = {}
    for y, x in product(range(len(levels)), range(len(levels[0]))):
        v, u = y + step[0], x + step[1]
        if v < len(levels) and 0 <= u < len(levels[0]):
            for pair in ((levels[y][x], levels[v][u]), (levels[v][u], levels[y][x])):
                counts[pair] = counts.get(pair, 0) + 1
    total = sum(counts.values())
    return {pair: count / total for pair, count in counts.items()}


def _features(p: dict[tuple[int, int], float], size: int) -> dict[str, float]:
    if not p:
        return {}

    def total(term: Callable[[int, int], float]) -> float:
        return sum(share * term(i, j) for (i, j), share in p.items())

    px = [sum(share for (i, _), share in p.items() if i == level) for level in range(1, size + 1)]
    py = [sum(share for (_, j), share in p.items() if j == level) for level in range(1, size + 1)]
    minus = [sum(share for (i, j), share in p.items() if abs(i - j) == k) for k in range(size)]
    plus = [sum(share for (i, j), share in p.items() if i + j == k) for k in range(2, 2 * size + 1)]
    mx, my = total(lambda i, j: i), total(lambda i, j: j)
    sx, sy = math.sqrt(total(lambda i, j: (i - mx) ** 2)), math.sqrt(total(lambda i, j: (j - my) ** 2))
    average = sum(k * share for k, share in enumerate(minus))
    hxy, hx, hy = _bits(list(p.values())), _bits(px), _bits(py)
    hxy1 = -total(lambda i, j: math.log2(px[i - 1] * py[j - 1]))
    hxy2 = _bits([a * b for a in px for b in py])
    return {
        "Autocorrelation": total(lambda i, j: i * j),
        "ClusterProminence": total(lambda i, j: (i + j - mx - my) ** 4),
        "ClusterShade": total(lambda i, j: (i + j - mx - my) ** 3),
        "ClusterTendency": total(lambda i, j: (i + j - mx - my) ** 2),
        "Contrast": total(lambda i, j: (i - j) ** 2),
        "Correlation": (total(lambda i, j: i * j) - mx * my) / (sx * sy) if sx * sy > 1e-12 else 1.0,
        "DifferenceAverage": average,
        "DifferenceEntropy": _bits(minus),
        "DifferenceVariance": sum((k - average) ** 2 * share for k, share in enumerate(minus)),
        "Id": total(lambda i, j: 1 / (1 + abs(i - j))),
        "Idm": total(lambda i, j: 1 / (1 + (i - j) ** 2)),
        "Idmn": total(lambda i, j: 1 / (1 + (i - j) ** 2 / size**2)),
        "Idn": total(lambda i, j: 1 / (1 + abs(i - j) / size)),
        "Imc1": (hxy - hxy1) / max(hx, hy) if max(hx, hy) > 0 else 0.0,
        "Imc2": math.sqrt(max(0.0, 1 - math.exp(-2 * (hxy2 - hxy)))),
        "InverseVariance": total(lambda i, j: 1 / (i - j) ** 2 if i != j else 0.0),
        "JointAverage": mx,
        "JointEnergy": sum(share**2 for share in p.values()),
        "JointEntropy": hxy,
        "MaximumProbability": max(p.values()),
        "SumEntropy": _bits(plus),
        "SumSquares": sx**2,
    }


def _bits(shares: list[float]) -> float:
    return -sum(share * math.log2(share) for share in shares if share > 0)
