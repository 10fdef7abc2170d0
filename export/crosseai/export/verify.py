"""Parity of an exported graph with eager PyTorch: every output, several batch sizes and numbers of classes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from onnxruntime.capi import onnxruntime_pybind11_state as ort
from torch import nn
from torch.export import ExportedProgram

from crosseai.contract import ContractError, ModelSpec, TensorSpec
from crosseai.contract.golden import Array, Golden
from crosseai.export.reference import EagerReference

Run: TypeAlias = Callable[[Array, Array], Mapping[str, Array]]
"""From uint8 images ``[N, 1, S, S]`` and targets ``[N, K]`` to every output by name."""

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
        "heatmaps": 1e-2,
        "gradient_maps": 0.5,
        "activations": 1e-2,
        "activation_gradients": 2e-2,
        "input_gradients": 0.1,
    },
}
"""Greatest accepted error of each output, by precision: relative L2, except for ``explained`` (wrong classes) and
``gradient_maps`` (mean absolute difference in gray levels of 0..255)."""

EAGER_FACTOR = 3
"""An output may also be this many times as far from float64 as eager float32 PyTorch is."""

SETS_OF_IMAGES = 3
"""Sets of synthetic images of which a float32 graph must agree on one."""

_DTYPES = (torch.float64, torch.float32)
_LOAD_ERRORS = (
    ort.Fail,
    ort.InvalidArgument,
    ort.InvalidGraph,
    ort.InvalidProtobuf,
    ort.NoSuchFile,
    ort.NotImplemented,
)


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
    def accepted(self) -> float:
        """The greatest error that is acceptable."""
        return max(self.tolerance, EAGER_FACTOR * self.eager_error)

    @property
    def holds(self) -> bool:
        """Whether the error is acceptable; NaN is not."""
        return self.error <= self.accepted


def verify(
    graph: bytes | Path, model: nn.Module | ExportedProgram, spec: ModelSpec, images: Array | None = None
) -> tuple[Parity, ...]:
    """Compare an exported graph, run by ONNX Runtime, with the model it was made from.

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
        If the graph cannot be run, lacks an output or gives one of the wrong dtype or shape.
    """
    return compare(onnx_runtime(graph), spec, record(model, spec, images))


def agree(
    run: Run, model: nn.Module | ExportedProgram, spec: ModelSpec, source: str = ""
) -> tuple[Golden, tuple[Parity, ...]]:
    """Compare a runtime with eager PyTorch on synthetic images, and return what was compared.

    A value that is zero up to rounding may fall on either side of a ReLU, in eager PyTorch as in the graph, and opens
    or shuts it for all gradients: in float32 for one set of images in sixty, where the graph is right. A wrong graph
    disagrees on every set, so that agreement on one of three is asked for; in float16, on the first.

    Parameters
    ----------
    run, model, spec, source
        As for :func:`compare` and :func:`record`.

    Raises
    ------
    ContractError
        If they do not agree.
    """
    for seed in range(SETS_OF_IMAGES if spec.precision == "fp32" else 1):
        golden = record(model, spec, sample_images(spec.input_size, seed=seed), source)
        parity = compare(run, spec, golden)
        if all(output.holds for output in parity):
            break
    require(parity)
    return golden, parity


def record(
    model: nn.Module | ExportedProgram, spec: ModelSpec, images: Array | None = None, source: str = ""
) -> Golden:
    """Explain images by eager PyTorch: a class each, another one, and a repeated, an unknown or the last one.

    Parameters
    ----------
    model, spec, images
        As for :func:`verify`.
    source
        Where the model came from.
    """
    images = sample_images(spec.input_size) if images is None else images
    targets = _sample_targets(len(images), len(spec.classes))
    exact, eager = (_explain(EagerReference(model, spec, dtype), images, targets) for dtype in _DTYPES)
    eager_errors = {name: _error(name, eager[name], exact[name]) for name in exact}
    outputs = {tensor.name: exact[tensor.name].astype(tensor.dtype) for tensor in spec.outputs}
    return Golden(images, targets, outputs, eager_errors, source)


def compare(
    run: Run, spec: ModelSpec, golden: Golden, sizes: Sequence[tuple[int, int]] = ((3, 3), (3, 2), (1, 1))
) -> tuple[Parity, ...]:
    """Compare what a runtime computes with what eager PyTorch did.

    Parameters
    ----------
    run
        Explains uint8 images ``[N, 1, S, S]`` for targets ``[N, K]``: every output of the spec by name.
    spec
        The exported graph's.
    golden
        What it must reproduce.
    sizes
        ``(N, K)`` of each run. The images repeat as needed, and every other batch is reversed.

    Raises
    ------
    ContractError
        If an output is missing, or of the wrong dtype or shape.
    """
    n, k = golden.targets.shape
    errors: dict[str, list[float]] = {tensor.name: [] for tensor in spec.outputs}
    for number, (count, explained) in enumerate(sizes):
        rows, columns = np.arange(count)[:: -1 if number % 2 else 1] % n, np.arange(explained) % k
        found = run(golden.images[rows], golden.targets[rows][:, columns])
        for tensor in spec.outputs:
            expected = golden.outputs[tensor.name][rows]
            expected = expected[:, columns] if "K" in tensor.shape else expected
            errors[tensor.name].append(_error(tensor.name, _checked(found, tensor), expected))
    for name, error in _ranking_errors(run, spec, golden, *sizes[0]).items():
        errors[name].append(error)
    tolerances = TOLERANCES[spec.precision]
    return tuple(
        Parity(name, float(np.max(found)), golden.eager_errors[name], tolerances[name])
        for name, found in errors.items()
    )


def _ranking_errors(run: Run, spec: ModelSpec, golden: Golden, count: int, explained: int) -> dict[str, float]:
    """What is wrong where targets are -1: column ``k`` must be explained as the class of the graph's own rank ``k``."""
    images, classes = golden.images[np.arange(count) % len(golden.images)], len(spec.classes)
    ranked = run(images, np.full((count, explained), -1))
    named = run(images, ranked["explained"])
    expected = np.full((count, explained), -1)
    expected[:, :classes] = np.argsort(-spec.calibrated(ranked["logits"]), axis=1, kind="stable")[:, :explained]
    errors = {t.name: _error(t.name, ranked[t.name], named[t.name]) for t in spec.outputs if "K" in t.shape}
    return errors | {"explained": _error("explained", ranked["explained"], expected)}


