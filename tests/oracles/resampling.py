"""Area interpolation as its definition says: the mean of the source over each destination pixel's footprint."""

from fractions import Fraction

import numpy as np
import numpy.typing as npt


def area_mean(image: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.float64]:
    """Shrink ``(H, W)`` to ``(side, side)``, H and W at least ``side``."""
    height, width = image.shape
    mean: npt.NDArray[np.float64] = _coverage(height, side) @ image @ _coverage(width, side).T
    return mean


def _coverage(source: int, destination: int) -> npt.NDArray[np.float64]:
    """Row d, column s: which share of destination pixel d the source pixel s covers."""
    step = Fraction(source, destination)
    return np.array(
        [
            [float(max(Fraction(0), min((d + 1) * step, s + 1) - max(d * step, s)) / step) for s in range(source)]
            for d in range(destination)
        ]
    )
