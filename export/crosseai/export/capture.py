"""A trained classifier as a plain graph of ATen operators, ready to be run forwards and backwards.

``torch.export`` captures any module without touching its source. The graph is then made simple: no in-place
operators, no dropout, batch norms folded into the convolutions before them (or written as a product and a sum), what
depends on parameters alone computed once.
"""

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, export

from crosseai.contract import InputError
from crosseai.export.noise import quiet_torch

aten = torch.ops.aten


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
    """

    module: fx.GraphModule
    image: fx.Node
    activations: fx.Node
    logits: fx.Node

    def constant(self, node: fx.Node) -> Tensor:
        """The parameter or buffer that a ``get_attr`` node stands for."""
        return _constant(self.module, node)


def capture(model: nn.Module | ExportedProgram, layer: str, channels: int, input_size: int) -> ClassifierGraph:
    """Capture a classifier's inference graph.

    Parameters
    ----------
    model
        Maps a normalised float32 image ``[N, channels, S, S]`` to logits ``[N, C]``; in evaluation mode. An exported
        program must have been exported with a dynamic batch.
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
    with quiet_torch():
        program = model if isinstance(model, ExportedProgram) else _export(model, channels, input_size)
        exported = program.run_decompositions({}).module(check_guards=False)
    module = fx.GraphModule(exported, exported.graph)
    for node in list(module.graph.nodes):
        if node.target in (aten._native_batch_norm_legit_no_training.default, aten.batch_norm.default):
            _fold_batch_norm(module, node)
    _fold_constants(module)
    module.graph.eliminate_dead_code()
    module.recompile()
    image, logits = _ends(module.graph)
    activations = _layer_output(module.graph, layer)
    _check_shapes(module.graph, image, logits, activations, (channels, input_size, input_size))
    return ClassifierGraph(module, image, activations, logits)


def _export(model: nn.Module, channels: int, input_size: int) -> ExportedProgram:
    training = [name or "the model itself" for name, module in model.named_modules() if module.training]
    if training:
        raise InputError(f"model: expected evaluation mode (call .eval()), found in training mode: {training[0]}")
    dtypes = {p.dtype for p in model.parameters()}
    if dtypes - {torch.float32}:
        raise InputError(f"model: expected float32 parameters, found {', '.join(sorted(map(str, dtypes)))}")
    example = torch.zeros(2, channels, input_size, input_size)
    try:
        return export(model, (example,), dynamic_shapes=({0: Dim.DYNAMIC},))
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(
            f"model: expected a forward pass over images [N, {channels}, {input_size}, {input_size}] with a free batch "
            f"that torch.export can capture: {error}"
        ) from error


def _constant(module: fx.GraphModule, node: fx.Node) -> Tensor:
    tensor: Tensor = operator.attrgetter(str(node.target))(module)
    return tensor.detach()


def _is_constant(argument: Any) -> bool:
    return isinstance(argument, fx.Node) and argument.op == "get_attr"


def _add_constant(module: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    """A new buffer and its node, at the start of the graph; parameters shared with the user's model stay as they are."""
    module.register_buffer(name, value.contiguous())
    with module.graph.inserting_before(next(iter(module.graph.nodes))):
        return module.graph.get_attr(name)


def _fold_batch_norm(module: fx.GraphModule, node: fx.Node) -> None:
    """Replace ``y = (x - mean) / sqrt(var + eps) * weight + bias`` by the convolution before it, else by two steps."""
    x, weight, bias, mean, variance = node.args[:5]
    epsilon = node.args[-1]
    mean, variance = (_constant(module, n).double() for n in (mean, variance))
    scale = torch.rsqrt(variance + epsilon)
    scale = scale if weight is None else scale * _constant(module, weight).double()
    shift = -mean * scale
    shift = shift if bias is None else shift + _constant(module, bias).double()
    if x.target is aten.conv2d.default and len(x.users) == 1 and _is_constant(x.args[1]):
        result = _fold_into_convolution(module, x, scale, shift)
    else:
        shape = (1, -1) + (1,) * (x.meta["val"].ndim - 2)
        factor = _add_constant(module, f"{node.name}_scale", scale.reshape(shape).float())
        offset = _add_constant(module, f"{node.name}_shift", shift.reshape(shape).float())
        with module.graph.inserting_before(node):
            product = module.graph.call_function(aten.mul.Tensor, (x, factor))
            result = module.graph.call_function(aten.add.Tensor, (product, offset))
        product.meta.update(x.meta)
        result.meta.update(x.meta)
    result.meta["nn_module_stack"] = node.meta.get("nn_module_stack", {})
    for user in list(node.users):
        if user.target is operator.getitem:
            user.replace_all_uses_with(result)


def _fold_into_convolution(module: fx.GraphModule, convolution: fx.Node, scale: Tensor, shift: Tensor) -> fx.Node:
    x, weight, bias, *rest = (*convolution.args, None)[: max(3, len(convolution.args))]
    kernel = _constant(module, weight)
    if bias is not None:
        shift = shift + _constant(module, bias).double() * scale
    folded = (kernel.double() * scale.reshape(-1, 1, 1, 1)).float()
    convolution.args = (
        x,
        _add_constant(module, f"{convolution.name}_weight", folded),
        _add_constant(module, f"{convolution.name}_bias", shift.float()),
        *rest,
    )
    return convolution


def _fold_constants(module: fx.GraphModule) -> None:
    for node in list(module.graph.nodes):
        inputs = node.all_input_nodes
        if node.op == "call_function" and inputs and all(map(_is_constant, inputs)):
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: _constant(module, n))
            node.replace_all_uses_with(_add_constant(module, f"{node.name}_folded", node.target(*args, **kwargs)))


def _ends(graph: fx.Graph) -> tuple[fx.Node, fx.Node]:
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    outputs = next(node for node in graph.nodes if node.op == "output").all_input_nodes
    if len(inputs) != 1 or len(outputs) != 1:
        raise InputError(f"model: expected one image in and one tensor out, found {len(inputs)} and {len(outputs)}")
    return inputs[0], outputs[0]


def _modules_of(node: fx.Node) -> list[str]:
    """Dotted names of the submodules that a node was traced in, outermost first."""
    return [path for path, _ in node.meta.get("nn_module_stack", {}).values()]


def _layer_output(graph: fx.Graph, layer: str) -> fx.Node:
    """The one node of a submodule that is used outside it."""
    calls = [node for node in graph.nodes if node.op == "call_function"]
    inside = {node for node in calls if layer in _modules_of(node)}
    if not inside:
        names = dict.fromkeys(name for node in calls for name in _modules_of(node) if name)
        spatial = [name for name in names if name.count(".") <= layer.count(".")]
        raise InputError(f"layer: expected one of {', '.join(spatial)}, found {layer!r}")
    outputs = [node for node in inside if any(user not in inside for user in node.users)]
    if len(outputs) != 1:
        raise InputError(f"layer {layer!r}: expected one output tensor, found {len(outputs)}")
    return outputs[0]


def _check_shapes(
    graph: fx.Graph, image: fx.Node, logits: fx.Node, activations: fx.Node, image_shape: tuple[int, ...]
) -> None:
    batch = image.meta["val"].shape[0]
    if isinstance(batch, int) or tuple(image.meta["val"].shape[1:]) != image_shape:
        raise InputError(f"model: expected images {('N', *image_shape)}, found {tuple(image.meta['val'].shape)}")
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
    """Where in the model an operator stands, for messages: the submodule's dotted name and the node's own."""
    names = _modules_of(node)
    return f"{names[-1] or 'the model itself'} (node {node.name!r})" if names else f"node {node.name!r}"
