"""The criterion of Wang et al. 2017 and of SCALP's code: whether any of the boxes that a method proposes is right."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from crosseai.client.evaluation import THRESHOLDS
from crosseai.comparison.method import Boxes
from crosseai.comparison.overlap import overlaps

IOBB_THRESHOLDS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""T(IoBB) of Wang et al. 2017, table 4."""

COLUMNS = (*(f"IoU > {t}" for t in THRESHOLDS), *(f"IoBB > {t}" for t in IOBB_THRESHOLDS))


def found_by_any(
    candidates: Sequence[Boxes], truth: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Hits and false positives for each true box (Wang et al. 2017, section 4.2).

    A finding is localised if any proposal has IoU > T(IoU), or IoBB > T(IoBB); every proposal that has not is a false
    positive. Their mean over findings is the accuracy, and the average number of false positives (AFP).

    Parameters
    ----------
    candidates
        int32 ``[k, 4]`` for each finding.
    truth
        float64 ``[n, 4]``.

    Returns
    -------
    tuple of ndarray
        float64 ``[n, COLUMNS]`` each.
    """
    hits, false_positives = np.empty((2, len(truth), len(COLUMNS)))
    for i, boxes in enumerate(candidates):
        iou, iobb = overlaps(boxes, truth[i])
        right = np.hstack([iou[:, None] > np.array(THRESHOLDS), iobb[:, None] > np.array(IOBB_THRESHOLDS)])
        hits[i], false_positives[i] = right.any(0), (~right).sum(0)
    return hits, false_positives
