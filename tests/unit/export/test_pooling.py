"""Max pooling's gradient, with ties, and average pooling's, for any geometry, against autograd."""

import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from crosseai.export.pooling import first_maximum, spread

pairs = st.tuples


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
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-1, 2, (2, 3, *size), generator=generator).double().requires_grad_(True)  # full of ties
    y = F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil_mode)
    gradient = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    winner = first_maximum(x.detach(), y.shape[2:], kernel, stride, padding)
    assert torch.equal(torch.stack(list(winner.values())).sum(0), torch.ones(y.shape, dtype=torch.int64))
    found = spread(lambda tap: gradient * winner[tap], size, kernel, stride, padding)
    (expected,) = torch.autograd.grad(y, x, gradient)
    torch.testing.assert_close(found, expected)


@settings(deadline=None)
@given(
    kernel=pairs(st.integers(1, 4), st.integers(1, 4)),
    stride=pairs(st.integers(1, 5), st.integers(1, 3)),
    padding=pairs(st.integers(0, 2), st.integers(0, 2)),
    size=pairs(st.integers(4, 9), st.integers(4, 9)),
)
def test_equal_shares_are_average_pooling(kernel, stride, padding, size):
    assume(all(2 * p <= k for p, k in zip(padding, kernel, strict=True)))
    x = torch.zeros(1, 2, *size, dtype=torch.float64, requires_grad=True)
    y = F.avg_pool2d(x, kernel, stride, padding)
    gradient = torch.arange(1.0, y.numel() + 1, dtype=torch.float64).reshape(y.shape)
    (expected,) = torch.autograd.grad(y, x, gradient)
    share = gradient / (kernel[0] * kernel[1])
    torch.testing.assert_close(spread(lambda _: share, size, kernel, stride, padding), expected)
