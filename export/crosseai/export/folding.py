"""Simplification of a captured graph: batch norms and constants folded, splits as slices, the unused dropped."""

import operator
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten


def fold(module: fx.GraphModule) -> None:
    """Simplify a graph in place; parameters that it shares with the user's model stay as they are."""
    for node in list(module.graph.nodes):
        if node.target is aten._native_batch_norm_legit_no_training.default:
            _fold_batch_norm(module, node)
        elif node.target in (aten.split.Tensor, aten.split_with_sizes.default):
            _slice(module.graph, node)
    for node in list(module.graph.nodes):
        inputs = node.all_input_nodes
        if node.op == "call_function" and inputs and all(map(_is_constant, inputs)):
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: constant(module, n))
            node.replace_all_uses_with(add_constant(module, f"{node.name}_folded", node.target(*args, **kwargs)))
    module.graph.eliminate_dead_code()
    module.recompile()


def constant(module: fx.GraphModule, node: fx.Node) -> Tensor:
    """The parameter or buffer that a ``get_attr`` node stands for."""
    tensor: Tensor = operator.attrgetter(str(node.target))(module)
    return tensor


def _is_constant(argument: Any) -> bool:
    return isinstance(argument, fx.Node) and argument.op == "get_attr"


def add_constant(module: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    """A new buffer and its node, at the start of the graph."""
    module.register_buffer(name, value.detach().contiguous())
    with module.graph.inserting_before(next(iter(module.graph.nodes))):
        return module.graph.get_attr(name)


def _fold_batch_norm(module: fx.GraphModule, node: fx.Node) -> None:
    """Write ``y = (x - mean) / sqrt(var + eps) * weight + bias`` as ``x * scale + shift``.

    Both go into the convolution before it, if there is one and nobody else reads its output.
    """
    args: Any = node.args
    x, weight, bias, mean, variance, _, epsilon = args
    scale = torch.rsqrt(constant(module, variance).double() + epsilon)
    scale = scale if weight is None else scale * constant(module, weight).double()
    shift = -constant(module, mean).double() * scale
    shift = shift if bias is None else shift + constant(module, bias).double()
    if x.target is aten.conv2d.default and len(x.users) == 1 and _is_constant(x.args[1]):
        result = _fold_into_convolution(module, x, scale, shift)
        result.meta["nn_module_stack"] = node.meta["nn_module_stack"]  # the batch norm's output is now this node's
    else:
        result = _scale_and_shift(module, node, scale, shift)
    for user in list(node.users):
        if user.target is operator.getitem:  # of (output, saved mean, saved variance) only the output is used
            user.replace_all_uses_with(result)


def _slice(graph: fx.Graph, split: fx.Node) -> None:
    """Let the users of a split's parts read slices, each an operator with one output."""
    args: Any = split.args
    x, dim = args[0], args[2] if len(args) > 2 else split.kwargs.get("dim", 0)
    ends = list(accumulate(part.shape[dim] for part in split.meta["val"]))
    for part in list(split.users):
        index: Any = part.args[1]
        with graph.inserting_before(part):
            start = ends[index - 1] if index else 0
            result = graph.call_function(aten.slice.Tensor, (x, dim, start, ends[index]))
        result.meta = dict(part.meta)
        part.replace_all_uses_with(result)


def _fold_into_convolution(module: fx.GraphModule, convolution: fx.Node, scale: Tensor, shift: Tensor) -> fx.Node:
    args: Any = convolution.args
    x, weight, bias, *geometry = args if len(args) > 2 else (*args, None)
    if bias is not None:
        shift = shift + constant(module, bias).double() * scale
    kernel = constant(module, weight).double() * scale.reshape(-1, 1, 1, 1)
    folded_weight = add_constant(module, f"{convolution.name}_weight", kernel.float())
    folded_bias = add_constant(module, f"{convolution.name}_bias", shift.float())
    convolution.args = (x, folded_weight, folded_bias, *geometry)
    return convolution


def _scale_and_shift(module: fx.GraphModule, node: fx.Node, scale: Tensor, shift: Tensor) -> fx.Node:
    x = node.all_input_nodes[0]
    shape = (1, -1) + (1,) * (x.meta["val"].ndim - 2)
    factor = add_constant(module, f"{node.name}_scale", scale.reshape(shape).float())
    offset = add_constant(module, f"{node.name}_shift", shift.reshape(shape).float())
    with module.graph.inserting_before(node):
        product = module.graph.call_function(aten.mul.Tensor, (x, factor))
        result = module.graph.call_function(aten.add.Tensor, (product, offset))
    for step in (product, result):
        step.meta = {"val": x.meta["val"], "nn_module_stack": node.meta["nn_module_stack"]}
    return result
