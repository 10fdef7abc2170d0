"""Max pooling's gradient, with ties, and average pooling's, for any geometry, against autograd."""

from typing import Any

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

import crosseai.export.rules  # noqa: F401
from crosseai.export.pooling import first_maxima
from crosseai.export.reverse import RULES, Call

aten = torch.ops.aten
pairs = st.tuples


def assert_as_autograd(operator: Any, x: Tensor, **geometry: Any) -> None:
    """Of one class."""
    x.requires_grad_(True)
    y = operator(x, **geometry)
    gradient = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=y.dtype)
    (expected,) = torch.autograd.grad(y, x, gradient)
    defaults = {argument.name: argument.default_value for argument in operator._schema.arguments}
    call = Call(defaults | geometry | {"self": x.detach()}, y.detach(), ("self",), 1, "plain")
    torch.testing.assert_close(RULES[operator](call, gradient)["self"], expected)


@settings(deadline=None)  # torch's first call is slow
@given(
    kernel=pairs(st.integers(1, 4), st.integers(1, 4)),
    stride=pairs(st.integers(1, 3), st.integers(1, 3)),
    padding=pairs(st.integers(0, 2), st.integers(0, 2)),
    size=pairs(st.integers(4, 9), st.integers(4, 9)),
    ceil_mode=st.booleans(),
    seed=st.integers(0, 99),
)
def test_max_pooling_sends_the_gradient_where_pytorch_does(kernel, stride, padding, size, ceil_mode, seed):
    assume(all(2 * p <= k for p, k in zip(padding, kernel, strict=True)))
    x = torch.randint(-1, 2, (2, 3, *size), generator=torch.Generator().manual_seed(seed)).double()  # full of ties
    geometry = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    assert_as_autograd(aten.max_pool2d.default, x, **geometry)


@settings(deadline=None)
@given(
    kernel=pairs(st.integers(1, 4), st.integers(1, 4)),
    stride=pairs(st.integers(1, 5), st.integers(1, 3)),
    padding=pairs(st.integers(0, 2), st.integers(0, 2)),
    size=pairs(st.integers(4, 9), st.integers(4, 9)),
    include=st.booleans(),
)
def test_average_pooling_shares_the_gradient_as_pytorch_does(kernel, stride, padding, size, include):
    assume(all(2 * p <= k for p, k in zip(padding, kernel, strict=True)))
    x = torch.zeros(1, 2, *size, dtype=torch.float64)
    geometry = {"kernel_size": kernel, "stride": stride, "padding": padding, "count_include_pad": include}
    assert_as_autograd(aten.avg_pool2d.default, x, **geometry)


@given(st.integers(1, 4), st.integers(1, 3), st.sampled_from([2, 3]))
def test_each_window_has_one_first_maximum(kernel, stride, dim):
    x = torch.randint(-1, 2, (2, 3, 9, 9), generator=torch.Generator().manual_seed(kernel))
    out = (9 - kernel) // stride + 1
    maxima, won = first_maxima(x.double(), dim, out, kernel, stride, 0)
    windows = x.unfold(dim, kernel, stride)
    assert torch.equal(maxima, windows.amax(-1).double())
    is_maximum = windows == windows.amax(-1, keepdim=True)
    assert torch.equal(torch.stack(won, -1), is_maximum & (is_maximum.cumsum(-1) == 1))
