"""Every method trained on one data set, and judged on the boxes of patients that it never saw."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crosseai.comparison.cohort import Cohort
from crosseai.comparison.method import Method
from crosseai.comparison.overlap import overlaps
from crosseai.comparison.predictions import Predictions, predict
from crosseai.comparison.proposals import found_by_any
from crosseai.comparison.scores import Resampled, Truth, by_row, hits
from crosseai.comparison.trained import OnEpoch, trained
from crosseai.contract import ModelSpec
from crosseai.training.config import FitConfig
from crosseai.training.judge import Evaluation, judge

TRAINED_FOLDER = "trained"


@dataclass(frozen=True, slots=True)
class Result:
    """One method, judged.

    Parameters
    ----------
    method
        Which.
    predictions
        What it says.
    iou
        Of the one box of each finding, float64 ``[findings]``.
    accuracy
        Share of findings with IoU >= T by row of the table and T(IoU).
    mean_iou
        Mean IoU by row.
    found_by_any, false_positives
        Of all its proposals, by the columns of :mod:`crosseai.comparison.proposals`.
    classification
        AUC on the images of the test part.
    """

    method: Method
    predictions: Predictions
    iou: npt.NDArray[np.float64]
    accuracy: Resampled
    mean_iou: Resampled
    found_by_any: Resampled
    false_positives: Resampled
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
    on_epoch
        Called after every epoch.

    Raises
    ------
    InputError
        If the folder holds something learnt in another way, or a method cannot be trained so.
    """
    rows = cohort.data.split.test
    findings, radiographs = cohort.boxes.of(rows), cohort.data.radiographs
    truth = Truth(findings, tuple(radiographs.patients[row] for row in findings.rows), radiographs.classes)
    results = []
    for method in methods:
        models = trained(method, cohort, config, output / TRAINED_FOLDER, weights=weights, on_epoch=on_epoch)
        localisers = ((method.load(config, folder), part.data.split.test) for part, folder in models)
        predictions = predict(localisers, cohort, rows, findings)
        results.append(judged(method, predictions, truth, cohort, rows, resamples=resamples))
    return Comparison(cohort, truth, tuple(results))


def judged(
    method: Method,
    predictions: Predictions,
    truth: Truth,
    cohort: Cohort,
    rows: npt.NDArray[np.int64],
    *,
    resamples: int = 1000,
) -> Result:
    """Score predictions of the findings of ``truth``, and of the images ``rows``."""
    iou, _ = overlaps(predictions.boxes, truth.findings.boxes)
    any_hits, false_positives = found_by_any(predictions.candidates, truth.findings.boxes)
    accuracy, mean_iou, found, false = (
        by_row(figures, truth, resamples=resamples) for figures in (hits(iou), iou[:, None], any_hits, false_positives)
    )
    radiographs = cohort.data.radiographs
    patients = [radiographs.patients[row] for row in rows]
    calibrated = ModelSpec(classes=radiographs.classes)  # as the logits are already
    classification = judge(calibrated, radiographs.labels[rows], predictions.logits, patients)
    return Result(method, predictions, iou, accuracy, mean_iou, found, false, classification)
