"""What the library of our own operators says when ONNX Runtime is given a graph that is wrong."""

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from crosseai.serve.environment import KERNELS


def session(
    operator: str, inputs: int = 1, constants: tuple[object, ...] = (), **attributes: int
) -> ort.InferenceSession:
    """One node, of float tensors ``x0``, ``x1``, ... that have two dimensions, and constants; None for one left out."""
    names = [f"x{i}" for i in range(inputs)]
    arrays = {f"c{i}": np.asarray(value) for i, value in enumerate(constants) if value is not None}
    given = [f"c{i}" if f"c{i}" in arrays else "" for i in range(len(constants))]
    node = helper.make_node(operator, [*names, *given], ["y"], domain="crosseai", **attributes)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in names]
    initializers = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph([node], "test", values, [helper.make_empty_tensor_value_info("y")], initializers)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("crosseai", 1)]
    options = ort.SessionOptions()
    options.register_custom_ops_library(str(KERNELS))
    options.log_severity_level = 4  # it logs what it raises
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def test_an_attribute_that_is_missing():
    with pytest.raises(Exception, match="No attribute with name:'axis'"):
        session("ArgMax")


def test_an_attribute_that_is_negative():
    with pytest.raises(Exception, match="expected an axis of 0 or more, found -1"):
        session("ArgMax", axis=-1)


def test_shapes_that_do_not_fit():
    joined = session("Concat", 2, axis=1)
    feed = {"x0": np.zeros((2, 3), np.float32), "x1": np.ones((2, 1), np.float32)}
    assert joined.run(None, feed)[0].tolist() == [[0, 0, 0, 1]] * 2
    with pytest.raises(Exception, match=r"in dimension 1 alone, found \[2, 3\] and \[3, 1\]"):
        joined.run(None, feed | {"x1": np.ones((3, 1), np.float32)})


@pytest.mark.parametrize("values", [(), (None,), (np.float32(2),)])
def test_padding_with_and_without_a_number(values):
    found = session("Pad", 1, ([0, 1, 0, 0], *values)).run(None, {"x0": np.ones((1, 2), np.float32)})[0]
    assert found.tolist() == [[2 if values == (2,) else 0, 1, 1]]


@pytest.mark.parametrize(
    ("operator", "constants", "message"),
    [
        ("Pad", ([0, 1, 0, 0], np.float32([])), r"expected one number, found \[0\]"),
        ("Pad", ([0, 1], np.float32(0)), r"expected two pads a dimension of \[1, 2\], found \[0, 1\]"),
        ("Slice", ([0], [1], [1], [-1]), r"positive steps, found \[1\] and \[-1\]"),
        ("Slice", ([0], [1], [-1], [1]), r"expected axes of \[1, 2\]"),
        ("Greater", (np.float32([1, 2]),), r"expected one number, found \[2\]"),
    ],
)
def test_numbers_that_do_not_fit(operator, constants, message):
    with pytest.raises(Exception, match=message):
        session(operator, 1, constants).run(None, {"x0": np.ones((1, 2), np.float32)})


def test_sessions_have_the_operators_in_common_and_end_apart():
    x = np.float32([[1, 3], [5, 2]])
    for _ in range(2):  # after the last has ended, there can be another
        first, second = session("ArgMax", axis=1), session("ArgMax", axis=0)
        assert first.run(None, {"x0": x})[0].tolist() == [1, 0]
        del first
        assert second.run(None, {"x0": x})[0].tolist() == [1, 0]
        del second
