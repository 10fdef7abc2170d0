"""Graphs kept in ONNX Runtime's blocked layout against the same graphs as ONNX Runtime runs them."""

import platform
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from crosseai.serve.environment import KERNELS
from triton_models.backends.onnxruntime.cpu.blocked import block_size, keep_blocked

OPSETS = [helper.make_opsetid("", 20)]
CPU = ["CPUExecutionProvider"]
C, H, W = 32, 7, 6

blocks_are_kept = pytest.mark.skipif(platform.machine() != "x86_64", reason="graphs are rewritten on x86-64 alone")


class Builder:
    """A graph in the making: convolutions of ``image`` ``[N, C, H, W]``, and what is done with their results.

    Its other input ``images`` is ``[N]``.
    """

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []

    def add(self, operator: str, inputs: list[str], **attributes) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, values) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def convolution(self, x: str, channels: int = C) -> str:
        weights = self.rng.normal(size=(C, channels, 3, 3)).astype(np.float32) / channels
        return self.add("Conv", [x, self.constant(weights)], pads=[1, 1, 1, 1])

    def model(self, outputs: list[str]) -> ModelProto:
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", C, H, W])
        ends = [helper.make_empty_tensor_value_info(name) for name in outputs]
        images = helper.make_tensor_value_info("images", TensorProto.INT64, [1])
        graph = helper.make_graph(self.nodes, "test", [image, images], ends, self.initializers)
        model = helper.make_model(graph, opset_imports=OPSETS, ir_version=10)
        typed = {value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.output}
        del model.graph.output[:]
        model.graph.output.extend(typed[name] for name in outputs)
        return model


