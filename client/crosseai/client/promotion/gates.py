"""What a version must show before it may be promoted. A gate that cannot be evaluated does not hold.

A gates file is YAML; every gate is optional, and ``{}`` asks for none::

    signature: true          # the MLflow signature has the tensors of the model spec
    compatible: true         # classes and tensors are the champion's, so that no client has to change
    operating_points: true   # chosen on validation images, not 0.5 for every class
    parity: true             # recorded agreement with PyTorch, output by output, within what was accepted
    recorded_metrics:        # of the training runs, against the champion's
      test_auc_mean: {max_drop: 0.01}
    canary: {factor: 20}     # servers may be off by so many times what was accepted on a CPU (TF32, float16); usually 1
    latency: {p95_ms: 500, requests: 50}      # round trip of one image, measured on every server
    reference:               # images that both versions score afresh
      images: reference/images
      labels: reference/Data_Entry_2017.csv
      boxes: reference/BBox_List_2017.csv
    mean_auc: {max_drop: 0.01}                # non-inferiority on the reference set: paired bootstrap over images,
    mean_iou: {max_drop: 0.02}                # one-sided 95 %
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from crosseai.client.promotion.registry import Fetched
from crosseai.contract import ContractError, InputError, ModelSpec, TensorSpec, reason


@dataclass(frozen=True, slots=True)
class Canary:
    """How many times the error that was accepted at the export, by ONNX Runtime on a CPU, a server may show."""

    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Greatest 95th percentile of the round trip of one image, in milliseconds, and how many requests to time."""

    p95_ms: float
    requests: int = 50


@dataclass(frozen=True, slots=True)
class Reference:
    """Images, and files like NIH's ``Data_Entry_2017.csv`` and ``BBox_List_2017.csv`` that say what is on them."""

    images: Path
    labels: Path | None = None
    boxes: Path | None = None


@dataclass(frozen=True, slots=True)
class NoWorse:
    """By how much a metric may be lower than the champion's."""

    max_drop: float


@dataclass(frozen=True, slots=True)
class Gates:
    """What is asked of a version; the module's documentation explains each gate."""

    signature: bool = False
    compatible: bool = False
    operating_points: bool = False
    parity: bool = False
    recorded_metrics: Mapping[str, NoWorse] = field(default_factory=dict)
    canary: Canary = Canary()
    latency: Latency | None = None
    reference: Reference | None = None
    mean_auc: NoWorse | None = None
    mean_iou: NoWorse | None = None


@dataclass(frozen=True, slots=True)
class GateResult:
    """Whether a gate holds, and what was found."""

    gate: str
    holds: bool
    found: str


USUAL_GATES = Gates(signature=True, compatible=True, parity=True)
"""What is asked when nobody says otherwise: all that needs no figures from the site."""


def read_gates(file: Path) -> Gates:
    """Read a gates file; its paths are relative to its folder.

    Raises
    ------
    InputError
        If it cannot be read, or says anything that is no gate.
    """
    import yaml

    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{file}: expected gates in YAML: {reason(error)}") from error
    try:
        gates = _gates(raw)
    except (TypeError, ValueError) as error:
        raise InputError(f"{file}: {error}") from error
    return _beside(gates, file.parent)


def check_records(gates: Gates, new: Fetched, champion: Fetched | None) -> list[GateResult]:
    """Evaluate the gates that need no server.

    Parameters
    ----------
    gates
        What is asked.
    new
        The version to be promoted.
    champion
        The present champion, if there is one; nothing is worse than none.
    """
    results = []
    if gates.signature:
        results.append(_signature(new))
    if gates.compatible:
        results.append(_compatible(new.spec, champion.spec if champion else None))
    if gates.operating_points:
        chosen = any(point != 0.5 for point in new.spec.operating_points)
        results.append(GateResult("operating_points", chosen, "chosen" if chosen else "0.5 for every class"))
    if gates.parity:
        results.append(_parity(new))
    for name, limit in gates.recorded_metrics.items():
        results.append(_recorded_metric(name, limit, new, champion))
    return results


def require(results: Iterable[GateResult]) -> None:
    """Raise a ContractError that names every gate that does not hold."""
    failed = [f"{result.gate}: {result.found}" for result in results if not result.holds]
    if failed:
        raise ContractError("expected that every gate holds, found " + "; ".join(failed))


def _signature(new: Fetched) -> GateResult:
    expected = tuple(tuple(map(_signature_of, tensors)) for tensors in (new.spec.inputs, new.spec.outputs))
    if new.signature is None:
        return GateResult("signature", holds=False, found="the registered version has none")
    holds = new.signature == expected
    return GateResult("signature", holds, "as the spec" if holds else f"{new.signature}, the spec says {expected}")


