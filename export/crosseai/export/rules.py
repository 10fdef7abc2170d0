"""The reverse rule of each ATen operator that a CNN classifier is made of.

A rule gets the forward call and the gradient of its output ``[K * N, ...]``, and returns the gradient of each wanted
argument, built from forward operators only. That of ``y = sigmoid(x)``, with ``dy/dx = y (1 - y)``, reads::

    @rule(aten.sigmoid.default)
    def sigmoid(call: Call, gradient: Tensor) -> Gradients:
        return {"self": call.per_class(torch.mul, gradient, call.output * (1 - call.output))}

The names are those of the operator's schema (``torch.ops.aten.sigmoid.default._schema``). A gradient may be of size 1
along a dimension where it is constant. For a model of your own, register a rule from your own module before the
export; ``tests/unit/export/test_rules.py`` compares every rule with autograd.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from crosseai.contract import InputError
from crosseai.export import convolution, pooling
from crosseai.export.reverse import Call, Gradients, rule

aten = torch.ops.aten


@rule(aten.relu.default)
def relu(call: Call, gradient: Tensor) -> Gradients:
    """The guided rule of Springenberg et al. (ICLR 2015 workshop, section 3.4) also drops negative gradients."""
    positive = (call.output > 0).to(gradient.dtype)  # a product is faster than a choice in most runtimes
    return {"self": call.per_class(torch.mul, F.relu(gradient) if call.guided else gradient, positive)}


@rule(aten.sigmoid.default)
def sigmoid(call: Call, gradient: Tensor) -> Gradients:
    """``y (1 - y)``."""
    return {"self": call.per_class(torch.mul, gradient, call.output * (1 - call.output))}


@rule(aten.tanh.default)
def tanh(call: Call, gradient: Tensor) -> Gradients:
    """``1 - y^2``."""
    return {"self": call.per_class(torch.mul, gradient, 1 - call.output * call.output)}


@rule(aten.silu.default)
def silu(call: Call, gradient: Tensor) -> Gradients:
    """``s + y (1 - s)`` with ``s = sigmoid(x)``."""
    s = torch.sigmoid(call["self"])
    return {"self": call.per_class(torch.mul, gradient, s + call.output * (1 - s))}


@rule(aten.hardtanh.default)
def hardtanh(call: Call, gradient: Tensor) -> Gradients:
    """One strictly between the bounds (``ReLU6`` is ``hardtanh(x, 0, 6)``); not guided."""
    inside = (call["self"] > call["min_val"]) & (call["self"] < call["max_val"])
    return {"self": call.per_class(torch.mul, gradient, inside)}


@rule(aten.add.Tensor)
def add(call: Call, gradient: Tensor) -> Gradients:
    """One for ``self``, ``alpha`` for ``other``."""
    scaled = {"self": gradient, "other": gradient if call["alpha"] == 1 else gradient * call["alpha"]}
    return {name: call.reduced(name, scaled[name]) for name in call.wanted}


@rule(aten.sub.Tensor)
def sub(call: Call, gradient: Tensor) -> Gradients:
    """One for ``self``, ``-alpha`` for ``other``."""
    scaled = {"self": gradient, "other": gradient * -call["alpha"]}
    return {name: call.reduced(name, scaled[name]) for name in call.wanted}


@rule(aten.mul.Tensor)
def mul(call: Call, gradient: Tensor) -> Gradients:
    """Each factor's gradient is the other factor."""
    factors = {"self": call["other"], "other": call["self"]}
    return {name: call.reduced(name, _times(call, gradient, factors[name])) for name in call.wanted}


@rule(aten.div.Tensor)
def div(call: Call, gradient: Tensor) -> Gradients:
    """``1 / other`` for ``self``, ``-output / other`` for ``other``."""
    reciprocal = 1 / call["other"]
    factors = {"self": reciprocal, "other": -call.output * reciprocal}
    return {name: call.reduced(name, _times(call, gradient, factors[name])) for name in call.wanted}