def rewritten(model: ModelProto, folder: Path) -> ModelProto:
    """What the embedded server runs."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    ort.InferenceSession(model.SerializeToString(), options, providers=CPU)
    optimised = onnx.load(folder / "optimised.onnx")
    keep_blocked(optimised, model)
    return optimised


def run(model: ModelProto, images: int, *, in_order: bool = False) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.register_custom_ops_library(str(KERNELS))
    if in_order:
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    session = ort.InferenceSession(model.SerializeToString(), options, providers=CPU)
    image = np.random.default_rng(1).normal(size=(images, C, H, W)).astype(np.float32)
    return session.run(None, {"image": image, "images": np.array([images])})


def assert_same(model: ModelProto, folder: Path) -> ModelProto:
    made = rewritten(model, folder)
    for images in (1, 3):
        for found, expected in zip(run(made, images, in_order=True), run(model, images), strict=True):
            assert found.dtype == expected.dtype
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    return made


@blocks_are_kept
def test_blocks_are_those_of_this_cpu():
    assert block_size() in (8, 16)


def step(builder: Builder, x: str, kind: str) -> str:
    """Something that a reverse pass or an attention gate does with a map ``[N, C, H, W]``; the same shape again."""
    add, constant = builder.add, builder.constant
    if kind in ("Relu", "Sigmoid", "Abs", "Tanh"):
        return add(kind, [x])
    if kind == "mask":
        positive = add("Greater", [x, constant(np.float32(0))])
        return add("Mul", [builder.convolution(x), add("Cast", [positive], to=TensorProto.FLOAT)])
    if kind == "classes":  # [K * N, ...] to [K, N, ...] and back, with what is there once for all classes
        sizes = constant([1, -1, C, H, W])
        split = add("Reshape", [builder.convolution(x), sizes])
        return add("Reshape", [add("Mul", [split, x]), constant([-1, C, H, W])])
    if kind == "flat":  # sizes of 0 are those of the input
        rows = add("Slice", [x, *(constant([v]) for v in (0, H, 2))])
        flat = add("Relu", [add("Reshape", [rows, constant([0, 0, H * W])])])
        return add("Reshape", [flat, constant([0, 0, H, W])])
    if kind == "skip":
        return add("Relu", [add("Add", [builder.convolution(x), x])])
    if kind == "plain":  # something that ONNX Runtime has no blocked kernel for, nor we
        return add("Add", [add("Erf", [x]), builder.convolution(x)])
    if kind == "window":
        padded = add("Pad", [x, constant([0, 0, 1, 2, 0, 0, 0, 1])])
        ends = [constant(v) for v in ([1, 2], [1 + H, 2 + W], [2, -1], [1, 1])]
        return add("Slice", [padded, *ends])
    if kind == "phases":
        odd, even = (add("Slice", [x, *(constant([v]) for v in (first, W, 3, 2))]) for first in (1, 0))
        shifted = add("Pad", [odd, constant([0, 0, 0, 1, 0, 0, 0, -1]), constant(np.float32(0.3))])
        return add("Concat", [add("Max", [shifted, even]), add("Max", [even, odd])], axis=3)
    if kind == "everywhere":
        mean = add("ReduceMean", [x, constant([2, 3])], keepdims=1)
        return add("Tanh", [add("Expand", [mean, constant([1, C, H, W])])])
    if kind == "interleave":
        halves = [add("Unsqueeze", [y, constant([4])]) for y in (x, add("Relu", [x]))]
        woven = add("Reshape", [add("Concat", halves, axis=-1), constant([-1, C, H, 2 * W])])
        return add("Slice", [woven, constant([0]), constant([W]), constant([3]), constant([1])])
    if kind == "joined channels":
        both = add("Concat", [x, builder.convolution(x)], axis=1)
        return builder.convolution(both, channels=2 * C)
    axis = {"channel": 1, "height": 2, "width": 3}[kind.split()[-1]]
    if kind.startswith("winner"):
        best = add("ArgMax", [x], axis=axis, keepdims=0)
        ranks = np.arange((C, H, W)[axis - 1]).reshape([-1 if d == axis else 1 for d in range(4)])
        equal = add("Equal", [add("Unsqueeze", [best, constant([axis])]), constant(ranks)])
        return add("Mul", [x, add("Cast", [equal], to=TensorProto.FLOAT)])
    if kind.startswith("select"):
        best = add("ArgMax", [x], axis=axis)
        found = add("GatherElements", [x, best], axis=axis - 4)
        return add("ScatterElements", [builder.convolution(x), best, add("Tanh", [found])], axis=axis)
    gates = [add(f"Reduce{kind.split()[0]}", [x, constant([axis])], keepdims=k) for k in (0, 1)]
    gate = add("Add", [add("Unsqueeze", [gates[0], constant([axis])]), gates[1]])
    return add("Mul", [x, add("Sigmoid", [add("Mul", [gate, constant(np.float32(0.1))])])])


KINDS = [
    "Relu",
    "Sigmoid",
    "Abs",
    "Tanh",
    "mask",
    "classes",
    "skip",
    "plain",
    "window",
    "phases",
    "everywhere",
    "interleave",
    "joined channels",
    "flat",
]
KINDS += [
    f"{what} {axis}" for what in ("winner", "select", "Max", "Mean", "Sum") for axis in ("channel", "height", "width")
]


@settings(deadline=None, max_examples=60)
@given(kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=6), keep=st.sets(st.integers(0, 6), max_size=2))
def test_any_graph_computes_what_it_did(kinds, keep, tmp_path_factory):
    builder = Builder()
    tensors = [builder.convolution("image")]
    for kind in kinds:
        tensors.append(step(builder, tensors[-1], kind))
    outputs = {builder.convolution(tensors[-1])} | {tensors[i] for i in keep if i < len(tensors)}
    assert_same(builder.model(sorted(outputs)), tmp_path_factory.mktemp("graph"))


@pytest.mark.parametrize("kind", KINDS)
def test_each_step(kind, tmp_path):
    builder = Builder()
    x = step(builder, builder.convolution("image"), kind)
    assert_same(builder.model([builder.convolution(x)]), tmp_path)


@blocks_are_kept
def test_nothing_is_reordered_between_a_convolution_and_the_next(tmp_path):
    builder = Builder()
    x = builder.convolution("image")
    for kind in (
        "mask",
        "classes",
        "skip",
        "window",
        "phases",
        "interleave",
        "Max height",
        "Mean width",
        "winner height",
        "select width",
    ):
        x = step(builder, x, kind)
    made = assert_same(builder.model([builder.convolution(x)]), tmp_path)
    count = Counter(node.op_type for node in made.graph.node)
    assert (count["ReorderInput"], count["ReorderOutput"]) == (1, 1)


@blocks_are_kept
def test_a_convolution_adds_and_clips_on_its_way(tmp_path):
    builder = Builder()
    sizes = builder.add("Concat", ["images", builder.constant([C, H, W])], axis=0)
    x = builder.add("Reshape", [builder.convolution("image"), sizes])
    end = builder.convolution(step(builder, x, "skip"))
    made = assert_same(builder.model([end, sizes]), tmp_path)  # an output, that ONNX Runtime may not simplify it
    assert {node.op_type for node in made.graph.node} <= {"Concat", "Conv", "Reshape", "ReorderInput", "ReorderOutput"}


@blocks_are_kept
def test_masks_maxima_and_phases_are_computed_by_our_own_operators(tmp_path):
    builder = Builder()
    x = step(builder, builder.convolution("image"), "mask")
    for kind in ("winner channel", "winner height", "winner width", "select width", "phases"):
        x = step(builder, x, kind)
    made = assert_same(builder.model([builder.convolution(x)]), tmp_path)
    ours = Counter(node.op_type for node in made.graph.node if node.domain == "crosseai")
    selected = {"ArgMax": 3, "GatherElements": 1, "ScatterElements": 1}
    assert ours == {"Greater": 1, "Mask": 4, "Slice": 2, "Pad": 1, "Concat": 1} | selected
    assert {"Cast", "Mul", "Slice"}.isdisjoint(node.op_type for node in made.graph.node if not node.domain)


def masked_between_reshapes(builder: Builder, x: str, rows: str) -> str:
    """``[N, C, H, W]`` masked by a map of all images as ``[K, N, C, H, W]``, K being 1; then of so many rows again."""
    mask = builder.add("Greater", [builder.convolution("image"), builder.constant(np.float32(0))])
    classes = builder.add("Div", ["images", "images"])
    split_sizes = builder.add("Concat", [classes, builder.constant([-1, C, H, W])], axis=0)
    split = builder.add("Reshape", [builder.convolution(x), split_sizes])
    masked = builder.add("Mul", [split, builder.add("Cast", [mask], to=TensorProto.FLOAT)])
    sizes = builder.add("Concat", [rows, builder.constant([C, H, W])], axis=0)
    return builder.convolution(builder.add("Reshape", [masked, sizes]))


def masks_in_place(model: ModelProto) -> list[bool]:
    """Of each mask, whether ONNX Runtime is told that what it masks is of its result's shape."""
    shapes = {value.name: str(value.type) for value in model.graph.value_info}
    masks = [node for node in model.graph.node if node.op_type == "Mask"]
    return [shapes.get(node.input[0]) == shapes.get(node.output[0]) is not None for node in masks]


