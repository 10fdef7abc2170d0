"""Gates: what they ask, and that one which cannot be evaluated does not hold."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from crosseai.client.promotion.gates import (
    USUAL_GATES,
    Gates,
    Latency,
    NoWorse,
    Reference,
    check_records,
    read_gates,
    require,
)
from crosseai.client.promotion.registry import Fetched, Listed
from crosseai.contract import PARITY_TAG, ContractError, InputError, ModelSpec

SPEC = ModelSpec()
PARITY = {tensor.name: {"error": 1e-6, "accepted": 2e-5} for tensor in SPEC.outputs}


def fetched(
    spec: ModelSpec = SPEC, parity: object = PARITY, signature: object = "as the spec", **metrics: float
) -> Fetched:
    tensors = tuple(
        tuple((t.name, t.dtype, tuple(-1 if isinstance(s, str) else s for s in t.shape)) for t in part)
        for part in (SPEC.inputs, SPEC.outputs)
    )
    listed = Listed(7, "0" * 64, {PARITY_TAG: json.dumps(parity)} if parity else {}, metrics)
    return Fetched(listed, spec, None, tensors if signature == "as the spec" else signature)


def check(gates: Gates, new: Fetched, champion: Fetched | None = None) -> tuple[bool, str]:
    (result,) = check_records(gates, new, champion)
    return result.holds, result.found


def test_a_good_version_passes_the_usual_gates():
    results = check_records(USUAL_GATES, fetched(), fetched())
    assert {result.gate: result.holds for result in results} == dict.fromkeys(
        ("signature", "compatible", "parity"), True
    )
    require(results)


def test_a_file_says_what_is_asked(tmp_path):
    file = tmp_path / "gates.yaml"
    file.write_text(
        "signature: true\nparity: false\nrecorded_metrics:\n  test_auc_mean: {max_drop: 0.01}\n"
        "latency: {p95_ms: 80}\nreference: {images: images, labels: /data/labels.csv}\nmean_auc: {max_drop: 0}\n"
    )
    assert read_gates(file) == Gates(
        signature=True,
        recorded_metrics={"test_auc_mean": NoWorse(0.01)},
        latency=Latency(80.0, 50),
        reference=Reference(tmp_path / "images", Path("/data/labels.csv")),
        mean_auc=NoWorse(0.0),
    )


def test_the_documented_file_can_be_read(tmp_path):
    from crosseai.client.promotion import gates

    example = gates.__doc__.split("::\n\n")[1]
    file = tmp_path / "gates.yaml"
    file.write_text("\n".join(line.removeprefix("    ") for line in example.splitlines()))
    assert read_gates(file).reference.boxes == tmp_path / "reference/BBox_List_2017.csv"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense: 1", "gates: expected some of signature, compatible, .*; found nonsense"),
        ("- a", "gates: expected some of .*; found "),
        ("", "gates: expected some of .*; found None"),
        ("signature: perhaps", "signature: expected true or false, found 'perhaps'"),
        ("mean_auc: 0.01", "mean_auc: expected some of max_drop; found 0.01"),
        ("mean_auc: {}", "mean_auc, max_drop: expected a number from 0 up, found None"),
        ("mean_iou: {max_drop: -1}", "expected a number from 0 up, found -1"),
        ("mean_iou: {max_drop: .nan}", "expected a number from 0 up, found nan"),
        ("canary: {}", "canary, factor: expected a number from 0 up, found None"),
        ("latency: {requests: 3}", "p95_ms: expected a number from 0 up, found None"),
        ("latency: {p95_ms: 3, requests: 0}", "requests: expected at least 1"),
        ("reference: {labels: a.csv}", "reference: expected images"),
        ("recorded_metrics: [a]", "recorded_metrics: expected metrics by name"),
        ("a: [", "expected gates in YAML"),
    ],
)
def test_a_file_that_says_anything_else(tmp_path, text, message):
    file = tmp_path / "gates.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_gates(file)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="expected gates in YAML"):
        read_gates(tmp_path / "none.yaml")


@pytest.mark.parametrize("signature", [None, ((), ())])
def test_signature(signature):
    assert not check(Gates(signature=True), fetched(signature=signature))[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": SPEC.classes[::-1]}, "classes"),
        ({"input_size": 256}, "inputs, outputs"),
        ({"feature_shape": (512, 7, 7)}, "outputs"),
    ],
)
def test_compatible(change, message):
    holds, found = check(Gates(compatible=True), fetched(replace(SPEC, **change)), fetched())
    assert (holds, found) == (False, f"differs from the champion in {message}")
    assert check(Gates(compatible=True), fetched(), None) == (True, "there is no champion yet")


def test_operating_points():
    assert not check(Gates(operating_points=True), fetched())[0]
    assert check(Gates(operating_points=True), fetched(replace(SPEC, operating_points=(0.1,) * 8)))[0]


@pytest.mark.parametrize(
    "parity",
    [
        {},
        {name: values for name, values in PARITY.items() if name != "heatmaps"},
        {**PARITY, "heatmaps": {"error": 1e-3, "accepted": 1e-4}},
        {**PARITY, "heatmaps": {"error": float("nan"), "accepted": 1e-4}},
    ],
    ids=["nothing recorded", "an output is missing", "beyond tolerance", "not a number"],
)
def test_parity(parity):
    assert not check(Gates(parity=True), fetched(parity=parity))[0]


@pytest.mark.parametrize(
    ("new", "champion", "holds"),
    [
        (fetched(auc=0.79), fetched(auc=0.80), True),
        (fetched(auc=0.77), fetched(auc=0.80), False),
        (fetched(), fetched(auc=0.80), False),
        (fetched(auc=0.79), fetched(), False),
        (fetched(auc=0.79), None, True),
        (fetched(auc=float("nan")), fetched(auc=0.8), False),
    ],
)
def test_recorded_metrics(new, champion, holds):
    assert check(Gates(recorded_metrics={"auc": NoWorse(0.02)}), new, champion)[0] is holds


def test_all_that_fail_are_named():
    results = check_records(Gates(signature=True, operating_points=True, parity=True), fetched(signature=None), None)
    with pytest.raises(ContractError, match=r"signature: the registered version has none; operating_points: 0\.5"):
        require(results)
