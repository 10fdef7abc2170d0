"""The input gradient of a convolution, written with forward operators.

A convolution of stride 1 is undone by a convolution with the flipped, transposed kernel: the fastest operator that
every runtime has, and the kernel is a constant that runtimes fold when they load the graph. A stride leaves gaps
between the pixels of the gradient: that is what ``ConvTranspose`` computes.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def input_gradient(
    gradient: Tensor,
    weight: Tensor,
    size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """Gradient of ``conv2d(x, weight, None, stride, padding, dilation, groups)`` with respect to ``x``.

    Parameters
    ----------
    gradient
        ``[B, C_out, H', W']``, with respect to the convolution's output.
    weight
        ``[C_out, C_in / groups, kh, kw]``.
    size
        ``(H, W)`` of ``x``.
    stride, padding, dilation
        Two values each, vertical first.
    groups
        As of the convolution.

    Returns
    -------
    Tensor
        ``[B, C_in, H, W]``.
    """
    reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    border = [r - p for r, p in zip(reach, padding, strict=True)]
    if tuple(stride) == (1, 1) and min(border) >= 0:
        return F.conv2d(gradient, reversed_kernel(weight, groups), None, 1, border, tuple(dilation), groups)
    output_padding = [
        full - ((out - 1) * s - 2 * p + r + 1)
        for full, out, s, p, r in zip(size, gradient.shape[2:], stride, padding, reach, strict=True)
    ]
    return F.conv_transpose2d(
        gradient, weight, None, tuple(stride), tuple(padding), output_padding, groups, tuple(dilation)
    )


def reversed_kernel(weight: Tensor, groups: int) -> Tensor:
    """The kernel of the reverse direction: flipped in space, inputs and outputs exchanged within each group."""
    if groups > 1:
        c_out, c_in, *kernel = weight.shape
        exchanged = weight.reshape(groups, c_out // groups, c_in, *kernel).transpose(1, 2)
        exchanged = exchanged.reshape(groups * c_in, c_out // groups, *kernel)
    else:
        exchanged = weight.transpose(0, 1)
    return exchanged if weight.shape[2:] == (1, 1) else exchanged.flip(2, 3)
