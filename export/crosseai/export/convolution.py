"""The input gradient of a convolution, written with forward operators.

A convolution of stride 1 is undone by a convolution with the flipped, transposed kernel: the fastest operator that
every runtime has, and the kernel is a constant that runtimes fold when they load the graph. A stride leaves gaps
between the pixels of the gradient: each phase of the input is a convolution of its own. Only to an image of few
channels ``ConvTranspose`` is faster, which computes all phases at once.
"""

from itertools import product

import torch.nn.functional as F
from torch import Tensor

from crosseai.export.phases import Pair, interleave, taps_of_phase

PHASES_FROM = 16
"""Channels of the input from which on ONNX Runtime on a CPU is faster with a convolution a phase."""


def input_gradient(
    gradient: Tensor, weight: Tensor, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
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
        Vertical first.
    groups
        As of the convolution.

    Returns
    -------
    Tensor
        ``[B, C_in, H, W]``.
    """
    reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    border = [r - p for r, p in zip(reach, padding, strict=True)]
    if stride == (1, 1) and min(border) >= 0:
        return F.conv2d(gradient, reversed_kernel(weight, groups), None, 1, border, dilation, groups)
    if dilation == (1, 1) and weight.shape[1] * groups >= PHASES_FROM:
        return _by_phases(gradient, weight, size, stride, padding, groups)
    output_padding = [
        full - ((out - 1) * s - 2 * p + r + 1)
        for full, out, s, p, r in zip(size, gradient.shape[2:], stride, padding, reach, strict=True)
    ]
    return F.conv_transpose2d(gradient, weight, None, stride, padding, output_padding, groups, dilation)


def _by_phases(gradient: Tensor, weight: Tensor, size: Pair, stride: Pair, padding: Pair, groups: int) -> Tensor:
    """Each phase sees only its own taps, which lie a stride apart: nothing is multiplied by zero."""
    axes = [
        [_taps_and_margins(phase, *axis) for phase in range(axis[2])]
        for axis in zip(size, weight.shape[2:], stride, padding, gradient.shape[2:], strict=True)
    ]
    phases: list[Tensor | None] = []
    for rows, columns in product(*axes):
        if rows is None or columns is None:
            phases.append(None)
            continue
        (row_taps, row_margins), (column_taps, column_margins) = rows, columns
        margins = (*column_margins, *row_margins)
        framed = F.pad(gradient, margins) if any(margins) else gradient
        phases.append(F.conv2d(framed, reversed_kernel(weight[:, :, row_taps, column_taps], groups), groups=groups))
    return interleave(phases, stride, size)


def _taps_and_margins(
    phase: int, full: int, kernel: int, stride: int, padding: int, out: int
) -> tuple[slice, Pair] | None:
    """The taps of a phase, and the zeros before and after the gradient (``out`` long) that its windows need."""
    taps = taps_of_phase(phase, kernel, stride, padding)
    if not taps:
        return None
    (first, farthest), (_, nearest) = taps[0], taps[-1]
    return slice(first, None, stride), (-nearest, farthest + -(-full // stride) - out)


def reversed_kernel(weight: Tensor, groups: int) -> Tensor:
    """The kernel of the reverse direction: flipped in space, inputs and outputs exchanged within each group."""
    if groups > 1:
        c_out, c_in, *kernel = weight.shape
        exchanged = weight.reshape(groups, c_out // groups, c_in, *kernel).transpose(1, 2)
        exchanged = exchanged.reshape(groups * c_in, c_out // groups, *kernel)
    else:
        exchanged = weight.transpose(0, 1)
    return exchanged if weight.shape[2:] == (1, 1) else exchanged.flip(2, 3)
