"""Calibration and operating points against general-purpose optimisers and exhaustive search."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize

from crosseai.contract import UNCERTAIN, InputError, ModelSpec
from crosseai.training.calibration import calibrate, operating_point, platt_scaling
from crosseai.training.evaluation import roc_auc

Case = tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]
CASES = st.integers(2, 40).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.bool_, n),
        hnp.arrays(np.float32, n, elements=st.floats(-5, 5, width=16)),  # few values: ties happen
    )
)


def penalised_loss(positive: npt.NDArray[np.bool_], logits: npt.NDArray[np.floating], b: Sequence[float]) -> float:
    """Cross-entropy, image by image, and minus the logarithm of the prior."""
    total = ((b[0] - 1) ** 2 + b[1] ** 2) / 2
    for is_positive, logit in zip(positive, logits.astype(np.float64), strict=True):
        z = b[0] * logit + b[1]
        total += np.logaddexp(0, -z if is_positive else z)
    return float(total)


@given(CASES)
def test_no_other_slope_and_intercept_fit_better(case: Case) -> None:
    positive, logits = case
    slope, intercept = platt_scaling(positive, logits)
    if positive.all() or not positive.any():
        assert (slope, intercept) == (1, 0)
        return
    assert slope > 0
    best = minimize(lambda b: penalised_loss(positive, logits, b), [1.0, 0.0], method="BFGS")
    found = penalised_loss(positive, logits, (slope, intercept))
    if best.x[0] > 1e-4:
        assert found <= best.fun + 1e-6
    elif best.x[0] < -1e-4:  # the ranking must not be turned round: only the intercept is chosen
        assert slope == 1
        assert found <= minimize(lambda b: penalised_loss(positive, logits, (1, b[0])), [0.0], method="BFGS").fun + 1e-6


def test_a_distorted_logit_is_put_right() -> None:
    random = np.random.default_rng(0)
    truth = random.normal(-1, 2, 20_000)
    positive = random.random(20_000) < 1 / (1 + np.exp(-truth))
    slope, intercept = platt_scaling(positive, 2.5 * truth + 4)  # overconfident, and too high
    assert slope == pytest.approx(1 / 2.5, rel=0.05)
    assert intercept == pytest.approx(-4 / 2.5, abs=0.08)


@pytest.mark.parametrize("size", [1e-3, 1e3])
def test_logits_of_unusual_size_are_fitted(size: float) -> None:
    random = np.random.default_rng(1)
    positive = random.random(300) < 0.3
    logits = size * (random.normal(0, 1, 300) + positive)
    slope, intercept = platt_scaling(positive, logits)
    best = minimize(lambda b: penalised_loss(positive, logits, (b[0] / size, b[1])), [0.0, 0.0], method="Nelder-Mead")
    assert penalised_loss(positive, logits, (slope, intercept)) <= best.fun + 1e-6


def test_few_images_hardly_move_the_sigmoid() -> None:
    slope, intercept = platt_scaling(np.array([True, False]), np.array([2.0, -2.0]))
    assert (slope, intercept) == pytest.approx((1.2, 0), abs=0.1)


def youden(positive: npt.NDArray[np.bool_], probabilities: npt.NDArray[np.floating], at: float) -> float:
    return float((probabilities[positive] >= at).mean() + (probabilities[~positive] < at).mean() - 1)


@given(CASES)
def test_youden_point_is_as_good_as_any_threshold(case: Case) -> None:
    positive, logits = case
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    threshold = operating_point(positive, probabilities)
    assert 0 <= threshold <= 1
    if positive.any() and not positive.all():
        best = max(youden(positive, probabilities, at) for at in probabilities)
        assert youden(positive, probabilities, threshold) == pytest.approx(best, abs=1e-12)
    else:
        assert threshold == 0.5


@given(CASES, st.sampled_from([0.05, 0.5, 0.8, 0.9, 1.0]))
def test_a_wanted_sensitivity_costs_as_little_specificity_as_it_can(case: Case, wanted: float) -> None:
    positive, logits = case
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    threshold = operating_point(positive, probabilities, wanted)
    if positive.all() or not positive.any():
        assert threshold == 0.5
        return
    enough = [at for at in probabilities if (probabilities[positive] >= at).mean() >= wanted - 1e-12]
    assert (probabilities[positive] >= threshold).mean() >= wanted - 1e-12
    best = max((probabilities[~positive] < at).mean() for at in enough)
    assert (probabilities[~positive] < threshold).mean() == pytest.approx(best)


def test_the_point_keeps_away_from_every_probability() -> None:
    positive = np.array([False, False, True, True])
    assert operating_point(positive, np.array([0.1, 0.2, 0.6, 0.9])) == pytest.approx(0.4)


def test_a_calibrated_spec_knows_the_rate_and_keeps_the_ranking() -> None:
    random = np.random.default_rng(2)
    labels = (random.random((2000, 2)) < [0.1, 0.4]).astype(np.uint8)
    logits = (random.normal(0, 1, (2000, 2)) + 2 * labels + 3).astype(np.float32)
    labels[:500, 1] = UNCERTAIN
    logits[:500, 1] = 90
    spec = calibrate(ModelSpec(classes=("Mass", "Nodule")), labels, logits)
    probabilities = spec.probabilities(logits)
    for c, rows in enumerate((slice(None), slice(500, None))):
        positive = labels[rows, c] == 1
        assert probabilities[rows, c].mean() == pytest.approx(positive.mean(), abs=6e-3)
        assert roc_auc(positive, probabilities[rows, c]) == pytest.approx(roc_auc(positive, logits[rows, c]))
    called = [sum(p >= spec.operating_points[c] for p in probabilities[:, c].tolist()) for c in range(2)]
    assert spec.positive_rates == (called[0] / 2000, called[1] / 2000)  # of all images, those of unknown label too
    assert calibrate(spec, labels, logits, sensitivity=1.0).operating_points < spec.operating_points


def test_a_disease_of_one_kind_keeps_the_sigmoid() -> None:
    spec = calibrate(ModelSpec(classes=("Mass",)), np.zeros((3, 1), np.uint8), np.ones((3, 1), np.float32))
    assert (spec.calibration_slopes, spec.calibration_intercepts, spec.operating_points) == ((1,), (0,), (0.5,))
    assert spec.positive_rates == (1,)
    assert calibrate(spec, np.zeros((0, 1), np.uint8), np.zeros((0, 1), np.float32)).positive_rates == ()


def test_what_cannot_be_calibrated_is_refused() -> None:
    labels = np.array([[1], [0]], np.uint8)
    spec = ModelSpec(classes=("Mass",))
    with pytest.raises(InputError, match="finite logits"):
        calibrate(spec, labels, np.array([[np.nan], [0]], np.float32))
    with pytest.raises(InputError, match=r"sensitivity in 0\.\.1"):
        calibrate(spec, labels, np.zeros((2, 1), np.float32), sensitivity=1.5)
