"""How good a classifier is: logits of a part, AUC per disease."""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from crosseai.contract import UNCERTAIN, InputError, ModelSpec

FloatArray = npt.NDArray[np.floating]
Images = npt.NDArray[np.uint8]
"""Preprocessed radiographs ``[n, 1, S, S]``."""
Labels = npt.NDArray[np.uint8]
"""``[n, C]`` in {0, 1, UNCERTAIN}."""


class ImageSource(Protocol):
    """Preprocessed radiographs that are read by position: an array, or a cache of decoded images."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, 1, S, S)``."""

    def __getitem__(self, rows: npt.NDArray[np.int64] | slice, /) -> Images:
        """Those at some positions, ``[rows, 1, S, S]``."""


def normalise(images: Tensor, spec: ModelSpec) -> Tensor:
    """Gray values 0..255 of any dtype ``[N, 1, S, S]`` to the network's input, as the served graph does it.

    Returns
    -------
    Tensor
        float32 ``[N, spec.channels, S, S]``, on the images' device.
    """
    mean, std = (images.new_tensor(values, dtype=torch.float32).view(1, -1, 1, 1) for values in (spec.mean, spec.std))
    return (images.float() / 255 - mean) / std


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    images: ImageSource,
    spec: ModelSpec,
    *,
    rows: npt.NDArray[np.int64] | None = None,
    batch_size: int = 64,
) -> npt.NDArray[np.float32]:
    """Logits of preprocessed images.

    Parameters
    ----------
    model
        On any device; left in evaluation mode.
    images
        uint8 ``[n, 1, S, S]``; only a batch is read at a time.
    rows
        Positions of the images to predict; all by default.

    Returns
    -------
    ndarray
        float32 ``[rows, C]``.
    """
    model.eval()
    rows = np.arange(images.shape[0]) if rows is None else rows
    device = next((parameter.device for parameter in model.parameters()), None)
    batches = [
        model(normalise(torch.from_numpy(images[rows[start : start + batch_size]]).to(device), spec)).float().cpu()
        for start in range(0, len(rows), batch_size)
    ]
    logits: npt.NDArray[np.float32] = torch.cat(batches).numpy()
    return logits


def roc_auc(
    positive: npt.NDArray[np.bool_], scores: FloatArray, weights: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.float64]:
    """Area under the ROC curve: the chance that a positive outscores a negative, ties counting half.

    Parameters
    ----------
    positive
        bool ``[n]``.
    scores
        ``[n]``.
    weights
        How often each image counts, ``[..., n]``; once by default.

    Returns
    -------
    ndarray
        float64 ``[...]``; NaN where one of the two classes is absent.
    """
    weights = np.ones(len(scores)) if weights is None else weights
    if not len(scores):
        return np.full(weights.shape[:-1], np.nan)
    order = np.argsort(scores, kind="stable")
    ties = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])  # where each distinct score begins
    ordered = weights[..., order]
    positives = np.add.reduceat(ordered * positive[order], ties, -1)
    negatives = np.add.reduceat(ordered * ~positive[order], ties, -1)
    outscored = np.cumsum(negatives, -1) - negatives / 2
    with np.errstate(invalid="ignore"):
        auc: npt.NDArray[np.float64] = (positives * outscored).sum(-1) / (positives.sum(-1) * negatives.sum(-1))
    return auc


def check_scores(labels: Labels, scores: FloatArray, classes: Sequence[str]) -> None:
    """Refuse scores that cannot be compared with labels.

    Raises
    ------
    InputError
        If the scores are not finite, or the shapes differ.
    """
    if labels.shape != scores.shape or labels.shape[1:] != (len(classes),):
        raise InputError(f"AUC: expected labels and scores [n, {len(classes)}], found {labels.shape}, {scores.shape}")
    if not np.isfinite(scores).all():
        raise InputError("AUC: expected finite scores, found NaN or infinity")


def auc_per_class(labels: Labels, scores: FloatArray, classes: Sequence[str]) -> dict[str, float]:
    """AUC of every disease; NaN where a disease has no positive or no negative image.

    Parameters
    ----------
    labels
        uint8 ``[n, C]`` in {0, 1, UNCERTAIN}; uncertain ones do not count.
    scores
        ``[n, C]``, logits or probabilities.

    Raises
    ------
    InputError
        If the scores are not finite, or the shapes differ.
    """
    check_scores(labels, scores, classes)
    known = labels != UNCERTAIN
    return {name: float(roc_auc(labels[known[:, c], c] == 1, scores[known[:, c], c])) for c, name in enumerate(classes)}


def mean_auc(aucs: Mapping[str, float]) -> float:
    """Mean over the diseases that have an AUC; NaN when none has."""
    defined = [auc for auc in aucs.values() if not math.isnan(auc)]
    return sum(defined) / len(defined) if defined else math.nan
