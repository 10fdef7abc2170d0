"""Export of the combined graph as one verified ONNX file."""

import hashlib
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import onnx
import onnx_ir.passes.common as passes
import torch
from onnxscript.optimizer import fold_constants
from torch import nn
from torch.export import Dim, ExportedProgram

from crosseai.contract import ContractError, InputError, ModelSpec
from crosseai.contract.golden import Golden
from crosseai.contract.spec import Precision
from crosseai.export.capture import capture
from crosseai.export.combined import CombinedGraph
from crosseai.export.noise import quiet_torch
from crosseai.export.precision import lower
from crosseai.export.verify import Parity, agree, onnx_runtime

OPSET = 20
"""ONNX operator set: read by the ONNX Runtime of Triton since 24.08 and by TensorRT since 10.0."""

MAX_WEIGHTS_BYTES = 2**31 - 2**24
"""Weights that one file can hold: protobuf ends at 2 GiB, and the graph itself needs a few megabytes."""

SPEC_METADATA_KEY = "model_spec"


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What :func:`export_onnx` made.

    Parameters
    ----------
    path
        The ONNX file.
    spec
        The spec inside it, with the layer's true feature shape.
    sha256
        Of the file.
    size_bytes
        Of the file.
    parity
        Agreement with eager PyTorch, output by output.
    golden
        What it agrees with.
    seconds
        Wall time of the export, verification included.
    """

    path: Path
    spec: ModelSpec
    sha256: str
    size_bytes: int
    parity: tuple[Parity, ...]
    golden: Golden
    seconds: float

    def save(self, folder: Path) -> None:
        """Write what belongs beside the graph: ``model_spec.json`` and ``golden.npz``."""
        self.spec.save(folder)
        self.golden.save(folder)


def export_onnx(
    model: nn.Module | ExportedProgram,
    spec: ModelSpec,
    path: str | Path,
    *,
    layer: str = "layer4",
    precision: Precision = "fp32",
    source: str = "",
) -> ExportReport:
    """Write a classifier and its explanations as one ONNX graph, if it agrees with PyTorch.

    The file holds everything: weights, spec (metadata ``model_spec``), producer. The same model and spec give the same
    bytes.

    Parameters
    ----------
    model
        Any CNN classifier from a normalised image ``[N, spec.channels, S, S]`` to logits ``[N, C]``, in evaluation
        mode, or its exported program.
    spec
        Classes, input size and normalisation; how the maps are made.
    path
        File to write.
    layer
        Dotted name of the submodule that the heat maps are of.
    precision
        Arithmetic inside the graph; inputs and outputs have the same types at each. ``fp16``: the trunk in float16,
        head and heat maps in float32.
    source
        Where the model came from, for :class:`~crosseai.contract.golden.Golden`.

    Raises
    ------
    InputError
        If the model cannot be captured, has no such layer, holds an operator without a reverse rule, has no CAM where
        the spec wants it, or is too large for one file.
    ContractError
        If the graph does not agree with eager PyTorch; nothing is written then.
    """
    start, path = time.perf_counter(), Path(path)
    classifier = capture(model, layer, spec.channels, spec.input_size)
    if precision == "fp16":
        classifier = lower(classifier, torch.float16)
    if (weights := classifier.size_bytes) > MAX_WEIGHTS_BYTES:
        raise InputError(
            f"model: expected weights up to {MAX_WEIGHTS_BYTES} bytes, which fit into one ONNX file, found {weights}"
        )
    classes = classifier.logits.meta["val"].shape[1]
    if classes != len(spec.classes):
        raise InputError(f"model: expected {len(spec.classes)} logits as the spec has classes, found {classes}")
    depth, height, width = map(int, classifier.activations.meta["val"].shape[1:])
    spec = replace(spec, layer=layer, feature_shape=(depth, height, width), precision=precision)
    graph = _to_onnx(CombinedGraph(classifier, spec).eval(), spec)
    onnx.checker.check_model(graph, full_check=True)
    content = graph.SerializeToString(deterministic=True)
    golden, parity = agree(onnx_runtime(content), model, spec, source)
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)
    digest = hashlib.sha256(content).hexdigest()
    return ExportReport(path, spec, digest, len(content), parity, golden, time.perf_counter() - start)


def _to_onnx(combined: CombinedGraph, spec: ModelSpec) -> onnx.ModelProto:
    side = spec.input_size
    example = (torch.zeros(2, 1, side, side, dtype=torch.uint8), torch.full((2, 3), -1))
    dynamic = ({0: Dim.DYNAMIC}, {0: Dim.DYNAMIC, 1: Dim.DYNAMIC})
    with torch.no_grad(), quiet_torch():
        exported = torch.export.export(combined, example, dynamic_shapes=dynamic)
        program = torch.onnx.export(
            exported,
            input_names=[tensor.name for tensor in spec.inputs],
            output_names=[tensor.name for tensor in spec.outputs],
            opset_version=OPSET,
            verbose=False,
            optimize=False,
        )
    if program is None:
        raise ContractError("torch.onnx.export: expected a program, found none")
    # of torch's optimizer only what every runtime profits from: its fusion patterns take as long as all the rest
    fold_constants(program.model)
    passes.CommonSubexpressionEliminationPass()(program.model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(program.model)
    passes.RemoveUnusedNodesPass()(program.model)
    graph = program.model_proto
    _tidy(graph, spec)
    graph.producer_name, graph.producer_version = "crosseai", version("crosseai")
    onnx.helper.set_model_props(graph, {SPEC_METADATA_KEY: spec.to_json()})
    return graph


def _tidy(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Name the dynamic dimensions as the spec does; drop what the exporter notes about its own run.

    That is source lines, file paths and the shapes of intermediate values, which every runtime infers.
    """
    graph = model.graph
    for item in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    graph.ClearField("value_info")
    tensors = {tensor.name: tensor for tensor in (*spec.inputs, *spec.outputs)}
    for value in (*graph.input, *graph.output):
        shape = value.type.tensor_type.shape
        shape.ClearField("dim")
        for size in tensors[value.name].shape:
            shape.dim.add(**{"dim_param" if isinstance(size, str) else "dim_value": size})