def _times(call: Call, gradient: Tensor, factor: Tensor | float) -> Tensor:
    return call.per_class(torch.mul, gradient, factor) if isinstance(factor, Tensor) else gradient * factor


@rule(aten.conv2d.default)
def conv2d(call: Call, gradient: Tensor) -> Gradients:
    """See :mod:`crosseai.export.convolution`."""
    geometry = (call["stride"], call["padding"], call["dilation"])
    stride, padding, dilation = (_pair(values) for values in geometry)
    height, width = call["input"].shape[2:]
    return {
        "input": convolution.input_gradient(
            gradient, call["weight"], (height, width), stride, padding, dilation, call["groups"]
        )
    }


@rule(aten.linear.default)
def linear(call: Call, gradient: Tensor) -> Gradients:
    """``y = x W^T + b``."""
    return {"input": gradient @ call["weight"]}


@rule(aten.max_pool2d.default)
def max_pool2d(call: Call, gradient: Tensor) -> Gradients:
    """To the first maximum of each window."""
    kernel, padding = _pair(call["kernel_size"]), _pair(call["padding"])
    stride = _pair(call["stride"]) if call["stride"] else kernel
    if _pair(call["dilation"]) != (1, 1):
        raise InputError(f"max_pool2d: expected dilation 1, found {call['dilation']}")
    size, pooled_size = (_pair(t.shape[2:]) for t in (call["self"], gradient))
    winner = pooling.first_maximum(call["self"], pooled_size, kernel, stride, padding)

    def routed(tap: pooling.Tap) -> Tensor:
        return call.per_class(torch.mul, gradient, winner[tap].to(gradient.dtype))

    return {"self": pooling.spread(routed, size, kernel, stride, padding)}


@rule(aten.avg_pool2d.default)
def avg_pool2d(call: Call, gradient: Tensor) -> Gradients:
    """In equal shares to each window."""
    kernel, padding = _pair(call["kernel_size"]), _pair(call["padding"])
    stride = _pair(call["stride"]) if call["stride"] else kernel
    if call["ceil_mode"] or (any(padding) and not call["count_include_pad"]):
        raise InputError("avg_pool2d: expected ceil_mode=False and count_include_pad=True: all windows count alike")
    share = gradient * (1 / (call["divisor_override"] or math.prod(kernel)))
    return {"self": pooling.spread(lambda _: share, call["self"].shape[2:], kernel, stride, padding)}


