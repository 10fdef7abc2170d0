import numpy as np
import pytest

from crosseai.client.evaluation import MEAN, THRESHOLDS
from crosseai.comparison import published


@pytest.mark.parametrize("method", published.TABLE_1)
def test_means_are_those_of_the_diseases(method: str) -> None:
    """Up to rounding, with two exceptions in the paper's own column."""
    table = published.TABLE_1[method]
    means = np.mean([table[disease] for disease in published.DISEASES], axis=0)
    wrong = np.flatnonzero(np.abs(table[MEAN] - means) > 0.01)
    expected = {THRESHOLDS.index(0.4): 0.40, THRESHOLDS.index(0.6): 0.21} if method == "crosseai" else {}
    assert {t: round(means[t] + 1e-9, 2) for t in wrong.tolist()} == expected


def test_figures_that_the_text_speaks_of() -> None:
    gain = published.mean_accuracy("crosseai") - published.mean_accuracy("chexradinet")
    assert gain == pytest.approx(0.09, abs=0.005)
    assert published.mean_accuracy("crosseai") == pytest.approx(published.mean_accuracy("li2018"), abs=0.005)
    assert np.isnan(published.mean_accuracy("constant"))