@blocks_are_kept
def test_a_mask_works_in_place_where_it_repeats_nothing(tmp_path):
    builder = Builder()
    sizes = builder.add("Concat", ["images", builder.constant([C, H, W])], axis=0)
    x = builder.add("Reshape", [builder.convolution("image"), sizes])
    made = assert_same(builder.model([masked_between_reshapes(builder, x, "images")]), tmp_path)
    assert masks_in_place(made) == [True]


@blocks_are_kept
def test_a_mask_that_repeats_one_image_for_all_does_not_work_in_place(tmp_path):
    builder = Builder()
    one = builder.add("Div", ["images", "images"])
    sizes = builder.add("Concat", [one, builder.constant([C, H, W])], axis=0)
    first = builder.add("Slice", ["image", *(builder.constant([v]) for v in (0, 1, 0))])
    first = builder.add("Reshape", [builder.convolution(first), sizes])
    made = assert_same(builder.model([masked_between_reshapes(builder, first, "images")]), tmp_path)
    assert masks_in_place(made) == [False]


@blocks_are_kept
def test_a_mask_of_rows_that_repeats_one_image_for_all_does_not_work_in_place(tmp_path):
    """Of ``[K, N, C, H * W]`` the first axis alone is no shape."""
    builder = Builder()
    one = builder.add("Div", ["images", "images"])
    rows = builder.constant([C, H * W])
    first = builder.add("Slice", ["image", *(builder.constant([v]) for v in (0, 1, 0))])
    x, mask = (
        builder.add("Reshape", [builder.convolution(source), builder.add("Concat", [one, count, rows], axis=0)])
        for source, count in ((first, one), ("image", "images"))
    )
    positive = builder.add("Cast", [builder.add("Greater", [mask, builder.constant(np.float32(0))])], to=1)
    masked = builder.add("Reshape", [builder.add("Mul", [x, positive]), builder.constant([-1, C, H, W])])
    made = assert_same(builder.model([builder.convolution(masked)]), tmp_path)
    assert masks_in_place(made) == [False]


