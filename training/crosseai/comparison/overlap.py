"""How much boxes overlap."""

from typing import Any

import numpy as np
import numpy.typing as npt


def overlaps(
    boxes: npt.NDArray[Any], truth: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """IoU, and IoBB of Wang et al. 2017 (section 4.2): intersection over the area of the detected box.

    Parameters
    ----------
    boxes
        Half-open ``(x0, y0, x1, y1)``, ``[..., 4]``; zeros, which mean no box, overlap nothing.
    truth
        Boxes with an area in the same frame, of a shape that broadcasts.

    Returns
    -------
    tuple of ndarray
        float64 ``[...]``, 0..1.
    """
    boxes = boxes.astype(np.float64)
    shared = (np.minimum(boxes[..., 2:], truth[..., 2:]) - np.maximum(boxes[..., :2], truth[..., :2])).clip(0).prod(-1)
    area, true_area = ((box[..., 2:] - box[..., :2]).prod(-1) for box in (boxes, truth))
    return shared / (area + true_area - shared), shared / np.maximum(area, np.finfo(np.float64).tiny)
