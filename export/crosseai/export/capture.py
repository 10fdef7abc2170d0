"""A trained classifier as a plain graph of ATen operators, ready to be run forwards and backwards.

``torch.export`` captures any module without touching its source, as a graph without in-place operators and dropout;
:mod:`crosseai.export.folding` then computes once what depends on parameters alone.
"""

import re
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, export

from crosseai.contract import InputError
from crosseai.export.folding import constant, fold
from crosseai.export.noise import quiet_torch


@dataclass(frozen=True, slots=True)
class ClassifierGraph:
    """The forward pass of a classifier.

    Parameters
    ----------
    module
        Owner of the graph and of its constants.
    image
        The normalised image ``[N, channels, S, S]``.
    activations
        Output ``[N, D, h, w]`` of the explained layer.
    logits
        ``[N, C]``.
    head
        Where float32 begins again after a trunk of reduced precision: a copy of the trunk's last feature map. None
        if all is float32.
    """

    module: fx.GraphModule
    image: fx.Node
    activations: fx.Node
    logits: fx.Node
    head: fx.Node | None = None

    def constant(self, node: fx.Node) -> Tensor:
        """The parameter or buffer that a ``get_attr`` node stands for."""
        return constant(self.module, node)

    @property
    def size_bytes(self) -> int:
        """Bytes of all constants that the graph reads."""
        read = {str(node.target): node for node in self.module.graph.nodes if node.op == "get_attr" and node.users}
        return sum(self.constant(node).nbytes for node in read.values())


def capture(model: nn.Module | ExportedProgram, layer: str, channels: int, input_size: int) -> ClassifierGraph:
    """Capture a classifier's inference graph.

    Parameters
    ----------
    model
        Maps a normalised float32 image ``[N, channels, S, S]`` to logits ``[N, C]``; in evaluation mode. An exported
        program must have been exported with a dynamic batch, and images of one size.
    layer
        Dotted name of the explained submodule; its output must be one tensor ``[N, D, h, w]``.
    channels, input_size
        Shape of the image.

    Raises
    ------
    InputError
        If the model is in training mode, is not float32, has no such layer, or does not map one image to one tensor
        of logits, image by image.
    """
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if dtypes - {torch.float32}:
        raise InputError(f"model: expected float32 parameters, found {', '.join(sorted(map(str, dtypes)))}")
    with quiet_torch():
        program = model if isinstance(model, ExportedProgram) else _export(model, channels, input_size)
        exported = program.run_decompositions({}).module(check_guards=False)
    module = fx.GraphModule(exported, exported.graph)
    fold(module)
    image, logits = _ends(module.graph)
    activations = _layer_output(module.graph, layer)
    _check_shapes(module.graph, image, logits, activations, (channels, input_size, input_size))
    return ClassifierGraph(module, image, activations, logits)


def _export(model: nn.Module, channels: int, input_size: int) -> ExportedProgram:
    training = [name or "the model itself" for name, module in model.named_modules() if module.training]
    if training:
        raise InputError(f"model: expected evaluation mode (call .eval()), found in training mode: {training[0]}")
    example = torch.zeros(2, channels, input_size, input_size)
    try:
        return export(model, (example,), dynamic_shapes=({0: Dim.DYNAMIC},))
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(
            f"model: expected a forward pass over images [N, {channels}, {input_size}, {input_size}] with a free batch "
            f"that torch.export can capture: {error}"
        ) from error


def _ends(graph: fx.Graph) -> tuple[fx.Node, fx.Node]:
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    outputs = next(node for node in graph.nodes if node.op == "output").all_input_nodes
    if len(inputs) != 1 or len(outputs) != 1:
        raise InputError(f"model: expected one image in and one tensor out, found {len(inputs)} and {len(outputs)}")
    return inputs[0], outputs[0]


def _modules_of(node: fx.Node) -> list[str]:
    """Dotted names of the submodules that a node was traced in, outermost first."""
    stack = node.meta.get("nn_module_stack", {}).values()
    return [path for path, kind in stack if path != kind]  # torch's placeholder for no submodule says one word twice


def _layer_output(graph: fx.Graph, layer: str) -> fx.Node:
    """The one node of a submodule that is used outside it."""
    calls = [node for node in graph.nodes if node.op == "call_function"]
    inside = {node for node in calls if layer in _modules_of(node)}
    if not inside:
        names = dict.fromkeys(name for node in calls for name in _modules_of(node))
        candidates = [name for name in names if name and name.count(".") <= layer.count(".")]
        raise InputError(f"layer: expected one of {', '.join(candidates)}, found {layer!r}")
    outputs: list[fx.Node] = [node for node in calls if node in inside and not inside.issuperset(node.users)]
    if len(outputs) != 1:
        raise InputError(f"layer {layer!r}: expected one output tensor, found {len(outputs)}")
    return outputs[0]


def _check_shapes(
    graph: fx.Graph, image: fx.Node, logits: fx.Node, activations: fx.Node, image_shape: tuple[int, ...]
) -> None:
    batch, *sizes = image.meta["val"].shape
    if isinstance(batch, int) or not all(isinstance(size, int) for size in sizes) or tuple(sizes) != image_shape:
        raise InputError(
            f"model: expected images {('N', *image_shape)}, of which only N is dynamic, found {(batch, *sizes)}"
        )
    for name, node, rank in (("logits", logits, 2), ("activations of the explained layer", activations, 4)):
        if node.meta["val"].ndim != rank:
            raise InputError(f"model: expected {rank} dimensions in the {name}, found {tuple(node.meta['val'].shape)}")
    for node in graph.nodes:
        value = node.meta.get("val") if node.op == "call_function" else None
        if isinstance(value, Tensor) and (not value.ndim or str(value.shape[0]) != str(batch)):
            raise InputError(
                f"model: expected every tensor to keep the batch as its first dimension, found "
                f"{node.target} at {place(node)} with shape {tuple(value.shape)}"
            )


def place(node: fx.Node) -> str:
    """Where in the model an operator stands, for messages: submodule, node, and line of the source if it is known."""
    names, lines = _modules_of(node), re.findall(r'File "(.+)", line (\d+)', node.meta.get("stack_trace") or "")
    where = [f"node {node.name!r}", *(f"{file}:{number}" for file, number in lines[-1:])]
    return f"{names[-1] or 'the model itself'} ({', '.join(where)})" if names else ", ".join(where)
