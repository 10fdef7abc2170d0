"""Which nodes of a blocked graph are run, and in which order; what a convolution does on its way, and what in place."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from onnx import NodeProto, helper

DOMAIN = "com.microsoft.nchwc"
"""Of ONNX Runtime's blocked operators."""

COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})


def is_blocked(node: NodeProto, operator: str) -> bool:
    """Whether a node is one of ONNX Runtime's blocked operators."""
    return bool(node.domain == DOMAIN and node.op_type == operator)


def needed(nodes: Sequence[NodeProto], outputs: Iterable[str]) -> list[NodeProto]:
    """Nodes that some output needs."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def compared_early(nodes: Sequence[NodeProto]) -> list[NodeProto]:
    """Run a comparison right after what it compares: its booleans take a quarter of what that would hold until then."""
    places: dict[str, int] = {}
    """Of what is made, where it is made."""
    order: list[int] = []
    for i, node in enumerate(nodes):
        made = [name for name in node.input if name in places]
        order.append(places[made[0]] if node.op_type in COMPARISONS and len(made) == 1 else i)
        places.update(dict.fromkeys(node.output, order[-1]))
    return [node for _, node in sorted(zip(order, nodes, strict=True), key=lambda pair: pair[0])]


def absorbed(nodes: Sequence[NodeProto], sizes: Mapping[str, object]) -> list[NodeProto]:
    """Let convolutions add a tensor to their result, and apply a ReLU to that, as ONNX Runtime's blocked kernel can.

    Parameters
    ----------
    nodes
        In the order in which they are run.
    sizes
        Of blocked maps, where they are known: that kernel does not broadcast.
    """
    uses = Counter(name for node in nodes for name in node.input)
    open_ends: dict[str, NodeProto] = {}
    """Results of convolutions that a single node reads, which may thus be replaced by what it makes of them."""
    kept: list[NodeProto] = []
    for node in nodes:
        convolution = next((open_ends.pop(name) for name in node.input if name in open_ends), None)
        if convolution is not None and _absorb(convolution, node, sizes):
            node = convolution
        kept.append(node)
        closed = any(attribute.name == "activation" for attribute in node.attribute)
        if is_blocked(node, "Conv") and not closed and uses[node.output[0]] == 1:
            open_ends[node.output[0]] = node
    last = {id(node): place for place, node in enumerate(kept)}
    return [node for place, node in enumerate(kept) if last[id(node)] == place]


def in_place(nodes: Iterable[NodeProto], sizes: Mapping[str, object]) -> list[str]:
    """Tensors that nodes can change in place, and the results: ONNX Runtime does it if told that their shape is one."""
    pairs = [(node.input[3], node.output[0]) for node in nodes if is_blocked(node, "Conv") and len(node.input) == 4]
    pairs += [(node.input[0], node.output[0]) for node in nodes if node.op_type in ("Mask", "ScatterElements")]
    equal = [pair for pair in pairs if sizes.get(pair[0]) == sizes.get(pair[1]) is not None]
    return list(dict.fromkeys(name for pair in equal for name in pair))


def _absorb(convolution: NodeProto, node: NodeProto, sizes: Mapping[str, object]) -> bool:
    """Let a convolution do what the node after it does, if it can."""
    made = convolution.output[0]
    if node.op_type == "Relu":
        convolution.attribute.append(helper.make_attribute("activation", "Relu"))
    elif node.op_type == "Add" and len(convolution.input) < 4:
        other = next((name for name in node.input if name != made), made)
        if other not in sizes or sizes[other] != sizes.get(made):
            return False
        convolution.input.extend([*[""] * (3 - len(convolution.input)), other])
    else:
        return False
    convolution.output[:] = node.output
    return True
