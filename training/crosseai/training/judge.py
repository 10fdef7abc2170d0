"""A classifier judged on labelled images: ranking, decisions and calibration, each with its interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crosseai.contract import UNCERTAIN, ModelSpec
from crosseai.training.bootstrap import Estimate, estimate
from crosseai.training.evaluation import FloatArray, Labels, check_scores, roc_auc

WANG_2017_AUC: Mapping[str, float] = {
    "Atelectasis": 0.7069,
    "Cardiomegaly": 0.8141,
    "Effusion": 0.7362,
    "Infiltration": 0.6128,
    "Mass": 0.5609,
    "Nodule": 0.7164,
    "Pneumonia": 0.6333,
    "Pneumothorax": 0.7891,
}
"""ResNet-50 of Wang et al. 2017 (ChestX-ray8, table 3) on its authors' test images."""

SCALP_MEAN_AUC = 0.839
"""Mean over the eight diseases by Jaiswal et al. 2021 (SCALP), the classifier that CrossEAI builds on."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One disease. Figures are NaN without a positive or without a negative image.

    Parameters
    ----------
    positives, negatives
        Numbers of images; uncertain ones are neither.
    auc
        Area under the ROC curve.
    sensitivity, specificity
        At the operating point.
    brier
        Mean squared difference of calibrated probability and label (Brier 1950).
    """

    positives: int
    negatives: int
    auc: Estimate
    sensitivity: Estimate
    specificity: Estimate
    brier: Estimate


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A classifier on a set of images.

    Parameters
    ----------
    images, patients
        Their numbers.
    diseases
        By name, in the order of the model's classes.
    mean_auc
        Mean over the diseases that have an AUC.
    """

    images: int
    patients: int
    diseases: dict[str, Judgement]
    mean_auc: Estimate

    @property
    def auc(self) -> dict[str, float]:
        """AUC of every disease."""
        return {name: judgement.auc.value for name, judgement in self.diseases.items()}


def judge(spec: ModelSpec, labels: Labels, logits: FloatArray, patients: Sequence[str]) -> Evaluation:
    """Judge logits by labels.

    Parameters
    ----------
    spec
        Gives calibration and operating points.
    labels
        uint8 ``[n, C]`` in {0, 1, UNCERTAIN}.
    logits
        float32 ``[n, C]``.
    patients
        Patient of each image.

    Raises
    ------
    InputError
        If a logit is not finite, or the shapes differ.
    """
    check_scores(labels, logits, spec.classes)
    probabilities = spec.probabilities(logits)
    called = spec.positive(probabilities)

    def statistics(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        rows = [
            _disease_statistics(labels[:, c], logits[:, c], probabilities[:, c], called[:, c], weights)
            for c in range(len(spec.classes))
        ]
        table = np.stack(rows, 1)  # [b, C, 4]
        return np.concatenate([table.reshape(len(weights), -1), _mean(table[:, :, 0])[:, None]], 1)

    *figures, mean_auc = estimate(statistics, patients)
    diseases = {
        name: Judgement(int((labels[:, c] == 1).sum()), int((labels[:, c] == 0).sum()), *figures[4 * c : 4 * c + 4])
        for c, name in enumerate(spec.classes)
    }
    return Evaluation(len(labels), len(set(patients)), diseases, mean_auc)


def _disease_statistics(
    labels: npt.NDArray[np.uint8],
    logits: FloatArray,
    probabilities: FloatArray,
    called: npt.NDArray[np.bool_],
    weights: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """AUC, sensitivity, specificity and Brier score of one disease for weights ``[b, n]``, float64 ``[b, 4]``."""
    known = labels != UNCERTAIN
    weights, positive, called = weights[:, known], labels[known] == 1, called[known]
    error = (probabilities[known] - positive).astype(np.float64) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        figures = np.stack(
            [
                roc_auc(positive, logits[known], weights),
                weights @ (positive & called) / (weights @ positive),
                weights @ ~(positive | called) / (weights @ ~positive),
                weights @ error / weights.sum(1),
            ],
            1,
        )
    figures[np.isnan(figures[:, 0])] = np.nan
    return figures


def _mean(auc: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean of each row ``[b, C]`` over what is not NaN."""
    defined = ~np.isnan(auc)
    with np.errstate(invalid="ignore"):
        means: npt.NDArray[np.float64] = np.where(defined, auc, 0).sum(1) / defined.sum(1)
    return means
