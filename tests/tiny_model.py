"""A tiny ONNX model with every tensor of the served model, for tests that need a server but no network training.

It is a class activation map classifier: strided convolution -> ReLU -> global average -> linear, with its true
gradients. A target that is no class fails in the explaining part of the graph, and only there.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from crosseai.contract import MODEL_FILENAME, ModelSpec

TINY_SPEC = ModelSpec(input_size=32, feature_shape=(4, 4, 4))

_ONNX_DTYPES = {"uint8": TensorProto.UINT8, "int64": TensorProto.INT64, "float32": TensorProto.FLOAT}


def write_tiny_model(folder: Path, spec: ModelSpec = TINY_SPEC, *, seed: int = 0) -> Path:
    """Write ``model.onnx`` and ``model_spec.json`` into a folder, as the exporter does."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(tiny_model(spec, seed=seed), folder / MODEL_FILENAME)
    spec.save(folder)
    return folder


def tiny_model(spec: ModelSpec = TINY_SPEC, *, seed: int = 0) -> onnx.ModelProto:
    """Build the model; ``seed`` chooses its weights."""
    rng = np.random.default_rng(seed)
    depth, height, width = spec.feature_shape
    kernel = (spec.input_size // height, spec.input_size // width)
    constants = {
        "filters": rng.normal(size=(depth, 1, *kernel)).astype(np.float32),
        "weights": rng.normal(size=(len(spec.classes), depth)).astype(np.float32),
        "full": np.float32(255),
        "pixels": np.float32(height * width),
        "unchosen": np.int64(-1),
        "identity": np.eye(len(spec.classes), dtype=np.float32),
        "feature_size": np.array([1, 1, 1, height, width]),
        "maps_dhw": np.array([-1, depth, height, width]),
        "image_size": np.array([1, spec.input_size, spec.input_size]),
        "axis_1": np.array([1]),
        "axis_2": np.array([2]),
        "axes_2_3": np.array([2, 3]),
        "axes_3_4": np.array([3, 4]),
        "axes_2_3_4": np.array([2, 3, 4]),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["image"], ["gray"], to=TensorProto.FLOAT),
        node("Div", ["gray", "full"], ["scaled"]),
        node("Conv", ["scaled", "filters"], ["features"], strides=kernel),
        node("Relu", ["features"], ["activations"]),
        node("ReduceMean", ["activations", "axes_2_3"], ["pooled"], keepdims=0),
        node("Gemm", ["pooled", "weights"], ["logits"], transB=1),
        # The k-th most probable class where the target is -1.
        node("Shape", ["targets"], ["k"], start=1, end=2),
        node("TopK", ["logits", "k"], ["top_logits", "top_classes"]),
        node("Equal", ["targets", "unchosen"], ["is_unchosen"]),
        node("Where", ["is_unchosen", "top_classes", "targets"], ["explained"]),
        # The backward pass of each explained logit, from its row of the identity matrix, [N,K,C].
        node("Gather", ["identity", "explained"], ["seeds"]),
        node("MatMul", ["seeds", "weights"], ["class_weights"]),
        node("Div", ["class_weights", "pixels"], ["pooled_gradients"]),
        node("Unsqueeze", ["pooled_gradients", "axes_3_4"], ["pooled_gradients_hw"]),
        node("Unsqueeze", ["activations", "axis_1"], ["activations_k"]),
        node("Sign", ["activations_k"], ["relu_gradients"]),
        node("Expand", ["pooled_gradients_hw", "feature_size"], ["activation_gradients"]),
        node("Mul", ["activation_gradients", "relu_gradients"], ["feature_gradients"]),
        node("Reshape", ["feature_gradients", "maps_dhw"], ["feature_gradients_flat"]),
        node("ConvTranspose", ["feature_gradients_flat", "filters"], ["input_gradients_flat"], strides=kernel),
        node("Shape", ["explained"], ["n_k"]),
        node("Concat", ["n_k", "image_size"], ["n_k_image"], axis=0),
        node("Reshape", ["input_gradients_flat", "n_k_image"], ["input_gradients"]),
        # CAM heat maps; gradient maps in shades of gray.
        node("Einsum", ["class_weights", "activations"], ["heatmaps"], equation="nkd,ndhw->nkhw"),
        node("Abs", ["input_gradients"], ["magnitudes"]),
        node("ReduceMax", ["magnitudes", "axes_2_3_4"], ["largest"]),
        node("Div", ["magnitudes", "largest"], ["relative_magnitudes"]),
        node("Mul", ["relative_magnitudes", "full"], ["shades"]),
        node("Squeeze", ["shades", "axis_2"], ["shades_hw"]),
        node("Cast", ["shades_hw"], ["gradient_maps"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(t.name, _ONNX_DTYPES[t.dtype], t.shape) for t in spec.inputs],
        [helper.make_tensor_value_info(t.name, _ONNX_DTYPES[t.dtype], t.shape) for t in spec.outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {"model_spec": spec.to_json()})
    onnx.checker.check_model(model)
    return model
