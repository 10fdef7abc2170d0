"""Every method trained on one data set, and judged on the boxes of patients that it never saw."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crosseai.comparison.cohort import BoxedFindings, Cohort
from crosseai.comparison.explanation_scores import energy_in_box, pointing_game
from crosseai.comparison.gradcam import MapLocaliser
from crosseai.comparison.method import Boxes, Localiser, Method
from crosseai.comparison.overlap import overlaps
from crosseai.comparison.predictions import predict
from crosseai.comparison.proposals import found_by_any
from crosseai.comparison.sanity_check import SanityCheck
from crosseai.comparison.scores import Resampled, Truth, by_row, hits
from crosseai.comparison.trained import OnEpoch, trained
from crosseai.contract import ModelSpec
from crosseai.training.config import FitConfig
from crosseai.training.judge import Evaluation, judge

TRAINED_FOLDER = "trained"

EXPLANATION_SCORES = ("pointing game", "energy in the box", "insertion", "deletion")
"""Shares, and areas under a probability; of deletion the lower is the better."""

SANITY_FINDINGS = 16
"""Drawn at random for the sanity check, which explains each seven times."""


@dataclass(frozen=True, slots=True)
class Result:
    """One method, judged.

    Parameters
    ----------
    method
        Which.
    boxes
        The one box of each finding, int32 ``[findings, 4]``, model pixels.
    iou
        Its IoU, float64 ``[findings]``.
    accuracy
        Share of findings with IoU >= T by row of the table and T(IoU).
    mean_iou
        Mean IoU by row.
    found_by_any, false_positives
        Of all its proposals, by the columns of :mod:`crosseai.comparison.proposals`.
    explanation
        By row and ``EXPLANATION_SCORES``.
    replaced
        Number of findings behind insertion and deletion.
    sanity
        Of the maps, where they come from a classifier that can be made random.
    classification
        AUC on the images of the test part.
    """

    method: Method
    boxes: Boxes
    iou: npt.NDArray[np.float64]
    accuracy: Resampled
    mean_iou: Resampled
    found_by_any: Resampled
    false_positives: Resampled
    explanation: Resampled
    replaced: int
    sanity: SanityCheck | None
    classification: Evaluation


@dataclass(frozen=True, slots=True)
class Comparison:
    """Methods side by side.

    Parameters
    ----------
    cohort
        Patients, images, boxes.
    truth
        The boxes of the test part.
    results
        In the order of the table.
    """

    cohort: Cohort
    truth: Truth
    results: tuple[Result, ...]


def compare(
    cohort: Cohort,
    methods: Sequence[Method],
    config: FitConfig,
    output: Path,
    *,
    weights: Path | None = None,
    resamples: int = 1000,
    replaced: int = 100,
    on_epoch: OnEpoch = lambda _name, _epoch: None,
) -> Comparison:
    """Train what is not trained yet, and judge every method on the test part.

    Parameters
    ----------
    cohort
        With all boxes.
    methods
        Rows of the table.
    config
        What they share; its seed decides the division by patient, too.
    output
        Folder for what is learnt, one folder a training; what is whole there is not trained again.
    weights
        State dict that networks start from.
    resamples
        Of the bootstrap.
    replaced
        As of :func:`predict`.
    on_epoch
        Called after every epoch.

    Raises
    ------
    InputError
        If the folder holds something learnt in another way, or a method cannot be trained so.
    """
    results = []
    for method in methods:
        models = trained(method, cohort, config, output / TRAINED_FOLDER, weights=weights, on_epoch=on_epoch)
        localisers = [(method.load(config, folder), part.data.split.test) for part, folder in models]
        results.append(
            judged(method, localisers, cohort, cohort.data.split.test, resamples=resamples, replaced=replaced)
        )
    return Comparison(cohort, truth_of(cohort, cohort.data.split.test), tuple(results))


def judged(
    method: Method,
    localisers: Sequence[tuple[Localiser, npt.NDArray[np.int64]]],
    cohort: Cohort,
    rows: npt.NDArray[np.int64],
    *,
    resamples: int = 1000,
    replaced: int = 100,
) -> Result:
    """Judge a trained method on some images of a cohort.

    Parameters
    ----------
    localisers, rows, replaced
        As of :func:`predict`.
    resamples
        Of the bootstrap.
    """
    truth = truth_of(cohort, rows)
    findings, radiographs = truth.findings, cohort.data.radiographs
    predictions = predict(localisers, cohort, rows, findings, replaced=replaced)
    iou, _ = overlaps(predictions.boxes, findings.boxes)
    pointing = pointing_game(predictions.maps, findings.boxes, tolerance_px=0)
    energy = energy_in_box(predictions.maps, findings.boxes)
    explanation = np.column_stack([pointing, energy, predictions.replacement])
    figures = (hits(iou), iou[:, None], *found_by_any(predictions.candidates, findings.boxes), explanation)
    accuracy, mean_iou, found, false, scores = (by_row(columns, truth, resamples=resamples) for columns in figures)
    calibrated = ModelSpec(classes=radiographs.classes)  # as the logits are already
    patients = [radiographs.patients[row] for row in rows]
    return Result(
        method,
        predictions.boxes,
        iou,
        accuracy,
        mean_iou,
        found_by_any=found,
        false_positives=false,
        explanation=scores,
        replaced=int((~np.isnan(predictions.replacement[:, 0])).sum()),
        sanity=_sanity(localisers[0][0], cohort, findings),
        classification=judge(calibrated, radiographs.labels[rows], predictions.logits, patients),
    )


def truth_of(cohort: Cohort, rows: npt.NDArray[np.int64]) -> Truth:
    """The boxes in some images of a cohort."""
    findings, radiographs = cohort.boxes.of(rows), cohort.data.radiographs
    return Truth(findings, tuple(radiographs.patients[row] for row in findings.rows), radiographs.classes)


def _sanity(localiser: Localiser, cohort: Cohort, findings: BoxedFindings) -> SanityCheck | None:
    if not isinstance(localiser, MapLocaliser):
        return None
    drawn = np.random.default_rng(0).permutation(len(findings))[:SANITY_FINDINGS]
    return localiser.sanity_check(cohort.data.images[findings.rows[drawn]], findings.classes[drawn])
