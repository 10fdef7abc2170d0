import numpy as np
import pytest

from crosseai.client.evaluation import MEAN, THRESHOLDS, evaluate_boxes
from crosseai.comparison import published
from crosseai.comparison.cohort import BoxedFindings
from crosseai.comparison.overlap import overlaps
from crosseai.comparison.scores import MEAN_OF_PAPER, Truth, by_row, hits, paired_test
from crosseai.contract import CHESTXRAY8

COUNT = 120


@pytest.fixture
def truth() -> Truth:
    random = np.random.default_rng(0)
    low = random.integers(0, 60, (COUNT, 2))
    boxes = np.hstack([low, low + random.integers(5, 60, (COUNT, 2))]).astype(np.float64)
    findings = BoxedFindings(np.arange(COUNT), random.integers(0, 8, COUNT), boxes)
    return Truth(findings, tuple(f"p{i // 3}" for i in range(COUNT)), CHESTXRAY8)


def predicted(truth: Truth, noise: float, seed: int = 1) -> np.ndarray:
    moved = truth.findings.boxes + np.random.default_rng(seed).normal(0, noise, (COUNT, 4))
    boxes = np.rint(np.hstack([moved[:, :2], np.maximum(moved[:, 2:], moved[:, :2] + 1)])).astype(np.int32)
    boxes[::10] = 0
    return boxes


def test_accuracy_is_that_of_the_client(truth: Truth) -> None:
    boxes = predicted(truth, 8)
    iou, _ = overlaps(boxes, truth.findings.boxes)
    found = by_row(hits(iou), truth, resamples=10)

    def columns(edges: np.ndarray) -> dict[str, list]:
        named = dict(zip(("x0", "y0", "x1", "y1"), edges.T.tolist(), strict=True))
        diseases = [CHESTXRAY8[c] for c in truth.findings.classes]
        return {"image_id": [str(row) for row in truth.findings.rows], "disease": diseases, **named}

    expected = evaluate_boxes(columns(boxes), columns(truth.findings.boxes), resamples=10)
    rows = [name for name in truth.groups() if name != MEAN_OF_PAPER]
    assert sorted(rows) == sorted(expected.diseases)
    for name in rows:
        accuracy = expected.accuracy[expected.diseases.index(name)]
        np.testing.assert_allclose(found.values[list(truth.groups()).index(name)], accuracy)
    assert truth.counts()[MEAN] == COUNT


def test_mean_of_six_is_that_of_the_paper_s_diseases(truth: Truth) -> None:
    figures = np.random.default_rng(2).random((COUNT, 1))
    found = dict(zip(truth.groups(), by_row(figures, truth, resamples=10).values[:, 0], strict=True))
    assert found[MEAN_OF_PAPER] == pytest.approx(np.mean([found[disease] for disease in published.DISEASES]))
    assert found[MEAN] == pytest.approx(np.mean([found[disease] for disease in CHESTXRAY8]))


def test_diseases_without_boxes_have_no_row() -> None:
    findings = BoxedFindings(np.arange(3), np.array([2, 5, 5]), np.array([[0.0, 0.0, 1.0, 1.0]] * 3))
    truth = Truth(findings, ("a", "b", "c"), CHESTXRAY8)
    assert truth.counts() == {"Effusion": 1, "Nodule": 2, MEAN: 3}
    found = by_row(np.array([[1.0], [0.0], [np.nan]]), truth, resamples=50)
    assert found.values.tolist() == [[1.0], [0.0], [0.5]]  # NaN does not count


def test_intervals_resample_patients_not_boxes(truth: Truth) -> None:
    """All boxes of a patient are alike: the interval must be that of a third as many independent boxes."""
    figures = np.repeat(np.random.default_rng(3).random(COUNT // 3) < 0.5, 3)[:, None].astype(np.float64)
    one_disease = Truth(
        BoxedFindings(truth.findings.rows, np.zeros(COUNT, np.int64), truth.findings.boxes), truth.patients, CHESTXRAY8
    )
    found = by_row(figures, one_disease)
    ((estimate,), *_) = found.estimates()
    share = figures.mean()
    half_width = 1.96 * np.sqrt(share * (1 - share) / (COUNT // 3))
    assert (estimate.high - estimate.low) / 2 == pytest.approx(half_width, rel=0.15)


def test_paired_test(truth: Truth) -> None:
    tables = []
    for noise in (3, 3, 25):
        iou, _ = overlaps(predicted(truth, noise), truth.findings.boxes)
        tables.append(by_row(hits(iou), truth))
    same, p = paired_test(tables[0], tables[1])
    assert (same.value, same.low, same.high, p) == (0, 0, 0, 1)
    worse, p = paired_test(tables[2], tables[0])
    expected = tables[2].values[-1].mean() - tables[0].values[-1].mean()
    assert worse.value == pytest.approx(expected)
    assert worse.low < worse.value < worse.high < 0
    assert p == pytest.approx(2 / 1001)


def test_paired_test_is_uniform_without_a_difference() -> None:
    """Two methods whose hits are drawn alike differ significantly about as often as the level says."""
    random = np.random.default_rng(4)
    findings = BoxedFindings(np.arange(60), np.zeros(60, np.int64), np.array([[0.0, 0.0, 1.0, 1.0]] * 60))
    truth = Truth(findings, tuple(map(str, range(60))), CHESTXRAY8)
    ps = []
    for _ in range(200):
        pair = [by_row((random.random((60, 1)) < 0.5).astype(float), truth, resamples=200) for _ in range(2)]
        ps.append(paired_test(*pair)[1])
    assert 0.01 <= np.mean(np.array(ps) < 0.05) <= 0.11
    assert 0.35 <= np.mean(np.array(ps) < 0.5) <= 0.65


def test_thresholds_are_inclusive() -> None:
    assert hits(np.array([0.5])).tolist() == [[1.0 if t <= 0.5 else 0.0 for t in THRESHOLDS]]
