"""How good a classifier is: logits of a part, AUC per disease, operating points."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from crosseai.contract import InputError, ModelSpec

FloatArray = npt.NDArray[np.floating]
Images = npt.NDArray[np.uint8]
"""Preprocessed radiographs ``[n, 1, S, S]``."""
Labels = npt.NDArray[np.uint8]
"""``[n, C]`` in {0, 1}."""


def normalise(images: Tensor, spec: ModelSpec) -> Tensor:
    """Gray values 0..255 of any dtype ``[N, 1, S, S]`` to the network's float32 input, as the served graph does it."""
    return (images.float() / 255 - spec.mean[0]) / spec.std[0]


@torch.inference_mode()
def predict_logits(
    model: nn.Module, images: Images, spec: ModelSpec, *, batch_size: int = 64
) -> npt.NDArray[np.float32]:
    """Logits of preprocessed images.

    Parameters
    ----------
    model
        Left in evaluation mode.
    images
        uint8 ``[n, 1, S, S]``.

    Returns
    -------
    ndarray
        float32 ``[n, C]``.
    """
    model.eval()
    batches = [
        model(normalise(torch.from_numpy(images[start : start + batch_size]), spec))
        for start in range(0, len(images), batch_size)
    ]
    logits: npt.NDArray[np.float32] = torch.cat(batches).numpy()
    return logits


def roc_auc(positive: npt.NDArray[np.bool_], scores: FloatArray) -> float:
    """Area under the ROC curve: the chance that a positive outscores a negative, ties counting half.

    Computed from mid-ranks (the Mann-Whitney statistic); NaN when one of the two classes is absent.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return math.nan
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    mid_ranks = np.cumsum(sizes) - (sizes - 1) / 2  # of each distinct score, counted from 1
    rank_sum = float(mid_ranks[group][positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def auc_per_class(labels: Labels, scores: FloatArray, classes: Sequence[str]) -> dict[str, float]:
    """AUC of every disease; NaN where a disease has no positive or no negative image.

    Parameters
    ----------
    labels
        uint8 ``[n, C]`` in {0, 1}.
    scores
        ``[n, C]``, logits or probabilities.

    Raises
    ------
    InputError
        If the scores are not finite, or the shapes differ.
    """
    if labels.shape != scores.shape or labels.shape[1:] != (len(classes),):
        raise InputError(f"AUC: expected labels and scores [n, {len(classes)}], found {labels.shape}, {scores.shape}")
    if not np.isfinite(scores).all():
        raise InputError("AUC: expected finite scores, found NaN or infinity")
    return {name: roc_auc(labels[:, c] == 1, scores[:, c]) for c, name in enumerate(classes)}


def mean_auc(aucs: Mapping[str, float]) -> float:
    """Mean over the diseases that have an AUC; NaN when none has."""
    defined = [auc for auc in aucs.values() if not math.isnan(auc)]
    return sum(defined) / len(defined) if defined else math.nan


def youden_point(positive: npt.NDArray[np.bool_], probabilities: FloatArray) -> float:
    """Probability at and above which to call an image positive: greatest sensitivity + specificity (Youden 1950).

    The threshold lies midway between two neighbouring probabilities, so that rounding in another runtime changes no
    call. Of equally good ones the highest is taken; 0.5 when one of the two classes is absent.
    """
    if positive.all() or not positive.any():
        return 0.5
    candidates = np.unique(probabilities).astype(np.float64)
    misses = np.searchsorted(np.sort(probabilities[positive]), candidates)  # positives below each threshold
    rejections = np.searchsorted(np.sort(probabilities[~positive]), candidates)  # negatives below it
    youden = rejections / (~positive).sum() - misses / positive.sum()
    best = int(np.flatnonzero(youden >= youden.max() - 1e-12)[-1])
    below = candidates[best - 1] if best else 0.0
    return float((candidates[best] + below) / 2)


def operating_points(labels: Labels, logits: FloatArray) -> tuple[float, ...]:
    """Youden's operating point of every disease, as probabilities; choose them on validation images, never on test."""
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return tuple(youden_point(labels[:, c] == 1, probabilities[:, c]) for c in range(labels.shape[1]))
