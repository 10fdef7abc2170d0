"""Arithmetic, products, reductions and normalisation by an image's own statistics."""

import math

import torch
from torch import Tensor

from crosseai.export.reverse import Call, Gradients, Selected, rule

aten = torch.ops.aten


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


@rule(aten.linear.default)
def linear(call: Call, gradient: Tensor) -> Gradients:
    """``y = x W^T + b``."""
    return {"input": gradient @ call["weight"]}


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
    return {"self": Selected(dim, *(_kept(call, t, [dim]) for t in (call.output[1], gradient)))}


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


@rule(aten.layer_norm.default)
def layer_norm(call: Call, gradient: Tensor) -> Gradients:
    """Mean and variance are those of the last dimensions."""
    scaled = gradient if call["weight"] is None else gradient * call["weight"]
    dims = tuple(range(-len(call["normalized_shape"]), 0))
    return {"input": _through_normalisation(call, call["input"], scaled, dims)}


@rule(aten.group_norm.default)
def group_norm(call: Call, gradient: Tensor) -> Gradients:
    """Mean and variance are those of a group of channels."""
    x, groups = call["input"], call["num_groups"]
    scaled = gradient if call["weight"] is None else gradient * call["weight"].reshape(-1, *[1] * (x.ndim - 2))
    shape = (-1, groups, math.prod(x.shape[1:]) // groups)
    pulled = _through_normalisation(call, x.reshape(shape), scaled.reshape(shape), (-1,))
    return {"input": pulled.reshape(-1, *x.shape[1:])}


def _through_normalisation(call: Call, x: Tensor, gradient: Tensor, dims: tuple[int, ...]) -> Tensor:
    """``y = (x - mean) / sqrt(var + eps)`` over some dimensions, counted from the back."""
    centred = x - x.mean(dims, keepdim=True)
    reciprocal = torch.rsqrt((centred * centred).mean(dims, keepdim=True) + call["eps"])

    def pulled(g: Tensor, y: Tensor, reciprocal: Tensor) -> Tensor:
        return (g - g.mean(dims, keepdim=True) - y * (g * y).mean(dims, keepdim=True)) * reciprocal

    return call.per_class(pulled, gradient, centred * reciprocal, reciprocal)


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
