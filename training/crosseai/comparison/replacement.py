"""Insertion and deletion for any method: whether its own network uses the pixels that its map shows."""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crosseai.contract import ModelSpec
from crosseai.training.evaluation import Images

STEPS = 32
"""Of insertion and of deletion; the authors take 224."""

BLUR_TAPS, BLUR_SIGMA_PX = (11, 11), 5
"""The Gaussian of the authors' code."""


def replacement_scores(
    logits: Callable[[Images], npt.NDArray[np.float32]],
    spec: ModelSpec,
    images: Images,
    classes: npt.NDArray[np.int64],
    maps: npt.NDArray[np.float32],
    steps: int = STEPS,
) -> npt.NDArray[np.float64]:
    """Insertion and deletion (Petsiuk et al., BMVC 2018) of one map for each image, float64 ``[N, 2]``, 0..1.

    Insertion: area under the calibrated probability while a blurred image becomes sharp, the brightest pixels of the
    map first; the higher the better. Deletion: while the image becomes gray, zero after normalisation; the lower the
    better.

    Parameters
    ----------
    logits
        From uint8 images ``[B, 1, S, S]`` to logits float32 ``[B, C]``.
    spec
        Calibration and mean gray.
    images
        uint8 ``[N, 1, S, S]``.
    classes
        int64 ``[N]``.
    maps
        float32 ``[N, S, S]``.
    steps
        Of either curve.
    """
    gray = round(255 * spec.mean[0])
    scores = np.empty((len(images), 2))
    for n, (image, disease) in enumerate(zip(images, classes.tolist(), strict=True)):

        def probability(batch: Tensor, disease: int = disease) -> npt.NDArray[np.float64]:
            return spec.probabilities(logits(batch.numpy()))[:, disease].astype(np.float64)

        blurred = cv2.GaussianBlur(image[0], BLUR_TAPS, BLUR_SIGMA_PX, borderType=cv2.BORDER_REPLICATE)[None]
        sharp, blur, blank = (torch.from_numpy(one) for one in (image, blurred, np.full_like(image, gray)))
        scores[n] = [replacement_area(probability, *pair, maps[n], steps) for pair in ((blur, sharp), (sharp, blank))]
    return scores


def replacement_area(
    probability: Callable[[Tensor], npt.NDArray[np.float64]],
    start: Tensor,
    end: Tensor,
    intensity: npt.NDArray[np.float32],
    steps: int,
) -> float:
    """Area under the probability while the pixels of one image become those of another (Petsiuk et al., BMVC 2018).

    Parameters
    ----------
    probability
        From images ``[B, channels, S, S]`` to the probability of the finding ``[B]``.
    start, end
        Images ``[channels, S, S]``.
    intensity
        float32 ``[S, S]``: the brightest pixels are replaced first, of equal ones the first, row by row.
    steps
        In how many equal steps.

    Returns
    -------
    float
        Mean height of the polygon through the ``steps + 1`` probabilities, 0..1.
    """
    order = np.argsort(-intensity.ravel(), kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    counts = np.linspace(0, len(order), steps + 1).round()
    replaced = torch.from_numpy(rank.reshape(intensity.shape) < counts[:, None, None])[:, None]
    return float(np.trapezoid(probability(torch.where(replaced, end, start)), dx=1 / steps))
