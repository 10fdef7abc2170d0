"""Operators of our own in place of ONNX Runtime's; ``triton_models/kernels`` has their library."""

from collections.abc import Mapping, Sequence

from onnx import NodeProto, TensorProto, helper

DOMAIN = "crosseai"

SHORTEST_ROW = 32
"""Numbers in a row that a mask does not repeat, from which our operator is the faster one."""


def own(
    node: NodeProto,
    producers: Mapping[str, NodeProto],
    types: Mapping[str, int],
    shapes: Mapping[str, Sequence[int | str]],
) -> NodeProto:
    """The node that does the same with an operator of our own, if there is one; else the node itself.

    Parameters
    ----------
    producers
        Nodes by what they make.
    types, shapes
        Of the tensors, where they are known.
    """
    if node.domain or types.get(node.input[0] if node.input else "") != TensorProto.FLOAT:
        return node
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "Mul":
        for x, mask in (node.input, reversed(node.input)):
            cast = producers.get(mask, node)
            booleans = cast.input[0] if cast.op_type == "Cast" else ""
            if types.get(booleans) == TensorProto.BOOL and _row(shapes, x, booleans) >= SHORTEST_ROW:
                return helper.make_node("Mask", [x, booleans], node.output, domain=DOMAIN)
    if node.op_type == "Greater" and shapes.get(node.input[1]) == ():
        return helper.make_node("Greater", node.input, node.output, domain=DOMAIN)
    if (
        node.op_type == "Pad"
        and len(node.input) in (2, 3)
        and all(node.input)
        and attributes.get("mode", b"constant") == b"constant"
    ):
        return helper.make_node("Pad", node.input, node.output, domain=DOMAIN)
    if node.op_type in ("ArgMax", "Concat") and node.input[0] in shapes:
        axis = attributes.get("axis", 0) % len(shapes[node.input[0]])
        as_ours = node.op_type == "Concat" or not (
            attributes.get("keepdims", 1) or attributes.get("select_last_index", 0)
        )
        if as_ours:
            return helper.make_node(node.op_type, node.input, node.output, domain=DOMAIN, axis=axis)
    return node


def _row(shapes: Mapping[str, Sequence[int | str]], x: str, y: str) -> int:
    """Numbers in the last dimensions, as far as two tensors agree in them."""
    row = 1
    for one, other in zip(reversed(shapes.get(x, ())), reversed(shapes.get(y, ())), strict=False):
        if isinstance(one, str) or one != other:
            break
        row *= one
    return row
