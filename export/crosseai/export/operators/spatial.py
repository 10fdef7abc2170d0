"""Convolution and pooling."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from crosseai.contract import InputError
from crosseai.export import convolution, pooling
from crosseai.export.reverse import Call, Gradients, rule

aten = torch.ops.aten


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


@rule(aten.conv1d.default)
def conv1d(call: Call, gradient: Tensor) -> Gradients:
    """As a convolution of one row."""
    (stride,), (padding,), (dilation,) = call["stride"], call["padding"], call["dilation"]
    size, weight = (1, call["input"].shape[2]), call["weight"].unsqueeze(2)
    row = convolution.input_gradient(
        gradient.unsqueeze(2), weight, size, (1, stride), (0, padding), (1, dilation), call["groups"]
    )
    return {"input": row.squeeze(2)}


@rule(aten.max_pool2d.default)
def max_pool2d(call: Call, gradient: Tensor) -> Gradients:
    """To the first maximum of each window."""
    kernel, padding = _pair(call["kernel_size"]), _pair(call["padding"])
    stride = _pair(call["stride"]) if call["stride"] else kernel
    if _pair(call["dilation"]) != (1, 1):
        raise InputError(f"max_pool2d: expected dilation 1, found {call['dilation']}")
    pooled, won = call["self"], {}
    for dim in (3, 2):  # the first maximum by rows is in the first row that has one
        axis = gradient.shape[dim], kernel[dim - 2], stride[dim - 2], padding[dim - 2]
        pooled, won[dim] = pooling.first_maxima(pooled, dim, *axis)
    for dim in (2, 3):
        taps = [call.per_class(torch.mul, gradient, tap.to(gradient.dtype)) for tap in won[dim]]
        gradient = pooling.spread(taps, dim, call["self"].shape[dim], stride[dim - 2], padding[dim - 2])
    return {"self": gradient}


@rule(aten.avg_pool2d.default)
def avg_pool2d(call: Call, gradient: Tensor) -> Gradients:
    """In equal shares to each window."""
    kernel, padding = _pair(call["kernel_size"]), _pair(call["padding"])
    stride = _pair(call["stride"]) if call["stride"] else kernel
    size, pooled_size = (_pair(t.shape[2:]) for t in (call["self"], gradient))
    if call["divisor_override"]:
        shares: Tensor | float = 1 / call["divisor_override"]
    else:
        shares = pooling.shares(size, pooled_size, kernel, stride, padding, include_padding=call["count_include_pad"])
        shares = shares.to(gradient)
    gradient = gradient * shares
    for dim in (2, 3):
        taps = [gradient] * kernel[dim - 2]
        gradient = pooling.spread(taps, dim, size[dim - 2], stride[dim - 2], padding[dim - 2])
    return {"self": gradient}


@rule(aten.adaptive_avg_pool2d.default)
def adaptive_avg_pool2d(call: Call, gradient: Tensor) -> Gradients:
    """In equal shares to each window: the product with one matrix an axis, from both sides."""
    size, pooled_size = (_pair(t.shape[2:]) for t in (call["self"], gradient))
    if pooled_size == (1, 1):
        return {"self": gradient * (1 / math.prod(size))}
    rows, columns = (pooling.averaging(*axis).to(gradient) for axis in zip(size, pooled_size, strict=True))
    return {"self": rows.t() @ gradient @ columns}


def _pair(values: int | Sequence[int]) -> tuple[int, int]:
    """ATen takes one value for both directions."""
    vertical, horizontal = (values, values) if isinstance(values, int) else (values[0], values[-1])
    return vertical, horizontal
