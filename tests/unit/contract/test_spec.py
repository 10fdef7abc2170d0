import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crosseai.contract import Architecture, ContractError, ModelSpec, TensorSpec, box_preset
from crosseai.contract.errors import CrossEAIError, InputError
from crosseai.contract.labels import CHESTXRAY8, canonical_label, class_index


def test_round_trip(tmp_path: Path) -> None:
    spec = ModelSpec(
        calibration_slopes=tuple(np.linspace(0.5, 2, 8).tolist()),
        calibration_intercepts=tuple(np.linspace(-2, 2, 8).tolist()),
        operating_points=tuple(np.linspace(0.1, 0.8, 8).tolist()),
        positive_rates=tuple(np.linspace(0, 1, 8).tolist()),
        heatmap="layercam",
        gradient="deconvnet",
        architecture=Architecture("resnet14", width=16),
        boxes=box_preset("scalp"),
    )
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert ModelSpec.load(spec.save(tmp_path)) == spec == ModelSpec.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("Mass", "Mass")}, "classes are given, unique"),
        ({"operating_points": (0.5,)}, "one operating point a class"),
        ({"calibration_slopes": (1.0,)}, "one calibration slope a class"),
        ({"calibration_slopes": (0.0,) * 8}, "slopes are positive"),
        ({"calibration_intercepts": (1.0,)}, "one calibration intercept a class"),
        ({"calibration_intercepts": (float("nan"),) * 8}, "intercepts are finite"),
        ({"operating_points": (1.5,) * 8}, "operating points lie in 0..1"),
        ({"positive_rates": (0.5,)}, "positive_rates are empty or one a class"),
        ({"positive_rates": (-0.1,) * 8}, "positive rates lie in 0..1"),
        ({"channels": 2}, "channels is 1 or 3"),
        ({"mean": (0.1, 0.2)}, "one value a channel"),
        ({"std": (0.0,)}, "std is positive"),
        ({"mean": (float("nan"),)}, "mean is finite"),
        ({"input_size": 0}, "input_size is positive"),
        ({"feature_shape": (8, 0, 7)}, "feature_shape"),
        ({"schema_version": 99}, "schema_version"),
        ({"resize": "crop"}, "resize"),
        ({"precision": "int4"}, "precision"),
        ({"heatmap": "guided"}, "heatmap is one of"),
        ({"gradient": "gradcam"}, "gradient is one of"),
    ],
)
def test_what_a_spec_refuses(change: dict, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        replace(ModelSpec(), **change)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": 1}'])
def test_what_from_json_refuses(text: str) -> None:
    with pytest.raises(ContractError, match="model spec"):
        ModelSpec.from_json(text)


def test_from_json_refuses_an_unknown_field() -> None:
    raw = json.loads(ModelSpec().to_json()) | {"surprise": 1}
    with pytest.raises(ContractError, match="surprise"):
        ModelSpec.from_json(json.dumps(raw))
    raw = json.loads(ModelSpec().to_json())
    raw["boxes"]["surprise"] = 1
    with pytest.raises(ContractError, match="surprise"):
        ModelSpec.from_json(json.dumps(raw))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", 5),
        ("classes", "Mass"),
        ("classes", [1] * 8),
        ("input_size", 64.5),
        ("input_size", True),
        ("mean", ["0.5"]),
        ("layer", None),
        ("feature_shape", [8, 7]),
        ("feature_shape", [8.5, 7, 7]),
        ("gradient", "gradcam"),
        ("boxes", None),
        ("architecture", "resnet50"),
    ],
)
def test_from_json_refuses_another_type(field: str, value: object) -> None:
    raw = json.loads(ModelSpec().to_json()) | {field: value}
    with pytest.raises(ContractError, match=f"model spec, {field}: expected"):
        ModelSpec.from_json(json.dumps(raw))