@rule(aten.adaptive_avg_pool2d.default)
def adaptive_avg_pool2d(call: Call, gradient: Tensor) -> Gradients:
    """In equal shares to each window; the windows must tile the input."""
    (height, width), (rows, columns) = call["self"].shape[2:], gradient.shape[2:]
    if height % rows or width % columns:
        raise InputError(
            f"adaptive_avg_pool2d: expected windows that tile {height} x {width}, found {rows} x {columns}"
        )
    window = (height // rows, width // columns)
    share = gradient * (1 / math.prod(window))
    if (rows, columns) == (1, 1):
        return {"self": share}
    return {"self": pooling.spread(lambda _: share, (height, width), window, window, (0, 0))}


@rule(aten.mean.dim)
def mean(call: Call, gradient: Tensor) -> Gradients:
    """In equal shares along the reduced dimensions."""
    dims = _dims(call, call["dim"])
    share = gradient * (1 / math.prod(call["self"].shape[dim] for dim in dims))
    return {"self": _kept(call, share, dims)}


@rule(aten.sum.dim_IntList)
def sum_(call: Call, gradient: Tensor) -> Gradients:
    """One along the reduced dimensions."""
    return {"self": _kept(call, gradient, _dims(call, call["dim"]))}


@rule(aten.max.dim)
def max_(call: Call, gradient: Tensor) -> Gradients:
    """To the first maximum: ``torch.max`` breaks ties so."""
    (dim,) = _dims(call, [call["dim"]])
    indices = _kept(call, call.output[1], [dim])
    ranks = torch.arange(call["self"].shape[dim], device=indices.device)
    winner = ranks.reshape([-1 if d == dim else 1 for d in range(indices.ndim)]) == indices
    return {"self": call.per_class(torch.mul, _kept(call, gradient, [dim]), winner)}


@rule(aten.amax.default)
def amax(call: Call, gradient: Tensor) -> Gradients:
    """In equal shares to all maxima: ``torch.amax`` shares among ties.

    To the first in a narrow type: a runtime may keep one side of the comparison in a wider one, and none is equal.
    """
    dims = _dims(call, call["dim"])
    if call["self"].dtype in (torch.float16, torch.bfloat16):
        winner = _first_maximum(call["self"], dims)
    else:
        winner = (call["self"] == _kept(call, call.output, dims)).to(gradient.dtype)
        winner = winner / winner.sum(dims, keepdim=True)
    return {"self": call.per_class(torch.mul, _kept(call, gradient, dims), winner)}


def _first_maximum(x: Tensor, dims: list[int]) -> Tensor:
    """Where the first maximum over some dimensions stands; boolean, of the shape of ``x``."""
    last = list(range(-len(dims), 0))
    moved = x.movedim(dims, last)
    flat = moved.flatten(-len(dims))
    winner = torch.arange(flat.shape[-1], device=x.device) == flat.argmax(-1, keepdim=True)
    return winner.reshape(moved.shape).movedim(last, dims)


def _dims(call: Call, dims: list[int] | None) -> list[int]:
    """Reduced dimensions, counted from the front; none given means all but the batch."""
    rank = call["self"].ndim
    return sorted(dim % rank for dim in dims) if dims else list(range(rank))


def _kept(call: Call, reduced: Tensor, dims: list[int]) -> Tensor:
    """Give a reduced tensor its reduced dimensions back, of size 1."""
    if call["keepdim"]:
        return reduced
    for dim in dims:
        reduced = reduced.unsqueeze(dim)
    return reduced


@rule(
    aten.flatten.using_ints,
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
)
def reshape(call: Call, gradient: Tensor) -> Gradients:
    """Back to the input's shape."""
    return {"self": gradient.reshape(-1, *call["self"].shape[1:])}


@rule(aten.permute.default)
def permute(call: Call, gradient: Tensor) -> Gradients:
    """The inverse permutation."""
    dims = [dim % gradient.ndim for dim in call["dims"]]
    return {"self": gradient.permute([dims.index(dim) for dim in range(len(dims))])}


@rule(aten.transpose.int)
def transpose(call: Call, gradient: Tensor) -> Gradients:
    """Its own inverse."""
    return {"self": gradient.transpose(call["dim0"], call["dim1"])}


@rule(aten.cat.default)
def cat(call: Call, gradient: Tensor) -> Gradients:
    """To each part its slice."""
    dim = call["dim"]
    return {"tensors": torch.split(gradient, [tensor.shape[dim] for tensor in call["tensors"]], dim)}


@rule(aten.stack.default)
def stack(call: Call, gradient: Tensor) -> Gradients:
    """To each part its slice."""
    return {"tensors": gradient.unbind(call["dim"])}


@rule(aten.constant_pad_nd.default)
def constant_pad_nd(call: Call, gradient: Tensor) -> Gradients:
    """Crop what was padded, pad what was cropped."""
    return {"self": F.pad(gradient, [-margin for margin in call["pad"]])}


@rule(aten._to_copy.default)
def to_copy(call: Call, gradient: Tensor) -> Gradients:
    """Back to the input's type."""
    return {"self": gradient.to(call["self"].dtype)}


@rule(aten.clone.default, aten.contiguous.default, aten.alias.default)
def identity(_: Call, gradient: Tensor) -> Gradients:
    """Nothing changes."""
    return {"self": gradient}


def _pair(values: int | Sequence[int]) -> tuple[int, int]:
    """ATen takes one value for both directions."""
    vertical, horizontal = (values, values) if isinstance(values, int) else (values[0], values[-1])
    return vertical, horizontal
