"""Two versions on the same labelled images: the new one must not be worse than the champion.

Non-inferiority, as trials ask it: images are drawn with replacement, both versions are judged on the same draw, and of
the differences the 5 % quantile must not lie below the accepted drop.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from crosseai.client.evaluation import intersection_over_union, read_scored_boxes
from crosseai.client.explain import read_labels
from crosseai.client.promotion.gates import GateResult, Gates, NoWorse, Reference
from crosseai.client.records.tables import PREDICTIONS
from crosseai.client.scoring import score_directory
from crosseai.client.sources.discovery import image_name
from crosseai.contract import InputError

RESAMPLES = 1000
QUANTILE = 0.05

Floats = npt.NDArray[np.float64]
Metric = Callable[[Floats], Floats]
"""From weights of the images, ``[draws, n]``, to the metric of each draw, ``[draws]``."""

_EDGES = ("x0", "y0", "x1", "y1")


@dataclass(frozen=True, slots=True)
class Scored:
    """One version's answers on a reference set.

    Parameters
    ----------
    auc
        Mean AUC over diseases, or None without labels.
    iou
        Mean over diseases of the mean IoU, or None without boxes.
    auc_images, iou_images
        Images of each metric, in order; equal for two versions, or they cannot be compared.
    """

    auc: Metric | None
    iou: Metric | None
    auc_images: tuple[str, ...]
    iou_images: tuple[str, ...]


def check_reference(gates: Gates, new: Mapping[str, Any], champion: Mapping[str, Any] | None) -> list[GateResult]:
    """Evaluate the gates on the reference set.

    Parameters
    ----------
    gates
        What is asked.
    new, champion
        Who answers: ``server`` and ``model_version``, or ``model``, as ``score_directory`` takes them.
    """
    asked = {name: limit for name in ("mean_auc", "mean_iou") if (limit := getattr(gates, name)) is not None}
    if not asked:
        return []
    if gates.reference is None:
        return [GateResult(name, holds=False, found="there is no reference set") for name in asked]
    try:
        ours = score_reference(gates.reference, new)
        theirs = score_reference(gates.reference, champion) if champion is not None else None
    except InputError as error:
        return [GateResult(name, holds=False, found=str(error)) for name in asked]
    return [_no_worse(name, limit, ours, theirs) for name, limit in asked.items()]


def score_reference(reference: Reference, who: Mapping[str, Any]) -> Scored:
    """Have a version score the reference set.

    Raises
    ------
    InputError
        If an image cannot be scored or is not labelled, or no disease is both present and absent.
    """
    with TemporaryDirectory(prefix="crosseai-reference-") as scratch:
        explain = "none" if reference.boxes is None else str(reference.boxes)
        summary = score_directory(reference.images, scratch, explain=explain, **who)
        if summary.counts.failed:
            raise InputError(f"{reference.images}: expected only radiographs, {summary.counts.failed} failed")
        auc, auc_images = _auc(Path(scratch), reference.labels) if reference.labels else (None, ())
        iou, iou_images = _iou(Path(scratch), reference.boxes) if reference.boxes else (None, ())
    return Scored(auc, iou, auc_images, iou_images)


def weighted_auc(positive: npt.NDArray[np.bool_], scores: npt.NDArray[Any], weights: Floats) -> Floats:
    """Area under the ROC curve for each of many weightings of the images, ties counting half.

    Parameters
    ----------
    positive, scores
        ``[n]``.
    weights
        float64 ``[draws, n]``, how often each image was drawn.

    Returns
    -------
    ndarray
        float64 ``[draws]``; NaN where a draw has no positive or no negative image.
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # of each distinct score
    drawn = weights[:, order]
    positives = np.add.reduceat(drawn * positive[order], starts, axis=1)
    negatives = np.add.reduceat(drawn * ~positive[order], starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    with np.errstate(invalid="ignore"):
        auc: Floats = (positives * (below + negatives / 2)).sum(axis=1) / pairs
    return auc


def _no_worse(name: str, limit: NoWorse, new: Scored, champion: Scored | None) -> GateResult:
    kind = name.removeprefix("mean_")
    ours = getattr(new, kind)
    if ours is None:
        return GateResult(name, holds=False, found="the reference set has no labels or boxes for it")
    images = getattr(new, f"{kind}_images")
    value = float(ours(np.ones((1, len(images))))[0])
    if np.isnan(value):
        return GateResult(name, holds=False, found="no disease of the reference set can be judged")
    if champion is None:
        return GateResult(name, holds=True, found=f"{value:.4f}, there is no champion yet")
    theirs = getattr(champion, kind)
    if images != getattr(champion, f"{kind}_images"):
        return GateResult(name, holds=False, found="the versions have scored different images")
    draws = np.random.default_rng(0).multinomial(len(images), np.full(len(images), 1 / len(images)), RESAMPLES)
    differences = [ours(part) - theirs(part) for part in np.array_split(draws.astype(np.float64), RESAMPLES // 50)]
    low = float(np.nanquantile(np.concatenate(differences), QUANTILE))
    before = float(theirs(np.ones((1, len(images))))[0])
    found = (
        f"{value:.4f}, the champion has {before:.4f}; with 95 % confidence not lower by more than {max(0.0, -low):.4f}"
    )
    return GateResult(name, low >= -limit.max_drop, found)


def _auc(scored: Path, labels_csv: Path) -> tuple[Metric, tuple[str, ...]]:
    table = pq.read_table(scored / f"{PREDICTIONS}.parquet").to_pydict()
    diseases = [column.removeprefix("p_") for column in table if column.startswith("p_")]
    labels = read_labels(labels_csv, diseases)
    names = [image_name(path) for path in table["path"]]
    unlabelled = [name for name in names if name not in labels]
    if unlabelled:
        raise InputError(f"{labels_csv}: expected labels of every image, found none of {len(unlabelled)}")
    order = np.argsort(table["image_id"], kind="stable")
    positive = np.array([[d in labels[names[i]] for d in range(len(diseases))] for i in order])
    scores = np.array([[table[f"p_{d}"][i] for d in diseases] for i in order])

    def mean_auc(weights: Floats) -> Floats:
        return _mean_of_defined([weighted_auc(positive[:, d], scores[:, d], weights) for d in range(len(diseases))])

    return mean_auc, tuple(table["image_id"][i] for i in order)


def _iou(scored: Path, boxes_csv: Path) -> tuple[Metric, tuple[str, ...]]:
    predicted, truth, _ = read_scored_boxes(scored, boxes_csv)
    if not truth.num_rows:
        raise InputError(f"{boxes_csv}: expected boxes of the reference images, found none")
    found = {(b["image_id"], b["disease"]): [b[e] for e in _EDGES] for b in predicted.to_pylist()}
    rows = sorted(truth.to_pylist(), key=lambda box: [box[key] for key in ("image_id", "disease", *_EDGES)])
    ious = np.array(
        [
            intersection_over_union(found.get((b["image_id"], b["disease"]), (0, 0, 0, 0)), [b[e] for e in _EDGES])
            for b in rows
        ]
    )
    images, image_of_row = np.unique([box["image_id"] for box in rows], return_inverse=True)
    disease_of_row = np.array([box["disease"] for box in rows])

    def mean_iou(weights: Floats) -> Floats:
        drawn = weights[:, image_of_row]
        with np.errstate(invalid="ignore"):
            return _mean_of_defined(
                [
                    (drawn * ious)[:, rows_of].sum(axis=1) / drawn[:, rows_of].sum(axis=1)
                    for rows_of in (disease_of_row == disease for disease in np.unique(disease_of_row))
                ]
            )

    return mean_iou, tuple(images.tolist())


def _mean_of_defined(per_disease: Sequence[Floats]) -> Floats:
    """Mean over diseases, ``[draws]``, without those that are NaN; NaN where all are."""
    values = np.stack(per_disease)
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(defined, values, 0).sum(axis=0) / defined.sum(axis=0)
    return mean
