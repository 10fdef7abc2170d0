"""Named parameter sets of the box algorithm."""

from typing import Any

import pytest

from crosseai.contract import PRESETS, BoxParameters, ContractError, InputError, box_preset


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("t", 1.5),
        ("threshold", -0.1),
        ("gradient_percentile", 0.0),
        ("gradient_power", float("inf")),
        ("gradient_sigma", 2.0),
        ("closing", float("nan")),
        ("candidates", "largest"),
        ("max_candidates", 0),
        ("min_area", 0),
        ("min_area_share", 1.1),
        ("area_power", -1.0),
    ],
)
def test_values_out_of_range_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ContractError, match=rf"box parameters 'mine': expected that .*{field}.*; found"):
        BoxParameters("mine", **{field: value})


def test_departures_from_the_paper() -> None:
    assert BoxParameters().departures() == {}
    assert BoxParameters("mine", t=0.5, candidates="all").departures() == {"t": 0.5, "candidates": "all"}
    assert PRESETS["scalp"].departures() == {"t": 1.0}
    assert PRESETS["tuned"].departures()


def test_fusion_takes_the_share_and_the_gradient_keywords() -> None:
    mine = BoxParameters(t=0.5, gradient_sigma=0.1, closing=0.2)
    assert mine.fusion_keywords() == {
        "t": 0.5,
        "gradient_percentile": 100.0,
        "gradient_power": 1.0,
        "gradient_sigma": 0.1,
    }


def test_presets_have_names() -> None:
    assert all(box_preset(name).preset == name for name in PRESETS)
    with pytest.raises(InputError, match="unknown preset 'best'; there are crosseai, scalp, tuned"):
        box_preset("best")