def test_what_is_broadcast_over_images_is_not_added_inside_a_convolution(tmp_path):
    """Its kernel wants an addend of the result's own shape."""
    builder = Builder()
    first = builder.add("Slice", ["image", *(builder.constant([v]) for v in (0, 1, 0))])
    one = builder.convolution(first)  # [1, C, H, W]
    total = builder.add("Add", [builder.convolution("image"), one])
    assert_same(builder.model([builder.convolution(builder.add("Relu", [total]))]), tmp_path)


def test_a_number_computed_from_the_image_is_not_taken_for_a_map(tmp_path):
    builder = Builder()
    greatest = builder.add("ReduceMax", ["image"], keepdims=0)
    total = builder.add("Add", [builder.convolution("image"), greatest])
    assert_same(builder.model([builder.convolution(total)]), tmp_path)


def test_graphs_with_branches_and_without_convolutions_are_left_alone(tmp_path):
    builder = Builder()
    model = builder.model([builder.add("Relu", ["image"])])
    made = rewritten(model, tmp_path)
    assert [node.op_type for node in made.graph.node] == ["Relu"]
    builder = Builder()
    x = builder.add("Relu", [builder.convolution("image")])
    bodies = []
    for operator in ("Neg", "Abs"):
        end = helper.make_tensor_value_info(f"end_{operator}", TensorProto.FLOAT, ["N", C, H, W])
        bodies.append(helper.make_graph([helper.make_node(operator, [x], [end.name])], operator, [], [end]))
    condition = builder.add("Greater", [builder.add("ReduceMax", [x], keepdims=0), builder.constant(np.float32(0))])
    chosen = builder.add("If", [condition], then_branch=bodies[0], else_branch=bodies[1])
    assert_same(builder.model([chosen]), tmp_path)


def weights(builder: Builder, *shape: int) -> str:
    return builder.constant(builder.rng.normal(size=shape).astype(np.float32) / 8)


def channels_on_the_third_axis(b: Builder, x: str) -> list[str]:
    x = b.convolution(b.add("Concat", ["image"] * 16, axis=0))
    y = b.add("Relu", [b.add("Reshape", [x, b.constant([-1, 16, C, H * W])])])
    return [b.add("Conv", [y, weights(b, 16, 16, 3, 3)], pads=[1, 1, 1, 1])]


