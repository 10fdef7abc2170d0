"""Insertion and deletion for any method: whether its own network uses the pixels that its map shows."""

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crosseai.comparison.explanation_scores import replacement_area
from crosseai.comparison.method import Localiser
from crosseai.training.evaluation import Images

STEPS = 32
"""Of insertion and of deletion; the authors take 224."""

BLUR_TAPS, BLUR_SIGMA_PX = (11, 11), 5
"""The Gaussian of the authors' code."""


def replacement_scores(
    localiser: Localiser, images: Images, classes: npt.NDArray[np.int64], maps: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Insertion and deletion (Petsiuk et al., BMVC 2018) of one map for each image, float64 ``[N, 2]``, 0..1.

    Insertion: area under the calibrated probability while a blurred image becomes sharp, the brightest pixels of the
    map first; the higher the better. Deletion: while the image becomes gray, zero after normalisation; the lower the
    better.
    """
    spec = localiser.spec
    gray = round(255 * spec.mean[0])
    scores = np.empty((len(images), 2))
    for n, (image, disease) in enumerate(zip(images, classes.tolist(), strict=True)):

        def probability(batch: Tensor, disease: int = disease) -> npt.NDArray[np.float64]:
            return spec.probabilities(localiser.logits(batch.numpy()))[:, disease].astype(np.float64)

        blurred = cv2.GaussianBlur(image[0], BLUR_TAPS, BLUR_SIGMA_PX, borderType=cv2.BORDER_REPLICATE)[None]
        sharp, blur, blank = (torch.from_numpy(one) for one in (image, blurred, np.full_like(image, gray)))
        scores[n] = [replacement_area(probability, *pair, maps[n], STEPS) for pair in ((blur, sharp), (sharp, blank))]
    return scores
