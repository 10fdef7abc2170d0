"""What the library of our own operators says when ONNX Runtime is given a graph that is wrong."""

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from crosseai.serve.environment import KERNELS


def session(operator: str, inputs: int = 1, **attributes: int) -> ort.InferenceSession:
    """One node, of float tensors ``x0``, ``x1``, ... that have two dimensions."""
    names = [f"x{i}" for i in range(inputs)]
    node = helper.make_node(operator, names, ["y"], domain="crosseai", **attributes)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in names]
    graph = helper.make_graph([node], "test", values, [helper.make_empty_tensor_value_info("y")])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("crosseai", 1)]
    options = ort.SessionOptions()
    options.register_custom_ops_library(str(KERNELS))
    options.log_severity_level = 4  # it logs what it raises
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def test_an_attribute_that_is_missing():
    with pytest.raises(Exception, match="axis"):
        session("ArgMax")


def test_an_attribute_that_is_negative():
    with pytest.raises(Exception, match="expected an axis of 0 or more, found -1"):
        session("ArgMax", axis=-1)


def test_shapes_that_do_not_fit():
    joined = session("Concat", 2, axis=1)
    feed = {"x0": np.zeros((2, 3), np.float32), "x1": np.ones((2, 1), np.float32)}
    assert joined.run(None, feed)[0].tolist() == [[0, 0, 0, 1]] * 2
    with pytest.raises(Exception, match=r"differ in dimension 1 alone, found \[2, \d\] and \[3, \d\]"):
        joined.run(None, feed | {"x1": np.ones((3, 1), np.float32)})


def test_sessions_have_the_operators_in_common_and_end_apart():
    x = np.float32([[1, 3], [5, 2]])
    first, second = session("ArgMax", axis=1), session("ArgMax", axis=0)
    assert first.run(None, {"x0": x})[0].tolist() == [1, 0]
    del first
    assert second.run(None, {"x0": x})[0].tolist() == [1, 0]
    assert session("ArgMax", axis=1).run(None, {"x0": x})[0].tolist() == [1, 0]
