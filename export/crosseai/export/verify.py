"""Parity of an exported graph with eager PyTorch: every output, several batch sizes and numbers of classes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from torch import nn
from torch.export import ExportedProgram

from crosseai.contract import ContractError, ModelSpec
from crosseai.export.reference import Array, EagerReference

TOLERANCES: Mapping[str, Mapping[str, float]] = {
    "fp32": {
        "logits": 2e-5,
        "explained": 0,
        "heatmaps": 1e-4,
        "gradient_maps": 0.05,
        "activations": 2e-5,
        "activation_gradients": 2e-5,
        "input_gradients": 5e-4,
    },
    "fp16": {
        "logits": 5e-3,
        "explained": 0,
        "heatmaps": 2e-2,
        "gradient_maps": 2,
        "activations": 5e-3,
        "activation_gradients": 2e-2,
        "input_gradients": 0.1,
    },
}
"""Greatest accepted error of each output, by precision: relative L2, except for ``explained`` (wrong classes) and
``gradient_maps`` (mean absolute difference in gray levels of 0..255)."""


EAGER_FACTOR = 3
"""An output may also be this many times as far from float64 as eager float32 PyTorch is."""


@dataclass(frozen=True, slots=True)
class Parity:
    """Agreement of one output with eager PyTorch in float64.

    Parameters
    ----------
    output
        Tensor name.
    error
        The greatest error found over all batches.
    eager_error
        The error of eager PyTorch in float32 on the same images.
    tolerance
        The greatest error accepted, unless eager PyTorch itself is not much better.
    """

    output: str
    error: float
    eager_error: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the error is acceptable; NaN is not."""
        return self.error <= max(self.tolerance, EAGER_FACTOR * self.eager_error)


def verify(
    graph: bytes | Path, model: nn.Module | ExportedProgram, spec: ModelSpec, images: Array | None = None
) -> tuple[Parity, ...]:
    """Compare an exported graph with the model it was made from.

    Parameters
    ----------
    graph
        The ONNX model, as bytes or as a file.
    model
        The classifier, in evaluation mode.
    spec
        The spec of the exported graph.
    images
        uint8 ``[N, 1, S, S]``; synthetic images when not given.

    Raises
    ------
    ContractError
        If the graph lacks an output or gives one of the wrong dtype or shape.
    """
    images = sample_images(spec.input_size) if images is None else images
    session = _session(graph)
    targets = _sample_targets(len(images), len(spec.classes))
    exact, eager = (EagerReference(model, spec, dtype) for dtype in (torch.float64, torch.float32))
    explained = _expected_classes(targets, exact.logits(images), _run(session, spec, images, targets)["explained"])
    expected = _reference_outputs(exact, images, explained)
    rounded = _reference_outputs(eager, images, explained)
    errors = _errors_over_batches(session, spec, images, targets, expected)
    tolerances = TOLERANCES[spec.precision]
    return tuple(
        Parity(name, errors[name], _error(name, rounded[name], expected[name]), tolerances[name])
        for name in (output.name for output in spec.outputs)
    )


def _errors_over_batches(
    session: onnxruntime.InferenceSession, spec: ModelSpec, images: Array, targets: Array, expected: dict[str, Array]
) -> dict[str, float]:
    """The worst error of each output: all images and classes, the batch reversed with fewer classes, one image."""
    everything = np.arange(len(images))
    errors: dict[str, list[float]] = {name: [] for name in expected}
    for rows, columns in ((everything, 3), (everything[::-1], 2), (everything[-1:], 1)):
        found = _run(session, spec, images[rows], targets[rows, :columns])
        for name, array in expected.items():
            part = array[rows] if name in ("logits", "activations") else array[rows, :columns]
            errors[name].append(_error(name, found[name], part))
    return {name: float(np.max(values)) for name, values in errors.items()}


def require(parities: Iterable[Parity]) -> None:
    """Raise a ContractError that lists every output beyond its tolerance."""
    failed = [f"{p.output}: expected <= {p.tolerance:g}, found {p.error:.2g}" for p in parities if not p.holds]
    if failed:
        raise ContractError("the exported graph differs from eager PyTorch: " + "; ".join(failed))


def sample_images(size: int, count: int = 3) -> Array:
    """Smooth random images with noise, uint8 ``[count, 1, size, size]``.

    The noise is everywhere: in a constant region (the black border of a radiograph) maxima tie, and rounding decides
    which of them gets the gradient, in eager PyTorch as in the graph.
    """
    generator = torch.Generator().manual_seed(0)
    scales = [max(1, size // step) for step in (56, 14, 4, 1)]
    layers = [
        F.interpolate(torch.rand(count, 1, s, s, generator=generator), size=(size, size), mode="bilinear") / (i + 1)
        for i, s in enumerate(scales)
    ]
    return (sum(layers[1:], layers[0]) * (255 / 2)).clamp(0, 255).to(torch.uint8).numpy()


def _sample_targets(count: int, classes: int) -> Array:
    """``[count, 3]``: the most probable class, each class in turn, and a repeated, a wrong and a ranked one."""
    images = np.arange(count)
    last = np.where(images % 3 == 0, images % classes, np.where(images % 3 == 1, classes, -1))
    return np.stack([np.full(count, -1), images % classes, last], axis=1).astype(np.int64)


def _expected_classes(targets: Array, logits: Array, found: Array) -> Array:
    """The classes that must have been explained; of classes that tie within rounding, the one that was."""
    expected = targets.copy()
    for row, column in np.argwhere(targets == -1):
        if column >= logits.shape[1]:
            continue
        ranked = np.argsort(-logits[row], kind="stable")[column]
        answer = found[row, column] if 0 <= found[row, column] < logits.shape[1] else ranked
        tied = abs(logits[row, answer] - logits[row, ranked]) <= 1e-5 * np.abs(logits[row]).max()
        expected[row, column] = answer if tied else ranked
    return expected


def _reference_outputs(reference: EagerReference, images: Array, explained: Array) -> dict[str, Array]:
    known = np.where(explained < len(reference.spec.classes), explained, -1)
    columns = [reference.explain(images, known[:, k]) for k in range(explained.shape[1])]
    per_class = ("heatmaps", "gradient_maps", "activation_gradients", "input_gradients")
    return {
        "logits": columns[0].logits.numpy(),
        "explained": explained,
        "activations": columns[0].activations.numpy(),
    } | {name: torch.stack([getattr(column, name) for column in columns], 1).numpy() for name in per_class}


def _session(graph: bytes | Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        graph if isinstance(graph, bytes) else str(graph), providers=["CPUExecutionProvider"]
    )


def _run(session: onnxruntime.InferenceSession, spec: ModelSpec, images: Array, targets: Array) -> dict[str, Array]:
    names = [output.name for output in spec.outputs]
    missing = set(names) - {output.name for output in session.get_outputs()}
    if missing:
        raise ContractError(f"exported graph: expected the outputs {names}, found none named {sorted(missing)}")
    feeds = {"image": np.ascontiguousarray(images), "targets": np.ascontiguousarray(targets)}
    outputs = dict(zip(names, session.run(names, feeds), strict=True))
    for output in spec.outputs:
        output.check(outputs[output.name])
    return outputs


def _error(name: str, found: Array, expected: Array) -> float:
    if name == "explained":
        return float((found != expected).sum())
    difference = found.astype(np.float64) - expected
    if name == "gradient_maps":
        return float(np.abs(difference).mean())
    return float(np.linalg.norm(difference) / (np.linalg.norm(expected) or 1.0))
