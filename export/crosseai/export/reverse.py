"""The class-specific reverse pass: one sweep over a captured graph, written with forward operators.

``K`` classes are explained at once. A cotangent is ``[K * N, ...]``, the images of a class next to each other; what the
forward pass computed stays ``[N, ...]`` and is broadcast over the classes, without a copy.
"""

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx

from crosseai.contract import InputError
from crosseai.contract.spec import GradientMethod
from crosseai.export.capture import place


@dataclass(frozen=True, slots=True)
class Selected:
    """A gradient that is zero but for one place along a dimension, such as that of a maximum.

    Parameters
    ----------
    dim
        The dimension.
    indices
        The places, ``[N, ...]`` of size 1 along ``dim``.
    values
        The gradient there, ``[K * N, ...]`` of the shape of ``indices``.
    """

    dim: int
    indices: Tensor
    values: Tensor

    def added_to(self, dense: Tensor, classes: int) -> Tensor:
        """Sum with a gradient ``[K * N, ...]``, of which only the places are read and written.

        They are gathered, added to and scattered: TensorRT's parser refuses a scatter that adds.
        """
        indices = self.indices.expand(classes, *self.indices.shape).flatten(0, 1)
        return dense.scatter(self.dim, indices, dense.gather(self.dim, indices) + self.values)


Gradients: TypeAlias = Mapping[str, Tensor | Selected | Iterable[Tensor]]
"""Gradient for each named argument of an operator; for a list of tensors, one gradient each."""


@dataclass(frozen=True, slots=True)
class Call:
    """One operator call of the forward pass, as a rule sees it.

    Parameters
    ----------
    arguments
        Values of the call's arguments by their names in the operator's schema, defaults filled in; tensors that
        depend on the image are ``[N, ...]``.
    output
        What the call returned.
    wanted
        Names of the arguments that depend on the image, in the schema's order: only their gradients are used.
    classes
        ``K``, the cotangents an image.
    method
        The rule of ReLUs.
    """

    arguments: Mapping[str, Any]
    output: Any
    wanted: tuple[str, ...]
    classes: int
    method: GradientMethod

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def per_class(self, function: Callable[..., Tensor], gradient: Tensor, *values: Tensor) -> Tensor:
        """Apply an elementwise function to a cotangent ``[K * N, ...]`` and forward values ``[N, ...]``."""
        split = gradient.reshape(self.classes, -1, *gradient.shape[1:])  # [K, N, ...]
        return function(split, *values).flatten(0, 1)

    def reduced(self, name: str, gradient: Tensor) -> Tensor:
        """Sum a gradient over the dimensions along which the call broadcast an argument."""
        sizes = zip(self.arguments[name].shape[1:], gradient.shape[1:], strict=True)
        broadcast = [dim for dim, (own, full) in enumerate(sizes, start=1) if own == 1 and full != 1]
        if not broadcast:
            return gradient
        wide = torch.promote_types(gradient.dtype, torch.float32)
        return gradient.sum(broadcast, keepdim=True, dtype=wide).to(gradient.dtype)


Rule: TypeAlias = Callable[[Call, Tensor], Gradients]
RULES: dict[Any, Rule] = {}


def rule(*operators: Any) -> Callable[[Rule], Rule]:
    """Register the reverse rule of ATen operators; ``crosseai.export.rules`` shows how to write one."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operators, function))
        return function

    return register


def sweep(
    graph: fx.Graph,
    values: Mapping[fx.Node, Any],
    seed: tuple[fx.Node, Tensor],
    target: fx.Node,
    *,
    classes: int,
    method: GradientMethod,
) -> Tensor:
    """Pull a cotangent back through the graph.

    Parameters
    ----------
    graph
        The forward pass.
    values
        What every node of it computed.
    seed
        A node and its cotangent ``[K * N, ...]``.
    target
        The node whose gradient is wanted.
    classes
        ``K``.
    method
        The rule of every ReLU between seed and target.

    Returns
    -------
    Tensor
        ``[K * N, ...]``, of the target's shape.

    Raises
    ------
    InputError
        If an operator on the way has no rule.
    """
    start, cotangent = seed
    dependent = _downstream(graph, values, target)
    gradients = {start: cotangent}
    for node in reversed(graph.nodes):
        gradient = gradients.pop(node, None)
        if gradient is None:
            continue
        gradient = _expanded(gradient, values[node])
        if node is target:
            return gradient
        for source, part in _pull_back(node, gradient, values, dependent, classes, method):
            gradients[source] = _sum(gradients.get(source), part, values[source], classes)
    raise InputError(f"explained layer: expected the logits to depend on {target.name!r}, found that they do not")


def _downstream(graph: fx.Graph, values: Mapping[fx.Node, Any], target: fx.Node) -> set[fx.Node]:
    """Nodes that carry tensors computed from the target, and the target; sizes are no tensors."""
    dependent = {target}
    for node in graph.nodes:
        from_target = any(source in dependent for source in node.all_input_nodes)
        if from_target and isinstance(values.get(node), (Tensor, tuple)):
            dependent.add(node)
    return dependent


def _expanded(gradient: Tensor, value: Any) -> Tensor:
    shape = (value[0] if isinstance(value, tuple) else value).shape[1:]
    return gradient if gradient.shape[1:] == shape else gradient.expand(-1, *shape)


def _sum(so_far: Tensor | None, part: Tensor | Selected, value: Any, classes: int) -> Tensor:
    """Of what a source gets; a part may be of size 1 where the source is not: it counts for all of that dimension."""
    if isinstance(part, Selected):
        dense = torch.zeros_like(part.values) if so_far is None else so_far
        return part.added_to(_expanded(dense, value), classes)
    return part if so_far is None else so_far + part


def _pull_back(
    node: fx.Node,
    gradient: Tensor,
    values: Mapping[fx.Node, Any],
    dependent: set[fx.Node],
    classes: int,
    method: GradientMethod,
) -> Iterable[tuple[fx.Node, Tensor | Selected]]:
    if node.target is operator.getitem and node.args[1] == 0:
        return [(node.all_input_nodes[0], gradient)]
    if node.target not in RULES:
        raise InputError(
            f"model: operator {node.target} at {place(node)} has no reverse rule; register one with "
            "crosseai.export.reverse.rule: export/README.md shows how, crosseai/export/operators holds the others"
        )
    sources = _arguments(node)
    wanted = tuple(name for name, source in sources.items() if not dependent.isdisjoint(_nodes(source)))
    arguments = fx.node.map_arg(sources, values.__getitem__)
    parts = RULES[node.target](Call(arguments, values[node], wanted, classes, method), gradient)
    return [pair for name in wanted for pair in _pairs(sources[name], parts[name]) if pair[0] in dependent]


def _arguments(node: fx.Node) -> dict[str, Any]:
    """A call's arguments by name, defaults filled in."""
    operation: Any = node.target
    schema = operation._schema.arguments
    given = dict(zip((argument.name for argument in schema), node.args, strict=False)) | node.kwargs
    return {argument.name: given.get(argument.name, argument.default_value) for argument in schema}


def _nodes(source: Any) -> list[fx.Node]:
    candidates = source if isinstance(source, (list, tuple)) else [source]
    return [node for node in candidates if isinstance(node, fx.Node)]


def _pairs(source: Any, part: Tensor | Selected | Iterable[Tensor]) -> Iterable[tuple[fx.Node, Tensor | Selected]]:
    return zip(_nodes(source), [part] if isinstance(part, (Tensor, Selected)) else part, strict=True)