def require(parities: Iterable[Parity]) -> None:
    """Raise a ContractError that lists every output beyond its tolerance."""
    failed = [f"{p.output}: expected <= {p.tolerance:g}, found {p.error:.2g}" for p in parities if not p.holds]
    if failed:
        raise ContractError("the exported graph differs from eager PyTorch: " + "; ".join(failed))


def sample_images(size: int, count: int = 3, *, seed: int = 0) -> Array:
    """Smooth random images with noise, uint8 ``[count, 1, size, size]``.

    The noise is everywhere: in a constant region (the black border of a radiograph) maxima tie, and rounding decides
    which of them gets the gradient, in eager PyTorch as in the graph.
    """
    generator = torch.Generator().manual_seed(seed)
    scales = [max(1, size // step) for step in (56, 14, 4, 1)]
    layers = [
        F.interpolate(torch.rand(count, 1, s, s, generator=generator), size=(size, size), mode="bilinear") / (i + 1)
        for i, s in enumerate(scales)
    ]
    return (sum(layers[1:], layers[0]) * (255 / 2)).clamp(0, 255).to(torch.uint8).numpy()


def onnx_runtime(graph: bytes | Path) -> Run:
    """Run an ONNX model on the CPU.

    Raises
    ------
    ContractError
        If ONNX Runtime cannot load it.
    """
    try:
        session = onnxruntime.InferenceSession(
            graph if isinstance(graph, bytes) else str(graph), providers=["CPUExecutionProvider"]
        )
    except _LOAD_ERRORS as error:
        raise ContractError(f"exported graph: ONNX Runtime cannot load it: {error}") from error
    names = [output.name for output in session.get_outputs()]

    def run(images: Array, targets: Array) -> dict[str, Array]:
        feeds = {"image": np.ascontiguousarray(images), "targets": np.ascontiguousarray(targets)}
        return dict(zip(names, session.run(names, feeds), strict=True))

    return run


def _checked(found: Mapping[str, Array], tensor: TensorSpec) -> Array:
    if tensor.name not in found:
        raise ContractError(f"exported graph: expected an output {tensor.name!r}, found only {sorted(found)}")
    tensor.check(found[tensor.name])
    return found[tensor.name]


def _sample_targets(count: int, classes: int) -> Array:
    """``[count, 3]``: each class in turn, the next one, and a repeated, an unknown and the last one."""
    images = np.arange(count)
    third = np.select([images % 3 == 0, images % 3 == 1], [images % classes, classes], classes - 1)
    return np.stack([images % classes, (images + 1) % classes, third], axis=1).astype(np.int64)


def _explain(reference: EagerReference, images: Array, targets: Array) -> dict[str, Array]:
    known = np.where(targets < len(reference.spec.classes), targets, -1)
    columns = [reference.explain(images, known[:, k]) for k in range(targets.shape[1])]
    per_class = ("heatmaps", "gradient_maps", "activation_gradients", "input_gradients")
    return {
        "logits": columns[0].logits.numpy(),
        "explained": targets,
        "activations": columns[0].activations.numpy(),
    } | {name: torch.stack([getattr(column, name) for column in columns], 1).numpy() for name in per_class}


def _error(name: str, found: Array, expected: Array) -> float:
    if name == "explained":
        return float((found != expected).sum())
    difference = found.astype(np.float64) - expected.astype(np.float64)
    if name == "gradient_maps":
        return float(np.abs(difference).mean())
    return float(np.linalg.norm(difference) / (np.linalg.norm(expected) or 1.0))
