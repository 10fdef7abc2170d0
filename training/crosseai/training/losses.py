"""The losses of CrossEAI (arXiv 2310.19835, section 3.1): equations 1 to 3."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from crosseai.contract import UNCERTAIN


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    class_reduction: Literal["sum", "mean"] = "sum",
    positive_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Binary cross-entropy (equation 2), summed over diseases and averaged over images.

    Parameters
    ----------
    logits
        ``[N, C]``.
    labels
        Integers ``[N, C]``: 0, 1, or ``UNCERTAIN``, which adds nothing to the loss.
    class_reduction
        ``sum`` as in the paper; ``mean`` divides by C, as SCALP's code does.
    positive_weight
        ``[C]``, factor of the positive term of each disease.
    label_smoothing
        Share of a label that is moved towards 0.5.

    Returns
    -------
    Tensor
        Scalar.
    """
    targets = (labels == 1).to(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none", pos_weight=positive_weight)
    total = losses.masked_fill(labels == UNCERTAIN, 0).sum() / len(logits)
    return total if class_reduction == "sum" else total / logits.shape[1]


def contrastive_loss(
    embeddings: Tensor,
    labels: Tensor,
    patients: Tensor,
    *,
    contrast: Literal["disease", "patient"] = "disease",
    temperature: float = 0.5,
    positive_in_denominator: bool = True,
) -> Tensor:
    """Patient-based supervised contrastive loss (equation 1), averaged over the positive pairs of a batch.

    Every ordered pair of images ``(i, j)`` of one patient that share a disease gives one term. Its negatives are the
    images of other patients with a disease that the pair shares: where the paper draws k of them at random, these are
    all that the batch holds. A pair without a negative gives no term. A patient's only image, and one without any
    finding, are never anchors.

    Parameters
    ----------
    embeddings
        ``[N, E]``, of any length: similarity is the cosine.
    labels
        Integers ``[N, C]``; only 1 is a disease.
    patients
        Integers ``[N]``, equal for images of one patient.
    contrast
        ``disease`` as above; with ``patient`` a pair need not share a disease, and its negatives are all other images
        of the batch (SCALP's code).
    temperature
        Tau.
    positive_in_denominator
        Whether the sum over k includes the positive, as in InfoNCE (van den Oord et al. 2018). The paper does not say;
        without it the loss is not bounded from below.

    Returns
    -------
    Tensor
        Scalar; 0 without any pair.
    """
    same_patient = patients[:, None] == patients
    others = ~torch.eye(len(patients), dtype=torch.bool, device=patients.device)
    if contrast == "disease":
        diseases = (labels == 1).float()
        anchors, positives = (same_patient & others & (diseases @ diseases.T > 0)).nonzero(as_tuple=True)
        negatives = ((diseases[anchors] * diseases[positives]) @ diseases.T > 0) & ~same_patient[anchors]
    else:
        anchors, positives = (same_patient & others).nonzero(as_tuple=True)
        negatives = others[anchors] & others[positives]
    contrasted = negatives.any(1)
    anchors, positives, negatives = anchors[contrasted], positives[contrasted], negatives[contrasted]

    unit = F.normalize(embeddings, dim=1)
    scores = unit[anchors] @ unit.T / temperature  # [pairs, N]
    positive = scores.gather(1, positives[:, None])  # [pairs, 1]
    denominator = scores.masked_fill(~negatives, -torch.inf)
    if positive_in_denominator:
        denominator = denominator.scatter(1, positives[:, None], positive)
    return (denominator.logsumexp(1) - positive.squeeze(1)).sum() / max(1, len(anchors))