def _signature_of(tensor: TensorSpec) -> tuple[str, str, tuple[int, ...]]:
    return (tensor.name, tensor.dtype, tuple(-1 if isinstance(size, str) else size for size in tensor.shape))


def _compatible(new: ModelSpec, champion: ModelSpec | None) -> GateResult:
    if champion is None:
        return GateResult("compatible", holds=True, found="there is no champion yet")
    differing = [
        name
        for name in ("name", "classes", "inputs", "outputs", "resize")
        if getattr(new, name) != getattr(champion, name)
    ]
    found = f"differs from the champion in {', '.join(differing)}" if differing else "as the champion"
    return GateResult("compatible", not differing, found)


def _parity(new: Fetched) -> GateResult:
    recorded = new.listed.parity
    missing = [tensor.name for tensor in new.spec.outputs if tensor.name not in recorded]
    if missing:
        return GateResult("parity", holds=False, found=f"not recorded for {', '.join(missing)}")
    beyond = [name for name, values in recorded.items() if not values["error"] <= values["accepted"]]
    return GateResult("parity", not beyond, f"beyond tolerance: {', '.join(beyond)}" if beyond else "within tolerance")


def _recorded_metric(name: str, limit: NoWorse, new: Fetched, champion: Fetched | None) -> GateResult:
    gate = f"recorded_metrics.{name}"
    if name not in new.listed.metrics:
        return GateResult(gate, holds=False, found="not recorded for this version")
    value = new.listed.metrics[name]
    if champion is None:
        return GateResult(gate, holds=True, found=f"{value:.4f}, there is no champion yet")
    if name not in champion.listed.metrics:
        return GateResult(gate, holds=False, found="not recorded for the champion")
    before = champion.listed.metrics[name]
    return GateResult(gate, value >= before - limit.max_drop, f"{value:.4f}, the champion has {before:.4f}")


def _gates(raw: Any) -> Gates:
    """Build gates from what YAML holds."""
    values = _known(Gates, raw, "gates")
    for name in ("signature", "compatible", "operating_points", "parity"):
        if not isinstance(values.get(name, False), bool):
            raise TypeError(f"{name}: expected true or false, found {values[name]!r}")
    metrics = values.get("recorded_metrics", {})
    if not isinstance(metrics, dict):
        raise TypeError(f"recorded_metrics: expected metrics by name, found {metrics!r}")
    values["recorded_metrics"] = {str(name): _no_worse(limit, str(name)) for name, limit in metrics.items()}
    for name in ("mean_auc", "mean_iou"):
        if name in values:
            values[name] = _no_worse(values[name], name)
    if "canary" in values:
        canary = _known(Canary, values["canary"], "canary")
        values["canary"] = Canary(_at_least_zero(canary.get("factor"), "canary, factor"))
    if "latency" in values:
        latency = _known(Latency, values["latency"], "latency")
        values["latency"] = Latency(_at_least_zero(latency.get("p95_ms"), "p95_ms"), int(latency.get("requests", 50)))
        if values["latency"].requests < 1:
            raise ValueError("requests: expected at least 1")
    if "reference" in values:
        reference = _known(Reference, values["reference"], "reference")
        if "images" not in reference:
            raise ValueError("reference: expected images, found none")
        values["reference"] = Reference(**{name: Path(path) for name, path in reference.items()})
    return Gates(**values)


def _known(kind: type, raw: Any, what: str) -> dict[str, Any]:
    known = [f.name for f in fields(kind)]
    if not isinstance(raw, dict) or not set(raw) <= set(known):
        found = ", ".join(map(str, raw)) if isinstance(raw, dict) else repr(raw)
        raise ValueError(f"{what}: expected some of {', '.join(known)}; found {found}")
    return dict(raw)


def _no_worse(raw: Any, what: str) -> NoWorse:
    values = _known(NoWorse, raw, what)
    return NoWorse(_at_least_zero(values.get("max_drop"), f"{what}, max_drop"))


def _at_least_zero(value: Any, what: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise ValueError(f"{what}: expected a number from 0 up, found {value!r}")
    return float(value)


def _beside(gates: Gates, folder: Path) -> Gates:
    """Resolve the paths of the reference set."""
    if gates.reference is None:
        return gates
    there = {f.name: folder / path for f in fields(Reference) if (path := getattr(gates.reference, f.name)) is not None}
    return replace(gates, reference=Reference(**there))
