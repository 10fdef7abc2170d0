"""AUC against scikit-learn and exhaustive comparison."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score
from torch import nn

from crosseai.contract import UNCERTAIN, InputError, ModelSpec
from crosseai.training.evaluation import (
    auc_per_class,
    mean_auc,
    predict_logits,
    roc_auc,
)

SCORES = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.bool_, n),
        hnp.arrays(np.float32, n, elements=st.floats(-5, 5, width=16)),  # few values: ties happen
    )
)


@given(SCORES)
def test_auc_equals_scikit_learn(case: tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]) -> None:
    positive, scores = case
    if positive.all() or not positive.any():
        assert math.isnan(roc_auc(positive, scores))
    else:
        assert roc_auc(positive, scores) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)


@given(SCORES)
def test_auc_is_the_chance_that_a_positive_outscores_a_negative(
    case: tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]],
) -> None:
    positive, scores = case
    wins = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    if wins:
        assert roc_auc(positive, scores) == pytest.approx(np.mean(wins), abs=1e-12)


@given(SCORES, st.integers(0, 2**32))
def test_a_weight_is_a_repetition(case: tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]], seed: int) -> None:
    positive, scores = case
    weights = np.random.default_rng(seed).integers(0, 4, (3, len(scores)))
    found = roc_auc(positive, scores, weights.astype(np.float64))
    assert found.shape == (3,)
    for auc, counts in zip(found, weights, strict=True):
        repeated = roc_auc(np.repeat(positive, counts), np.repeat(scores, counts))
        assert auc == pytest.approx(float(repeated), abs=1e-12, nan_ok=True)


def test_per_class_table() -> None:
    labels = np.array([[1, 0], [0, 0], [1, 0]], np.uint8)
    auc = auc_per_class(labels, np.array([[3.0, 1.0], [1.0, 2.0], [2.0, 3.0]]), ["Mass", "Nodule"])
    assert auc["Mass"] == 1
    assert math.isnan(auc["Nodule"])
    assert mean_auc(auc) == 1
    assert math.isnan(mean_auc({"Nodule": math.nan}))


def test_uncertain_labels_do_not_count() -> None:
    labels = np.array([[1], [UNCERTAIN], [0]], np.uint8)
    assert auc_per_class(labels, np.array([[2.0], [9.0], [1.0]]), ["Mass"]) == {"Mass": 1}
    assert math.isnan(auc_per_class(np.full((3, 1), UNCERTAIN, np.uint8), np.zeros((3, 1)), ["Mass"])["Mass"])


def test_scores_that_are_not_numbers_or_do_not_fit_are_refused() -> None:
    labels = np.array([[1], [0]], np.uint8)
    with pytest.raises(InputError, match="finite"):
        auc_per_class(labels, np.array([[np.nan], [0.0]]), ["Mass"])
    with pytest.raises(InputError, match="expected labels and scores"):
        auc_per_class(labels, np.zeros((2, 2)), ["Mass", "Nodule"])


def test_predicted_logits_do_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = np.random.default_rng(0).integers(0, 256, (7, 1, 16, 16), dtype=np.uint8)
    spec = ModelSpec(input_size=16)
    logits = predict_logits(model.train(), images, spec, batch_size=3)
    assert not model.training
    assert logits.shape == (7, 4)
    assert logits.dtype == np.float32
    x = (torch.from_numpy(images).double() / 255 - 0.449) / 0.226
    np.testing.assert_allclose(logits, model.double()(x).detach(), rtol=1e-4, atol=1e-5)