def channels_last(b: Builder, x: str) -> list[str]:
    column = b.add("Slice", ["image", *(b.constant(v) for v in ([0, 0], [1, 1], [2, 3]))])  # [N, C, 1, 1]
    broadcast = b.add("Mul", [column, weights(b, 1, 1, 5, C)])
    return [b.convolution(b.add("Transpose", [broadcast], perm=[0, 3, 1, 2]))]


def constant_that_is_transposed(b: Builder, x: str) -> list[str]:
    square = b.convolution(b.add("Pad", ["image", b.constant([0] * 6 + [C - H, C - W])]))  # height and width are C
    t = b.add("Transpose", [b.add("Abs", [square])], perm=[0, 2, 3, 1])
    t = b.add("Transpose", [b.add("Mul", [t, weights(b, 1, C, 1, 1)])], perm=[0, 3, 1, 2])
    return [b.convolution(t), t]


def mean_of_whole_numbers(b: Builder, x: str) -> list[str]:
    whole = b.add("Cast", [b.add("Mul", [x, b.constant(np.float32(10))])], to=TensorProto.INT32)
    return [b.add("ReduceMean", [whole, b.constant([1])], keepdims=1)]


def comparison_of_a_comparison(b: Builder, x: str) -> list[str]:
    not_positive = b.add("Equal", [b.add("Greater", [x, b.constant(np.float32(0))]), b.constant(np.array(False))])
    return [b.convolution(b.add("Mul", [x, b.add("Cast", [not_positive], to=TensorProto.FLOAT)]))]


def masks_of_other_shapes(b: Builder, x: str) -> list[str]:
    ends = []
    for axes in ([0], [1], [2, 3], [1, 2, 3]):
        first = b.add("Slice", [x, *(b.constant(v) for v in ([0] * len(axes), [1] * len(axes), axes))])
        positive = b.add("Cast", [b.add("Greater", [first, b.constant(np.float32(0))])], to=TensorProto.FLOAT)
        ends += [
            b.convolution(b.add("Mul", [positive, x])),
            b.add("Mul", [b.add("Unsqueeze", [x, b.constant([0])]), positive]),
        ]
    return [*ends, b.add("Mul", [first, b.add("Cast", [b.add("Greater", [x, first])], to=TensorProto.FLOAT)])]


def maxima_of_other_kinds(b: Builder, x: str) -> list[str]:
    rows = b.add("Reshape", [x, b.constant([-1, W])])
    last = b.add("ArgMax", [x], axis=2, keepdims=0, select_last_index=1)
    whole = b.add("Cast", [x], to=TensorProto.INT32)
    return [b.add("ArgMax", [rows], axis=-1, keepdims=0), last, b.add("ArgMax", [whole], axis=3, keepdims=0)]


def output_that_is_a_constant(b: Builder, x: str) -> list[str]:
    return [b.add("Relu", [x]), b.add("Identity", [b.constant(np.float32([1, 2]))])]


def sizes_that_are_left_open(b: Builder, x: str) -> list[str]:
    rest = b.add("Slice", [b.add("Shape", ["image"]), b.constant([1]), b.constant([4])])
    sizes = b.add("Concat", [b.constant([-1]), rest], axis=0)
    first = b.add("Slice", ["image", *(b.constant([v]) for v in (0, 1, 0))])
    p, q = (b.convolution(b.add("Reshape", [b.convolution(v), sizes])) for v in ("image", first))
    return [b.convolution(b.add("Sigmoid", [b.add("Add", [p, b.add("Abs", [q])])]))]


def slice_by_int32(b: Builder, x: str) -> list[str]:
    return [b.convolution(b.add("Slice", [x, *(b.constant(np.array([v], np.int32)) for v in (0, 5, -2))]))]


def slice_backwards(b: Builder, x: str) -> list[str]:
    return [b.convolution(b.add("Slice", [x, *(b.constant([v]) for v in (-1, -H - 1, 2, -2))]))]


