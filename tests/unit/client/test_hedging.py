import numpy as np
import pytest

from crosseai.client.servers.hedging import BUDGET, ENOUGH, FACTOR, QUANTILE, WINDOW, Hedging


def test_patience_is_a_multiple_of_a_high_quantile_of_the_same_kind() -> None:
    hedging, durations = Hedging(), np.random.default_rng(0).uniform(1, 2, 3 * WINDOW)
    for number, seconds in enumerate(durations):
        patience_s = hedging.begin("maps")
        assert (patience_s is None) == (number < ENOUGH)
        hedging.took("maps", seconds)
    assert hedging.begin("logits") is None
    assert hedging.begin("maps") == pytest.approx(FACTOR * np.quantile(durations[-WINDOW:], QUANTILE))


def test_the_budget_holds_at_any_time() -> None:
    hedging = Hedging()
    for _ in range(500):
        hedging.begin("maps")
        while hedging.spend():
            pass
        assert hedging.hedges <= BUDGET * hedging.requests
    assert hedging.hedges == BUDGET * 500
