"""Input gradients of convolutions of any geometry against PyTorch's own."""

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from crosseai.export.convolution import input_gradient, reversed_kernel

pairs = st.tuples


@settings(deadline=None)  # torch's first call is slow
@given(
    kernel=pairs(st.integers(1, 5), st.integers(1, 5)),
    stride=pairs(st.integers(1, 3), st.integers(1, 3)),
    padding=pairs(st.integers(0, 3), st.integers(0, 3)),
    dilation=pairs(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from([1, 2, 4]),
    size=pairs(st.integers(5, 12), st.integers(5, 12)),
)
def test_equals_pytorch(kernel, stride, padding, dilation, groups, size):
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    assume(all(s + 2 * p >= r for s, p, r in zip(size, padding, reach, strict=True)))
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 4 // groups, *kernel, generator=generator, dtype=torch.float64)
    x = torch.randn(2, 4, *size, generator=generator, dtype=torch.float64)
    y = torch.nn.functional.conv2d(x, weight, None, stride, padding, dilation, groups)
    gradient = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    expected = torch.nn.grad.conv2d_input(x.shape, weight, gradient, stride, padding, dilation, groups)
    found = input_gradient(gradient, weight, size, stride, padding, dilation, groups)
    torch.testing.assert_close(found, expected)


def test_reversing_a_kernel_twice_gives_it_back():
    weight = torch.arange(2 * 6 * 9.0).reshape(6, 2, 3, 3)
    assert torch.equal(reversed_kernel(reversed_kernel(weight, groups=2), groups=2), weight)
