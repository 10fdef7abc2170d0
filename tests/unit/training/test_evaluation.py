"""AUC and operating points against scikit-learn and exhaustive search."""

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

from crosseai.contract import InputError, ModelSpec
from crosseai.training.evaluation import (
    auc_per_class,
    mean_auc,
    operating_points,
    predict_logits,
    roc_auc,
    youden_point,
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


@given(SCORES)
def test_youden_point_is_as_good_as_any_threshold(
    case: tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]],
) -> None:
    positive, logits = case
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    threshold = youden_point(positive, probabilities)
    assert 0 <= threshold <= 1

    def youden(at: float) -> float:
        return float((probabilities[positive] >= at).mean() + (probabilities[~positive] < at).mean() - 1)

    if positive.any() and not positive.all():
        assert youden(threshold) == pytest.approx(max(youden(at) for at in probabilities), abs=1e-12)
    else:
        assert threshold == 0.5


def test_youden_point_keeps_away_from_every_probability() -> None:
    positive = np.array([False, False, True, True])
    assert youden_point(positive, np.array([0.1, 0.2, 0.6, 0.9])) == pytest.approx(0.4)


def test_per_class_table() -> None:
    labels = np.array([[1, 0], [0, 0], [1, 0]], np.uint8)
    auc = auc_per_class(labels, np.array([[3.0, 1.0], [1.0, 2.0], [2.0, 3.0]]), ["Mass", "Nodule"])
    assert auc["Mass"] == 1
    assert math.isnan(auc["Nodule"])
    assert mean_auc(auc) == 1
    assert math.isnan(mean_auc({"Nodule": math.nan}))
    points = operating_points(labels, np.array([[3.0, 1.0], [1.0, 2.0], [2.0, 3.0]], np.float32))
    assert points[1] == 0.5
    assert 1 / (1 + math.exp(-1)) < points[0] < 1 / (1 + math.exp(-2))


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
