"""Several boxes for one finding: which one is told where one is asked for."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from crosseai.comparison.method import Boxes


def brightest(maps: npt.NDArray[np.float32], candidates: Sequence[Boxes]) -> Boxes:
    """The candidate of the highest mean intensity in each image; the larger, then the earlier of equals.

    The last step of CrossEAI's Algorithm 1, for every method that leaves the choice open: it does not look at the
    truth.

    Parameters
    ----------
    maps
        float32 ``[N, S, S]``.
    candidates
        int32 ``[k, 4]`` for each image.

    Returns
    -------
    ndarray
        int32 ``[N, 4]``; zeros where there is no candidate.
    """
    chosen = np.zeros((len(maps), 4), np.int32)
    for i, (intensity, boxes) in enumerate(zip(maps, candidates, strict=True)):
        if len(boxes):
            areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
            means = np.array([intensity[y0:y1, x0:x1].mean(dtype=np.float64) for x0, y0, x1, y1 in boxes])
            chosen[i] = boxes[np.lexsort((-areas, -means))[0]]
    return chosen
