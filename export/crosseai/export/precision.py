"""Reduced precision inside the graph: a narrow trunk between a float32 image and a float32 head.

The casts are put into the captured graph before it is run backwards, and the reverse rules follow the types that they
are given. So the exported file is strongly typed: every runtime computes in the same types, and none chooses.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, fx

from crosseai.contract import InputError
from crosseai.export.capture import ClassifierGraph, place
from crosseai.export.folding import add_constant, constant

aten = torch.ops.aten

_SUMS = {aten.mean.dim, aten.sum.dim_IntList, aten.adaptive_avg_pool2d.default}
"""Operators that add up many values: within the trunk, too, they run in float32."""


def lower(classifier: ClassifierGraph, dtype: torch.dtype) -> ClassifierGraph:
    """Run the trunk of a classifier, from the image to its last feature map, in a narrow floating-point type.

    Parameters
    ----------
    classifier
        A float32 graph; changed in place.
    dtype
        ``torch.float16``; PyTorch also runs ``torch.bfloat16``.

    Returns
    -------
    ClassifierGraph
        The same graph, with a ``head``. An explained layer at the trunk's end is explained in float32.

    Raises
    ------
    InputError
        If no single feature map lies between image and logits, or a weight is beyond the type's range.
    """
    graph, trunk = classifier.module.graph, _trunk(classifier)
    end = trunk[-1]
    _narrow_constants(classifier.module, trunk, dtype)
    _cast_for(graph, classifier.image, dtype, trunk)
    for node in trunk:
        if node.target in _SUMS:
            for source in node.all_input_nodes:
                _cast_for(graph, source, torch.float32, [node])
            if node is not end:
                _cast_for(graph, node, dtype, list(node.users))
    head = _cast_for(graph, end, torch.float32, [user for user in end.users if user not in trunk])
    activations = head if classifier.activations is end else classifier.activations
    return replace(classifier, activations=activations, head=head)


def _trunk(classifier: ClassifierGraph) -> list[fx.Node]:
    """Tensors computed from the image, up to the last feature map through which everything later goes."""
    reached: list[fx.Node] = []
    unread = {classifier.image: _readers(classifier.image)}
    length = 0
    for node in classifier.module.graph.nodes:
        sources = [source for source in node.all_input_nodes if source in unread]
        if node.op != "call_function" or not sources or not _is_tensor(node):
            continue
        reached.append(node)
        unread[node] = _readers(node)
        for source in sources:
            unread[source].discard(node)
        is_end = node is classifier.activations or _is_map(node)
        if is_end and not any(readers for earlier, readers in unread.items() if earlier is not node):
            length = len(reached)
    if not length:
        raise InputError("precision: expected one feature map [N, D, h, w] that all logits come from, found none")
    return reached[:length]


def _readers(node: fx.Node) -> set[fx.Node]:
    return {user for user in node.users if _is_tensor(user)}


def _is_tensor(node: fx.Node) -> bool:
    """Whether a node carries tensors, not a size."""
    return isinstance(node.meta.get("val"), (Tensor, tuple, list))


def _is_map(node: fx.Node) -> bool:
    value = node.meta["val"]
    return isinstance(value, Tensor) and value.ndim == 4 and int(value.shape[2]) * int(value.shape[3]) > 1


def _narrow_constants(module: fx.GraphModule, trunk: Sequence[fx.Node], dtype: torch.dtype) -> None:
    """Give the trunk constants of its own type; the head, and the user's model, keep theirs."""
    for source in [node for node in module.graph.nodes if node.op == "get_attr"]:
        wide, users = constant(module, source), [user for user in source.users if user in trunk]
        if not users or not wide.is_floating_point():
            continue
        narrow = wide.to(dtype)
        if not narrow.isfinite().all():
            raise InputError(
                f"precision: expected weights within the range of {dtype}, found {wide.abs().max():.3g} "
                f"at {place(users[0])}"
            )
        node = add_constant(module, f"{source.name}_narrow", narrow)
        for user in users:
            user.replace_input_with(source, node)


def _cast_for(graph: fx.Graph, source: fx.Node, dtype: torch.dtype, users: Iterable[fx.Node]) -> fx.Node:
    """Let some users read a tensor in another type."""
    with graph.inserting_after(source):
        cast = graph.call_function(aten._to_copy.default, (source,), {"dtype": dtype})
    cast.meta = {key: source.meta[key] for key in ("val", "nn_module_stack") if key in source.meta}
    for user in users:
        user.replace_input_with(source, cast)
    return cast


def unscaled(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Split a gradient ``[B, ...]`` into one whose greatest magnitude is 1 and its scale ``[B, 1, ...]``, both float32.

    Gradients of logits are about 1e-4 and smaller, near the bottom of float16. The reverse pass is linear and the
    guided rule, which looks at signs, commutes with positive factors, so that the scale can be put back at the end.
    """
    scale = gradient.abs().amax(list(range(1, gradient.ndim)), keepdim=True)
    return gradient / torch.where(scale > 0, scale, 1.0), scale