@pytest.mark.parametrize(("part", "field", "value"), [("boxes", "max_candidates", 2.5), ("architecture", "width", "8")])
def test_from_json_refuses_another_type_in_a_part(part: str, field: str, value: object) -> None:
    raw = json.loads(replace(ModelSpec(), architecture=Architecture()).to_json())
    raw[part][field] = value
    with pytest.raises(ContractError, match=f"model spec, {part}, {field}: expected int, found {value!r}"):
        ModelSpec.from_json(json.dumps(raw))


def test_from_json_takes_whole_numbers_for_floats() -> None:
    raw = json.loads(ModelSpec().to_json()) | {"std": [1]}
    assert ModelSpec.from_json(json.dumps(raw)).std == (1.0,)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"model_spec\.json"):
        ModelSpec.load(tmp_path)


@given(
    hnp.arrays(np.float32, (5, 3), elements=st.floats(-60, 60, width=32)),
    st.tuples(*(st.floats(0.1, 5),) * 3),
    st.tuples(*(st.floats(-9, 9),) * 3),
)
def test_probabilities_are_the_logistic_function_of_the_calibrated_logit(
    logits: npt.NDArray[np.float32], slopes: tuple[float, ...], intercepts: tuple[float, ...]
) -> None:
    spec = ModelSpec(classes=("A", "B", "C"), calibration_slopes=slopes, calibration_intercepts=intercepts)
    found = spec.probabilities(logits)
    assert found.dtype == np.float32
    for n, c in np.ndindex(5, 3):
        z = slopes[c] * float(logits[n, c]) + intercepts[c]
        expected = 1 / (1 + math.exp(-z)) if z > 0 else math.exp(z) / (1 + math.exp(z))
        assert found[n, c] == pytest.approx(expected, rel=1e-4, abs=1e-30)


def test_probabilities_are_whole_at_both_ends_and_nan_stays_nan() -> None:
    spec = ModelSpec(classes=("A", "B", "C", "D"))
    logits = np.array([-np.inf, -200, np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(spec.probabilities(logits), np.array([0, 0, 1, np.nan], np.float32))
    np.testing.assert_array_equal(spec.probabilities(np.zeros((2, 4), np.float32)), np.full((2, 4), np.float32(0.5)))


def test_positive_includes_the_operating_point() -> None:
    spec = ModelSpec(classes=("A", "B"), operating_points=(0.25, 0.5))
    positive = spec.positive(np.array([[0.25, 0.49]], np.float32))
    np.testing.assert_array_equal(positive, [[True, False]])


def test_tensor_check_binds_symbols_and_names_what_differs() -> None:
    heatmaps = TensorSpec("heatmaps", "float32", ("N", "K", 7, 7))
    assert heatmaps.check(np.zeros((2, 3, 7, 7), np.float32)) == {"N": 2, "K": 3}
    for array in (np.zeros((2, 3, 7, 7)), np.zeros((2, 3, 7), np.float32), np.zeros((2, 3, 7, 8), np.float32)):
        with pytest.raises(ContractError, match=r"heatmaps.*float32\[N,K,7,7\]"):
            heatmaps.check(array)
    square = TensorSpec("square", "uint8", ("N", "N"))
    with pytest.raises(ContractError):
        square.check(np.zeros((2, 3), np.uint8))
    with pytest.raises(ContractError, match="dtype"):
        TensorSpec("half", "float16", ("N",))


def test_labels() -> None:
    assert canonical_label(" Infiltrate ") == "Infiltration"
    assert class_index("Infiltrate", CHESTXRAY8) == 3
    with pytest.raises(InputError, match="Hernia"):
        class_index("Hernia", CHESTXRAY8)
    with pytest.raises(InputError, match="unknown preset 'best'"):
        box_preset("best")


def test_argument_errors_are_value_errors() -> None:
    assert issubclass(InputError, ValueError)
    assert issubclass(ContractError, ValueError)
    assert issubclass(InputError, CrossEAIError)