def no_axes(b: Builder, x: str) -> list[str]:
    none = b.constant(np.array([], np.int64))
    whole = b.convolution(b.add("Slice", [x, none, none, none, none]))
    return [b.add("Mul", [x, b.add("ReduceSum", [x, none])]), b.add("Unsqueeze", [b.add("Abs", [x]), none]), whole]


def number_with_axes_of_its_own(b: Builder, x: str) -> list[str]:
    padded = b.add("Pad", [x, b.constant([0, 0, 1, 1, 0, 0, 1, 1])])
    return [b.add("Mul", [padded, b.constant(np.full((1, 1, 1, 1, 1), 2, np.float32))])]


def scatter_that_multiplies(b: Builder, x: str) -> list[str]:
    best = b.add("ArgMax", [x], axis=2)
    return [
        b.convolution(
            b.add("ScatterElements", [x, best, b.add("Cast", [best], to=TensorProto.FLOAT)], axis=2, reduction="mul")
        ),
        x,
    ]


def several_places(b: Builder, x: str) -> list[str]:
    best = b.add("ArgMax", [x], axis=3)
    places = b.add("Concat", [best, b.add("Sub", [b.constant([W - 1]), best])], axis=3)
    found = b.add("GatherElements", [x, places], axis=3)
    narrow = b.add("Slice", [best, *(b.constant([v]) for v in (1, 3, 2))])
    return [found, b.add("ScatterElements", [x, narrow, b.add("Cast", [narrow], to=TensorProto.FLOAT)], axis=3)]


def places_from_the_end(b: Builder, x: str) -> list[str]:
    places = b.add("Sub", [b.add("ArgMax", [x], axis=2), b.constant([H])])
    changed = b.add("ScatterElements", [x, places, b.add("ReduceMin", [x, b.constant([2])])], axis=2)
    return [b.convolution(changed), b.add("GatherElements", [x, places], axis=2)]


def places_of_unknown_shape(b: Builder, x: str) -> list[str]:
    best = b.add("ArgMax", [b.add("Transpose", [x], perm=[0, 2, 3, 1])], axis=1)
    return [b.add("GatherElements", [x, b.add("Transpose", [best], perm=[0, 3, 1, 2])], axis=2)]


def places_in_int32(b: Builder, x: str) -> list[str]:
    best = b.add("Cast", [b.add("ArgMax", [x], axis=1)], to=TensorProto.INT32)
    return [b.convolution(b.add("ScatterElements", [x, best, b.add("GatherElements", [x, best], axis=1)], axis=1))]


def gather_from_booleans(b: Builder, x: str) -> list[str]:
    positive, best = b.add("Greater", [x, b.constant(np.float32(0))]), b.add("ArgMax", [x], axis=2)
    return [b.add("GatherElements", [positive, best], axis=2)]


def places_of_fewer_images(b: Builder, x: str) -> list[str]:
    first = b.add("Slice", [x, *(b.constant([v]) for v in (0, 1, 0))])
    best = b.add("ArgMax", [first], axis=2)
    changed = b.add("ScatterElements", [x, best, b.add("ReduceMin", [first, b.constant([2])])], axis=2)
    return [b.convolution(changed), b.add("GatherElements", [changed, best], axis=2)]


@pytest.mark.parametrize(
    "graph",
    [
        channels_on_the_third_axis,
        channels_last,
        constant_that_is_transposed,
        mean_of_whole_numbers,
        comparison_of_a_comparison,
        masks_of_other_shapes,
        maxima_of_other_kinds,
        output_that_is_a_constant,
        sizes_that_are_left_open,
        slice_by_int32,
        slice_backwards,
        no_axes,
        number_with_axes_of_its_own,
        scatter_that_multiplies,
        several_places,
        places_from_the_end,
        places_of_unknown_shape,
        places_in_int32,
        gather_from_booleans,
        places_of_fewer_images,
    ],
)
def test_graphs_of_other_kinds(graph, tmp_path):
    builder = Builder()
    assert_same(builder.model(graph(builder, builder.convolution("image"))), tmp_path)
