"""Operators that move numbers and change none."""

import torch
import torch.nn.functional as F
from torch import Tensor

from crosseai.contract import InputError
from crosseai.export.reverse import Call, Gradients, rule

aten = torch.ops.aten


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


@rule(aten.slice.Tensor)
def slice_(call: Call, gradient: Tensor) -> Gradients:
    """Zeros around the slice."""
    dim, full = call["dim"] % gradient.ndim, call["self"].shape[call["dim"]]
    if call["step"] != 1:
        raise InputError(f"slice: expected step 1, found {call['step']}")
    start, stop, _ = slice(call["start"], call["end"]).indices(full)
    margins = [0, 0] * (gradient.ndim - 1 - dim) + [start, full - stop]
    return {"self": F.pad(gradient, margins)}


@rule(aten.expand.default)
def expand(call: Call, gradient: Tensor) -> Gradients:
    """The sum over what was repeated."""
    if call["self"].ndim != gradient.ndim:
        raise InputError(f"expand: expected {gradient.ndim} dimensions before as after, found {call['self'].ndim}")
    return {"self": call.reduced("self", gradient)}


@rule(aten.constant_pad_nd.default)
def constant_pad_nd(call: Call, gradient: Tensor) -> Gradients:
    """Crop what was padded, pad what was cropped."""
    return {"self": F.pad(gradient, [-margin for margin in call["pad"]])}


@rule(aten.clone.default, aten.contiguous.default, aten.alias.default)
def identity(_: Call, gradient: Tensor) -> Gradients:
    """Nothing changes."""
    return {"self": gradient}


@rule(aten._to_copy.default)
def to_copy(call: Call, gradient: Tensor) -> Gradients:
    """Back to the input's type."""
    return {"self": gradient.to(call["self"].dtype)}
