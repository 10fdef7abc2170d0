"""Keeps a graph in ONNX Runtime's blocked layout where ONNX Runtime would leave it.

On CPUs, ONNX Runtime convolves tensors whose channels stand in blocks: what is ``[..., C, H, W]`` lies in memory as
``[..., C / b, H, W, b]``. It converts from and to that layout around every operator that it has no blocked kernel for,
and in a reverse pass those are many: a mask follows each convolution. Yet an elementwise operator does not care about
the order of its numbers, and one along another axis than the channels' finds its axis where it was. Here both are
applied to the blocked tensors. The numbers are the same, up to the order in which sums are taken; but a mask makes a
zero also of what is not finite, and a product with zero does not.
"""

import math
import platform

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, TensorProto, helper, shape_inference

from . import kernels
from .schedule import DOMAIN, absorbed, compared_early, in_place, needed
from .twins import Rewriter, Shape

LARGEST_SHAPE = 64
"""Numbers in a constant up to which they may be sizes, which the shapes of other tensors depend on."""


def keep_blocked(optimised: ModelProto, plain: ModelProto) -> None:
    """Rewrite a graph that ONNX Runtime has optimised for this CPU.

    Parameters
    ----------
    optimised
        As ONNX Runtime saves it; changed in place, and then to be run without further optimisation, in the order of its
        nodes, with the library of our own operators.
    plain
        What it was made of: the shapes are inferred from it.
    """
    graph = optimised.graph
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return  # what a branch or a loop reads is no input of its node
    if platform.machine() != "x86_64" or not any(node.domain == DOMAIN for node in graph.node):
        return  # ARM's blocks are not tested
    rewriter = Rewriter(graph, *_inferred(plain), block_size())
    for node in graph.node:
        rewriter.add(node)
    outputs = [output.name for output in graph.output]
    for name in outputs:
        rewriter.require(name)
    nodes = compared_early(absorbed(needed(rewriter.nodes, outputs), rewriter.sizes))
    used = {name for node in nodes for name in node.input}.union(outputs)  # an output may be a constant
    constants = [constant for constant in (*graph.initializer, *rewriter.constants) if constant.name in used]
    graph.ClearField("value_info")
    for name in in_place(nodes, rewriter.sizes):
        # no name of a dimension of the model's own
        shape = [f"blocked/{size}" if isinstance(size, str) else size for size in rewriter.sizes[name]]
        graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    graph.ClearField("node")
    graph.node.extend(nodes)
    graph.ClearField("initializer")
    graph.initializer.extend(constants)
    optimised.opset_import.append(helper.make_opsetid(kernels.DOMAIN, 1))


def block_size() -> int:
    """Channels a block on this CPU: those that ONNX Runtime makes of four."""
    node = helper.make_node("ReorderInput", ["plain"], ["blocked"], domain=DOMAIN)
    plain = helper.make_tensor_value_info("plain", TensorProto.FLOAT, [1, 4, 1, 1])
    blocked = helper.make_tensor_value_info("blocked", TensorProto.FLOAT, None)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
    graph = helper.make_graph([node], "block", [plain], [blocked])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    size: int = session.run(None, {"plain": np.zeros((1, 4, 1, 1), dtype=np.float32)})[0].shape[1]
    return size


def _inferred(plain: ModelProto) -> tuple[dict[str, Shape], dict[str, int]]:
    """Shape and element type of all tensors."""
    light = ModelProto(ir_version=plain.ir_version, opset_import=plain.opset_import)
    for field in ("node", "input", "output"):
        getattr(light.graph, field).extend(getattr(plain.graph, field))
    for constant in plain.graph.initializer:
        if math.prod(constant.dims) > LARGEST_SHAPE:  # a weight: its numbers say nothing, and there are many
            light.graph.input.append(helper.make_tensor_value_info(constant.name, constant.data_type, constant.dims))
        else:
            light.graph.initializer.append(constant)
    graph = shape_inference.infer_shapes(light, data_prop=True).graph
    shapes: dict[str, Shape] = {constant.name: tuple(constant.dims) for constant in graph.initializer}
    types = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        types[value.name] = tensor.elem_type
        if tensor.HasField("shape"):
            sizes = (dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim)
            shapes[value.name] = tuple(sizes)
    return shapes, types
