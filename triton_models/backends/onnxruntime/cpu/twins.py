"""Blocked twins: for each tensor of a graph the same tensor in blocked layout, where its node can work on that."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from . import kernels
from .schedule import DOMAIN, is_blocked

ELEMENTWISE = frozenset(
    {"Abs", "Add", "And", "Cast", "Clip", "Div", "Equal", "Greater", "Less", "Mask", "Max", "Min", "Mul", "Not"}
    | {"Or", "Relu", "Sigmoid", "Sub", "Tanh", "Where"}
)

Shape = tuple[int | str, ...]
"""Sizes; a name for one that is not known."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """A tensor in blocked layout.

    Parameters
    ----------
    name
        Its name in the graph.
    shape
        That of the plain tensor.
    channel
        Axis of the channels in ``shape``.
    memory
        Whether it is declared as it lies in memory, ``[..., C / b, ..., b]``. If not, it is declared with the plain
        shape: so does ONNX Runtime.
    """

    name: str
    shape: Shape
    channel: int
    memory: bool = False

    @property
    def tail(self) -> Shape:
        """Sizes from the channels on."""
        return self.shape[self.channel :]


class Rewriter:
    """Goes through a sorted graph: a tensor gets a blocked twin where it can have one, and is itself made on demand."""

    def __init__(self, graph: GraphProto, shapes: dict[str, Shape], types: dict[str, int], block: int) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.sizes: dict[str, Shape] = {}
        """Declared sizes of blocked tensors, with names for unknown ones. Equal entries are of equal shape."""
        self._types, self._block = types, block
        self._initializers = {constant.name: constant for constant in graph.initializer}
        # a constant that ONNX Runtime has transposed keeps its name
        self._shapes = shapes | {constant.name: tuple(constant.dims) for constant in graph.initializer}
        self._producers = {name: node for node in graph.node for name in node.output}
        self._masked: dict[str, Blocked] = {}
        """What masks are applied to, by what they make of it: where both are of one rank, and declared plainly."""
        self._appended: dict[str, NodeProto] = {}
        """Nodes by what they make, as `_producers` has those of the graph that is rewritten."""
        self._twins: dict[str, Blocked] = {}
        self._not_made: set[str] = set()
        self._batches: dict[str, str] = {}
        self._redeclarations: dict[str, Blocked] = {}
        self._renamed: dict[str, str] = {}
        self._rules = {
            "ArgMax": self._arg_max,
            "Concat": self._concat,
            "Pad": self._pad,
            "ReduceMax": self._reduce,
            "ReduceMean": self._reduce,
            "ReduceSum": self._reduce,
            "Reshape": self._reshape,
            "Slice": self._slice,
            "Unsqueeze": self._unsqueeze,
        }

    def add(self, node: NodeProto) -> None:
        """Append a node or its blocked twin."""
        source = self._twins.get(node.input[0]) if is_blocked(node, "ReorderInput") else None
        if source is not None and source.channel == 1 and not _attribute(node, "channels_last"):
            self._renamed[node.output[0]] = self._declared(source).name
            return
        own = kernels.own(node, self._producers, self._types, self._shapes)
        twin = self._twin(own)
        if twin is None and own is not node:
            twin = self._twin(node)
        if twin:
            self._twins[node.output[0]] = twin
            self._not_made.add(node.output[0])
        elif not (self._reduce_channels(node) or self._select(node)):
            self._append(own, [self._plain(name) for name in own.input], own.output)

    def require(self, name: str) -> None:
        """Make a tensor in plain layout."""
        if name not in self._not_made:
            return
        self._not_made.remove(name)
        twin, producer = self._twins[name], self._producers[name]
        rank = len(twin.shape) if twin.channel == 1 and self._types[name] == TensorProto.FLOAT else 0
        if rank != 4 and producer.op_type == "Reshape":  # perhaps of a tensor that can be reordered
            self._append(producer, [self._plain(each) for each in producer.input], [name])
            return
        if rank in (3, 4):
            self._reorder(name, twin)
            return
        source, rank = self._declared(twin, memory=True), len(twin.shape)
        order = [*range(twin.channel + 1), rank, *range(twin.channel + 1, rank)]
        turned = self._emit(helper.make_node("Transpose", [""], [name], perm=order), [source.name], source)
        shape = self._constant([0] * twin.channel + [int(size) for size in twin.tail])
        self._append(helper.make_node("Reshape", ["", ""], [name]), [turned.name, shape], [name])

    def _reorder(self, name: str, twin: Blocked) -> None:
        """Make a plain ``[N, C, H, W]`` or ``[N, C, W]`` by ONNX Runtime's own operator, which knows the former."""
        source, channels = self._declared(twin).name, int(twin.tail[0])
        reorder = helper.make_node("ReorderOutput", [""], [name], domain=DOMAIN, channels=channels)
        if len(twin.shape) == 4:
            self._append(reorder, [source], [name])
            return
        reshape = helper.make_node("Reshape", ["", ""], [name])
        column = self._made(reshape, [source, self._constant([0, channels, int(twin.tail[1]), 1])])
        self._append(reshape, [self._made(reorder, [column]), self._constant([0, 0, int(twin.tail[1])])], [name])

    def _plain(self, name: str) -> str:
        self.require(name)
        return self._renamed.get(name, name)

    def _append(self, node: NodeProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        copy = NodeProto.FromString(node.SerializeToString())
        copy.name, copy.input[:], copy.output[:] = outputs[0], inputs, outputs
        self.nodes.append(copy)
        self._appended.update(dict.fromkeys(outputs, copy))
        if node.domain == DOMAIN and inputs[0] in self._batches:
            self._batches[outputs[0]] = self._batches[inputs[0]]
        elif node.op_type == "Reshape" and self._producers.get(inputs[1], node).op_type == "Concat":
            first = self._producers[inputs[1]].input[0]  # of the sizes that make up the shape
            if first not in self._initializers:  # a constant may be -1: whatever is left
                self._batches[outputs[0]] = first

    def _emit(self, node: NodeProto, inputs: Sequence[str], like: Blocked) -> Blocked:
        """Append a node that makes a blocked tensor; ``like`` is that tensor, but for its name."""
        return self._sized(replace(like, name=self._made(node, inputs)))

    def _made(self, node: NodeProto, inputs: Sequence[str]) -> str:
        """Append a node; a new name for what it makes."""
        name = f"{node.output[0]}/blocked/{len(self.nodes)}"
        self._append(node, inputs, [name])
        return name

    def _sized(self, twin: Blocked) -> Blocked:
        if twin.name in self._batches and (len(twin.shape), twin.channel) == (4, 1) and not twin.memory:
            self.sizes[twin.name] = (self._batches[twin.name], *twin.tail)
        return twin

    def _constant(self, values: npt.ArrayLike, dtype: npt.DTypeLike = np.int64) -> str:
        name = f"blocked/constant/{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(values, dtype=dtype), name))
        return name

    def _values(self, node: NodeProto, place: int) -> list[int] | None:
        """Values of a constant input."""
        name = node.input[place] if len(node.input) > place else ""
        return numpy_helper.to_array(self._initializers[name]).ravel().tolist() if name in self._initializers else None

    def _declared(self, twin: Blocked, *, memory: bool = False) -> Blocked:
        """With its plain shape, or as in memory: the other axes in the same places, that of a block as one more."""
        if twin.memory == memory:
            return twin
        if twin.name not in self._redeclarations:
            shape = [0] * len(twin.shape)  # 0: as it is
            channels = int(twin.tail[0])
            shape[twin.channel] = channels // self._block if memory else channels
            shape += [self._block] if memory else []
            node = helper.make_node("Reshape", ["", ""], [twin.name])
            made = self._emit(node, [twin.name, self._constant(shape)], replace(twin, memory=memory))
            self._redeclarations[twin.name] = self._counted(made, [twin])
        return self._redeclarations[twin.name]

    def _counted(self, made: Blocked, sources: Sequence[Blocked]) -> Blocked:
        """Note that the first axis counts what that of all sources does, if it is one thing."""
        batches = {self._batches.get(source.name, "") for source in sources}
        if len(batches) == 1 and "" not in batches:
            self._batches[made.name] = batches.pop()
        return self._sized(made)

    def _twin(self, node: NodeProto) -> Blocked | None:
        """The blocked tensor that stands for what a node makes, if the node can be applied to blocked tensors."""
        shape = self._shapes.get(node.output[0])
        if shape is None:
            return None
        if is_blocked(node, "ReorderOutput"):
            whole = len(shape) == 4 and _product(shape[1:]) is not None and int(shape[1]) % self._block == 0
            plain = whole and not _attribute(node, "channels_last")
            return self._sized(Blocked(node.input[0], shape, 1)) if plain else None
        if node.domain not in ("", kernels.DOMAIN) or not node.input:
            return None
        if node.op_type in ELEMENTWISE:
            lengths = [len(self._twins[name].tail) for name in node.input if name in self._twins]
            if not lengths and self._grows(node, shape):
                lengths = [3]
            return self._elementwise(node, shape, lengths[0]) if lengths else None
        if node.op_type == "Expand":
            return self._expand(node, shape)
        rule = self._rules.get(node.op_type)
        made = rule(node, shape) if rule and node.input[0] in self._twins else None
        return None if made is None or _product(made.tail) is None else made

    def _elementwise(self, node: NodeProto, shape: Shape, length: int) -> Blocked | None:
        """Apply to blocked tensors whose channels and what follows are the last ``length`` axes."""
        tail = shape[-length:]
        operands = [self._operand(name, tail) for name in node.input]
        if None in operands:
            return None
        twins = [each for each in operands if isinstance(each, Blocked)]
        if len(shape) > max(len(twin.shape) for twin in twins):
            return None  # a single number can add axes
        memory = any(twin.tail != tail for twin in twins) or all(twin.memory for twin in twins)
        formed = [self._declared(each, memory=memory) if isinstance(each, Blocked) else each for each in operands]
        names = [each.name if isinstance(each, Blocked) else str(each) for each in formed]
        made = self._emit(node, names, Blocked("", shape, len(shape) - length, memory))
        first = formed[0]
        if node.op_type == "Mask" and isinstance(first, Blocked) and len(first.shape) == len(shape) and not memory:
            self._masked[made.name] = first
        return self._counted(made, [each for each in formed if isinstance(each, Blocked)])

    def _operand(self, name: str, tail: Shape) -> Blocked | str | None:
        """A tensor in blocked layout, to be combined with others of some tail; a single number as it is."""
        twin, shape = self._twins.get(name), self._shapes.get(name)
        if not name or (shape is not None and all(size == 1 for size in shape)):
            return self._plain(name)
        if shape is None:
            return None
        own = shape[-len(tail) :]
        fits = len(own) == len(tail) and all(size in (1, full) for size, full in zip(own, tail, strict=True))
        if not fits or _product(tail) is None or (twin is not None and len(twin.tail) != len(tail)):
            return None
        if twin is None and own == tail:
            twin = self._large(name, shape, len(tail))
        elif twin is None:
            twin = self._small(name, shape, len(shape) - len(tail))
        if twin is not None and own[-1] == 1 != tail[-1]:
            # as the last axis but that of a block, what is repeated here would be very short
            source = self._declared(twin, memory=True)
            repeats = self._constant([1] * (len(shape) - 1) + [int(tail[-1]), 1])
            expand = helper.make_node("Expand", ["", ""], [name])
            twin = self._emit(expand, [source.name, repeats], replace(source, shape=(*shape[:-1], tail[-1])))
        return twin

    def _expand(self, node: NodeProto, shape: Shape) -> Blocked | None:
        """Make a map ``[..., C, H, W]`` of what is the same everywhere, ``[..., C, 1, 1]``."""
        small = (*shape[:-2], 1, 1)
        if not self._grows(node, shape) or self._shapes.get(node.input[0]) != small:
            return None
        twin = self._declared(self._small(node.input[0], small, len(shape) - 3), memory=True)
        repeats = self._constant([1] * (len(shape) - 2) + [*map(int, shape[-2:]), 1])
        return self._emit(node, [twin.name, repeats], replace(twin, shape=shape))

    def _grows(self, node: NodeProto, shape: Shape) -> bool:
        """Whether a node makes a map of channels ``[..., C, H, W]`` out of smaller tensors."""
        sizes = shape[-3:]
        if len(shape) < 4 or _product(sizes) is None or int(sizes[0]) % self._block or 1 in sizes:
            return False
        return all(self._shapes.get(name, sizes)[-3:] != sizes for name in node.input if name)

    def _large(self, name: str, shape: Shape, length: int) -> Blocked | None:
        """Convert a map."""
        if len(shape) != 4 or length != 3 or self._types.get(name) != TensorProto.FLOAT:
            return None
        self._twins[name] = self._reordered(name, shape)
        return self._twins[name]

    def _reordered(self, name: str, shape: Shape) -> Blocked:
        """Convert ``[N, C, H, W]``."""
        node = helper.make_node("ReorderInput", [""], [name], domain=DOMAIN)
        return self._emit(node, [self._plain(name)], Blocked("", shape, 1))

    def _small(self, name: str, shape: Shape, channel: int) -> Blocked:
        """Bring a tensor that will be broadcast into blocked layout; one that all channels share, once for a block."""
        rank, source = len(shape), self._plain(name)
        like = Blocked("", shape, channel, memory=True)
        reshape = helper.make_node("Reshape", ["", ""], [name])
        if shape[channel] == 1:
            one = self._emit(reshape, [source, self._constant([0] * rank + [1])], like)
            expand = helper.make_node("Expand", ["", ""], [name])
            return self._emit(expand, [one.name, self._constant([1] * rank + [self._block])], like)
        if (rank, channel, self._types.get(name)) == (4, 1, TensorProto.FLOAT):
            return self._reordered(name, shape)
        blocks = [int(shape[channel]) // self._block, self._block]
        cut = [0] * channel + blocks + [int(size) for size in shape[channel + 1 :]]
        apart = self._emit(reshape, [source, self._constant(cut)], like)
        order = [*range(channel + 1), *range(channel + 2, rank + 1), channel + 1]
        return self._emit(helper.make_node("Transpose", [""], [name], perm=order), [apart.name], like)

    def _reduce(self, node: NodeProto, shape: Shape) -> Blocked | None:
        twin, axes = self._twins[node.input[0]], self._values(node, 1)
        if axes is None or len(axes) != 1 or axes[0] % len(twin.shape) <= twin.channel:
            return None
        source, own = self._declared(twin, memory=True), self._constant([axes[0] % len(twin.shape)])
        return self._emit(node, [source.name, own], replace(source, shape=shape))

    def _reduce_channels(self, node: NodeProto) -> bool:
        """Append, if that is what a node does, a reduction over the channels: of the blocks, then within one."""
        if node.domain or self._rules.get(node.op_type) != self._reduce or node.input[0] not in self._twins:
            return False
        if self._types.get(node.input[0]) != TensorProto.FLOAT:
            return False  # the mean of whole means is another
        twin, axes = self._twins[node.input[0]], self._values(node, 1) or ()
        if [axis % len(twin.shape) for axis in axes] != [twin.channel]:
            return False
        source = self._declared(twin, memory=True)
        blocks = self._emit(node, [source.name, self._constant([twin.channel])], source)
        within = helper.make_node(node.op_type, ["", ""], [""], keepdims=0)
        self._append(within, [blocks.name, self._constant([-1])], node.output)
        return True

    def _select(self, node: NodeProto) -> bool:
        """Append, if that is what a node does, gathering from a map, or scattering to it, along one axis."""
        if node.domain or node.op_type not in ("GatherElements", "ScatterElements"):
            return False
        twin, types = self._twins.get(node.input[0]), [self._types.get(name) for name in node.input[:2]]
        reduction = any(each.name == "reduction" and each.s != b"none" for each in node.attribute)
        if twin is None or (len(twin.shape), twin.channel) != (4, 1) or reduction:
            return False
        axis = _attribute(node, "axis") % 4
        one_each = [*self._shapes.get(node.input[1], ())[1:]] == [1 if i == axis else twin.shape[i] for i in (1, 2, 3)]
        if types != [TensorProto.FLOAT, TensorProto.INT64] or axis == 0 or not one_each:
            return False
        source, others = self._declared(twin, memory=True), [self._plain(name) for name in node.input[1:]]
        own = helper.make_node(node.op_type, node.input, node.output, domain=kernels.DOMAIN, axis=axis)
        if node.op_type == "GatherElements":
            self._append(own, [source.name, *others], node.output)
            return True
        made = self._emit(own, [source.name, *others], source)
        self.sizes[source.name] = self.sizes[made.name] = (source.name, *self._memory(twin))
        self._twins[node.output[0]] = self._counted(made, [twin])
        self._not_made.add(node.output[0])
        return True

    def _memory(self, twin: Blocked) -> Shape:
        """Sizes of a map in memory, but for the first."""
        return (int(twin.shape[1]) // self._block, *twin.shape[2:], self._block)

    def _reshape(self, node: NodeProto, shape: Shape) -> Blocked | None:
        """Where channels stay whole, so does the memory before and after them; not worth it for a row or column."""
        twin = self._twins[node.input[0]]
        if 1 in twin.tail:
            return None
        for channel in range(1, len(shape) - 1):
            after = shape[channel + 1 :]
            if shape[channel] == twin.tail[0] and _product(after) == _product(twin.tail[1:]) is not None:
                source = self._declared(twin)  # a size of 0 means that of the plain tensor
                made = self._emit(node, [source.name, self._plain(node.input[1])], Blocked("", shape, channel))
                self._note_masked(source, made)
                return made
        return None

    def _note_masked(self, masked: Blocked, reshaped: Blocked) -> None:
        """Note that a mask has repeated nothing, if what it masks was as large as what is made of its result.

        A reshape keeps the count of numbers, and a mask that repeats something makes it greater.
        """
        source = self._masked.get(masked.name)
        split = self._appended.get(source.name) if source else None
        if source is None or split is None or split.op_type != "Reshape" or masked.name in self.sizes:
            return
        if self.sizes.get(split.input[0]) == self.sizes.get(reshaped.name) is not None:
            sizes = (size if isinstance(size, int) else f"{masked.name}/{i}" for i, size in enumerate(masked.shape))
            self.sizes[source.name] = self.sizes[masked.name] = tuple(sizes)

    def _unsqueeze(self, node: NodeProto, shape: Shape) -> Blocked | None:
        twin, axes = self._twins[node.input[0]], self._values(node, 1)
        if not axes or min(axes) <= twin.channel:
            return None
        source = self._declared(twin, memory=True)
        return self._emit(node, [source.name, node.input[1]], replace(source, shape=shape))

    def _concat(self, node: NodeProto, shape: Shape) -> Blocked | None:
        twins = [self._twins.get(name) for name in node.input]
        present = [twin for twin in twins if twin is not None]
        axis = _attribute(node, "axis") % len(shape)
        if len(present) < len(twins) or len({twin.channel for twin in present}) > 1:
            return None
        sources = [self._declared(twin, memory=True) for twin in present]
        copy = helper.make_node("Concat", node.input, node.output, domain=node.domain, axis=axis)
        return self._emit(copy, [source.name for source in sources], replace(sources[0], shape=shape))

    def _slice(self, node: NodeProto, shape: Shape) -> Blocked | None:
        twin, axes, steps = self._twins[node.input[0]], self._values(node, 3), self._values(node, 4)
        if axes is None or any(axis % len(shape) == twin.channel for axis in axes):
            return None
        like = helper.tensor_dtype_to_np_dtype(self._initializers[node.input[3]].data_type)
        forward = steps is not None and all(step > 0 for step in steps)
        ours = forward and like == np.int64 and self._types.get(node.input[0]) == TensorProto.FLOAT
        # here and not in `kernels`: without the channels of a block there would be nothing to copy together
        own = helper.make_node("Slice", node.input, node.output, domain=kernels.DOMAIN if ours else "")
        source, along = self._declared(twin, memory=True), self._constant([axis % len(shape) for axis in axes], like)
        return self._emit(own, [source.name, *node.input[1:3], along, *node.input[4:]], replace(source, shape=shape))

    def _pad(self, node: NodeProto, shape: Shape) -> Blocked | None:
        twin, pads, rank = self._twins[node.input[0]], self._values(node, 1), len(shape)
        if len(node.input) > 3 or pads is None or pads[twin.channel] or pads[rank + twin.channel]:
            return None
        source, own = self._declared(twin, memory=True), self._constant([*pads[:rank], 0, *pads[rank:], 0])
        return self._emit(node, [source.name, own, *node.input[2:]], replace(source, shape=shape))

    def _arg_max(self, node: NodeProto, shape: Shape) -> Blocked | None:
        twin = self._twins[node.input[0]]
        if _attribute(node, "axis") <= twin.channel:
            return None
        source = self._declared(twin, memory=True)
        return self._emit(node, [source.name], replace(source, shape=shape))


def _attribute(node: NodeProto, name: str) -> int:
    """An integer attribute; 0 where it is absent."""
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), 0)


def _product(sizes: Shape) -> int | None:
    return None if any(isinstance(size, str) for size in sizes) else math.prod(map(int, sizes))
