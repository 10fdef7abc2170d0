"""Activations. Only the ReLU has other rules than the true gradient: they are defined for it alone."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from crosseai.export.reverse import Call, Gradients, rule

aten = torch.ops.aten


@rule(aten.relu.default)
def relu(call: Call, gradient: Tensor) -> Gradients:
    """One above zero. Guided Backpropagation (Springenberg et al., ICLR 2015 workshop, section 3.4) also drops negative
    gradients, deconvolution (Zeiler & Fergus, ECCV 2014, section 2.1) does that alone.
    """
    if call.method != "plain":
        gradient = F.relu(gradient)
    if call.method == "deconvnet":
        return {"self": gradient}
    positive = (call.output > 0).to(gradient.dtype)  # a product is faster than a choice in most runtimes
    return {"self": call.per_class(torch.mul, gradient, positive)}


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


@rule(aten.gelu.default)
def gelu(call: Call, gradient: Tensor) -> Gradients:
    """``Phi(x) + x phi(x)`` with the normal distribution ``Phi``, or its approximation by ``tanh``."""
    x = call["self"]
    if call["approximate"] == "tanh":
        scale = math.sqrt(2 / math.pi)
        t = torch.tanh(scale * (x + 0.044715 * x**3))
        slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * scale * (1 + 3 * 0.044715 * x * x)
    else:
        slope = 0.5 * (1 + torch.erf(x * math.sqrt(0.5))) + x * torch.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    return {"self": call.per_class(torch.mul, gradient, slope)}


@rule(aten.hardtanh.default)
def hardtanh(call: Call, gradient: Tensor) -> Gradients:
    """One strictly between the bounds (``ReLU6`` is ``hardtanh(x, 0, 6)``); never guided."""
    inside = _between(call["self"], call["min_val"], call["max_val"], gradient.dtype)
    return {"self": call.per_class(torch.mul, gradient, inside)}


@rule(aten.hardsigmoid.default)
def hardsigmoid(call: Call, gradient: Tensor) -> Gradients:
    """``1 / 6`` strictly between -3 and 3."""
    inside = _between(call["self"], -3, 3, gradient.dtype)
    return {"self": call.per_class(torch.mul, gradient, inside * (1 / 6))}


@rule(aten.hardswish.default)
def hardswish(call: Call, gradient: Tensor) -> Gradients:
    """``x / 3 + 1 / 2`` strictly between -3 and 3, then one."""
    x = call["self"]
    slope = torch.where(x >= 3, 1.0, (x * (1 / 3) + 0.5) * _between(x, -3, 3, x.dtype))
    return {"self": call.per_class(torch.mul, gradient, slope)}


@rule(aten.leaky_relu.default)
def leaky_relu(call: Call, gradient: Tensor) -> Gradients:
    """One above zero, else the negative slope; never guided."""
    slope = torch.where(call["self"] > 0, 1.0, call["negative_slope"])
    return {"self": call.per_class(torch.mul, gradient, slope.to(gradient.dtype))}


def _between(x: Tensor, low: float, high: float, dtype: torch.dtype) -> Tensor:
    return ((x > low) & (x < high)).to(dtype)
