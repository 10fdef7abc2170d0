"""Figures of an evaluation against scikit-learn, and their intervals against a plain bootstrap."""

import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, recall_score, roc_auc_score

from crosseai.contract import UNCERTAIN, InputError, ModelSpec
from crosseai.training.bootstrap import Estimate, estimate
from crosseai.training.judge import judge

SPEC = ModelSpec(
    classes=("Mass", "Nodule", "Hernia"),
    calibration_slopes=(0.5, 2.0, 1.0),
    calibration_intercepts=(-1.0, 0.0, 0.0),
    operating_points=(0.3, 0.6, 0.5),
)


@pytest.fixture(scope="module")
def case() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """300 images of 100 patients; a disease that nobody has, and labels that nobody knows."""
    random = np.random.default_rng(0)
    labels = (random.random((300, 3)) < [0.2, 0.5, 0]).astype(np.uint8)
    logits = (random.normal(0, 2, (300, 3)) + labels).round(1).astype(np.float32)
    labels[:40, 1] = UNCERTAIN
    return labels, logits, [str(i // 3) for i in range(300)]


def test_figures_equal_scikit_learn(case: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    labels, logits, patients = case
    evaluation = judge(SPEC, labels, logits, patients)
    assert (evaluation.images, evaluation.patients) == (300, 100)
    for c, name in enumerate(("Mass", "Nodule")):
        known = labels[:, c] != UNCERTAIN
        truth, score = labels[known, c], logits[known, c].astype(np.float64)
        probability = 1 / (1 + np.exp(-(SPEC.calibration_slopes[c] * score + SPEC.calibration_intercepts[c])))
        called = probability >= SPEC.operating_points[c]
        found = evaluation.diseases[name]
        assert (found.positives, found.negatives) == (truth.sum(), (1 - truth).sum())
        assert found.auc.value == pytest.approx(roc_auc_score(truth, score))
        assert found.sensitivity.value == pytest.approx(recall_score(truth, called))
        assert found.specificity.value == pytest.approx(recall_score(truth, called, pos_label=0))
        assert found.brier.value == pytest.approx(brier_score_loss(truth, probability), rel=1e-5)
        for figure in (found.auc, found.sensitivity, found.specificity, found.brier):
            assert figure.low < figure.value < figure.high
    assert evaluation.mean_auc.value == pytest.approx(np.mean([evaluation.auc[name] for name in ("Mass", "Nodule")]))


def test_a_disease_without_a_positive_image_has_no_figures(case: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    found = judge(SPEC, *case).diseases["Hernia"]
    assert (found.positives, found.negatives) == (0, 300)
    for figure in (found.auc, found.sensitivity, found.specificity, found.brier):
        assert math.isnan(figure.value)
        assert math.isnan(figure.low)
        assert str(figure) == "-"


def test_intervals_are_those_of_resampled_patients(case: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    labels, logits, patients = case
    found = judge(SPEC, labels, logits, patients).diseases["Mass"].auc
    random = np.random.default_rng(1)
    of_patient = [np.flatnonzero(np.array(patients) == str(p)) for p in range(100)]
    drawn = [
        roc_auc_score(labels[rows, 0], logits[rows, 0])
        for rows in (np.concatenate([of_patient[p] for p in random.integers(0, 100, 100)]) for _ in range(800))
    ]
    assert (found.low, found.high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.015)


def test_the_interval_of_a_mean_has_its_textbook_width() -> None:
    values = np.random.default_rng(2).normal(5, 2, 400)
    (mean,) = estimate(lambda w: (w @ values / w.sum(1))[:, None], [str(i) for i in range(400)], resamples=2000)
    assert mean.value == pytest.approx(values.mean())
    half = 1.96 * values.std() / math.sqrt(400)
    assert (mean.low, mean.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)
    (same_patient,) = estimate(lambda w: (w @ values / w.sum(1))[:, None], ["1"] * 400)
    assert same_patient == Estimate(mean.value, *[pytest.approx(mean.value)] * 2)


def test_shapes_and_numbers_are_checked() -> None:
    with pytest.raises(InputError, match="expected labels and scores"):
        judge(SPEC, np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.float32), ["1", "2"])
    with pytest.raises(InputError, match="finite"):
        judge(SPEC, np.zeros((1, 3), np.uint8), np.full((1, 3), np.inf, np.float32), ["1"])
