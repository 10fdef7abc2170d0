"""Non-inferiority: the bootstrap's metrics against slow ones, and decisions that are plain."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosseai.client.promotion.gates import Gates, NoWorse
from crosseai.client.promotion.reference import Scored, _no_worse, check_reference, weighted_auc


def auc_by_pairs(positive: list[bool], scores: list[float], weights: list[float]) -> float:
    """Every positive image against every negative one, as often as they were drawn."""
    won = pairs = 0.0
    for i, is_positive in enumerate(positive):
        for j, other in enumerate(positive):
            if is_positive and not other:
                pairs += weights[i] * weights[j]
                won += weights[i] * weights[j] * ((scores[i] > scores[j]) + (scores[i] == scores[j]) / 2)
    return won / pairs if pairs else float("nan")


images = st.lists(
    st.tuples(st.booleans(), st.sampled_from([-1.0, 0.0, 0.5, 2.0]), st.integers(0, 3), st.integers(0, 3)), min_size=1
)


@given(images)
def test_weighted_auc_is_that_of_all_pairs(rows):
    positive, scores, *draws = (list(column) for column in zip(*rows, strict=True))
    found = weighted_auc(np.array(positive), np.array(scores), np.array(draws, np.float64))
    expected = [auc_by_pairs(positive, scores, draw) for draw in draws]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def scored(noise: float, images: int = 400) -> Scored:
    rng = np.random.default_rng(1)
    positive = rng.random(images) < 0.3
    clean = positive + rng.normal(size=images)
    scores = clean + noise * np.random.default_rng(2).normal(size=images)
    return Scored(lambda w: weighted_auc(positive, scores, w), None, tuple(map(str, range(images))), ())


@pytest.mark.parametrize(
    ("new", "champion", "max_drop", "holds"),
    [
        (0.0, 0.0, 0.0, True),
        (3.0, 0.0, 0.02, False),
        (0.0, 3.0, 0.0, True),
        (3.0, 0.0, 0.5, True),
        (0.3, 0.0, 0.0, False),
    ],
)
def test_no_worse(new, champion, max_drop, holds):
    result = _no_worse("mean_auc", NoWorse(max_drop), scored(new), scored(champion))
    assert result.holds is holds, result.found


def test_what_cannot_be_judged_does_not_hold():
    limit = NoWorse(1.0)
    assert not _no_worse("mean_iou", limit, scored(0), scored(0)).holds
    assert not _no_worse("mean_auc", limit, scored(0), scored(0, images=300)).holds
    nothing = Scored(lambda w: np.full(len(w), np.nan), None, ("a",), ())
    assert not _no_worse("mean_auc", limit, nothing, None).holds
    (result,) = check_reference(Gates(mean_auc=limit), {}, None)
    assert (result.holds, result.found) == (False, "there is no reference set")
