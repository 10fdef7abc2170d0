"""How sure a figure is: the bootstrap over patients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Statistics: TypeAlias = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
"""From weights of the images ``[b, n]`` to statistics ``[b, k]``; NaN where one is not defined."""

_CHUNK = 50
"""Resamples computed at once: 10 MB of weights for NIH's test list."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95 % interval; NaN where it is not defined."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return "-" if np.isnan(self.value) else f"{self.value:.3f} ({self.low:.3f}-{self.high:.3f})"


def estimate(
    statistics: Statistics, patients: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> list[Estimate]:
    """Statistics of a set of images with 95 % percentile bootstrap intervals (Efron & Tibshirani 1993).

    Arguments as of :func:`resampled`. Resamples in which a statistic is not defined do not count for it.
    """
    values, drawn = resampled(statistics, patients, resamples=resamples, seed=seed)
    return [with_interval(value, column) for value, column in zip(values, drawn.T, strict=True)]


def resampled(
    statistics: Statistics, patients: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Statistics of a set of images, and of resamples of its patients.

    Patients are drawn, each with all images, because the images of a patient resemble one another. Equal patients and
    seeds give equal resamples, so that statistics of one set can be compared draw by draw.

    Parameters
    ----------
    statistics
        What to compute; an image drawn twice has the weight 2.
    patients
        Patient of each image.

    Returns
    -------
    tuple of ndarray
        float64 ``[k]`` and ``[resamples, k]``.
    """
    names, codes = np.unique(np.asarray(patients), return_inverse=True)
    random = np.random.default_rng(seed)
    drawn = []
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        counts = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size)
        drawn.append(statistics(counts[:, codes].astype(np.float64)))
    return statistics(np.ones((1, len(codes))))[0], np.concatenate(drawn)


def with_interval(value: float, drawn: npt.NDArray[np.float64]) -> Estimate:
    """A figure with the 95 % percentile interval of its resamples ``[resamples]``, of which NaN do not count."""
    return Estimate(float(value), *_interval(drawn))


def _interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    defined = values[~np.isnan(values)]
    if not len(defined):
        return np.nan, np.nan
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)
