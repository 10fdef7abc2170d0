"""Operators of our own in place of ONNX Runtime's; ``triton_models/kernels`` has their library."""

from collections.abc import Mapping, Sequence

from onnx import NodeProto, TensorProto, helper

DOMAIN = "crosseai"


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
    if node.op_type == "Mul" and not node.domain:
        for x, mask in (node.input, reversed(node.input)):
            cast = producers.get(mask, node)
            of_booleans = cast.op_type == "Cast" and types.get(cast.input[0]) == TensorProto.BOOL
            if of_booleans and types.get(x) == TensorProto.FLOAT:
                return helper.make_node("Mask", [x, cast.input[0]], node.output, domain=DOMAIN)
    if node.op_type == "ArgMax" and types.get(node.input[0]) == TensorProto.FLOAT and node.input[0] in shapes:
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        axis = attributes.get("axis", 0) % len(shapes[node.input[0]])
        if not attributes.get("keepdims", 1) and not attributes.get("select_last_index", 0):
            return helper.make_node("ArgMax", node.input, node.output, domain=DOMAIN, axis=axis)
    return node
