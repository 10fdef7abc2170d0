"""Input gradients of pooling, written with slices, compares and sums.

The usual lowering of max pooling's gradient scatters through indices, which TensorRT's parser refuses (``MaxPool``
with two outputs, ``ScatterElements`` with a reduction). Here every tap of the window is a strided slice of the input,
so the gradient of a tap lands on the input positions of one phase (see :mod:`crosseai.export.phases`).
"""

from collections.abc import Callable
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from crosseai.export.phases import Pair, interleave, taps_of_phase

Tap = Pair
"""Row and column of a pixel within the pooling window."""


def first_maximum(x: Tensor, size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> dict[Tap, Tensor]:
    """Where each tap of a max-pooling window holds the window's first maximum, as ``max_pool2d`` picks it.

    The taps are compared with each other, in turn, rather than with the pooled value: that would share the gradient
    among ties, and fails where a runtime keeps one of the two at a higher precision than the other. An arg-max over
    all taps does the same in twice the time: it wants them stacked.

    Parameters
    ----------
    x
        ``[N, C, H, W]``, the input of the pooling.
    size
        ``(H', W')`` of its output.

    Returns
    -------
    dict
        Boolean ``[N, C, H', W']`` for every tap; exactly one of them is true for every window.
    """
    spans = [(out - 1) * s + k for out, s, k in zip(size, stride, kernel, strict=True)]
    after = [max(0, span - full - p) for span, full, p in zip(spans, x.shape[2:], padding, strict=True)]
    padded = F.pad(x, (padding[1], after[1], padding[0], after[0]), value=-torch.inf)
    taps = list(product(range(kernel[0]), range(kernel[1])))
    windows = [
        padded[..., ty : ty + spans[0] - kernel[0] + 1 : stride[0], tx : tx + spans[1] - kernel[1] + 1 : stride[1]]
        for ty, tx in taps
    ]
    best, exceeds = windows[0], {}
    for tap, window in zip(taps[1:], windows[1:], strict=True):
        exceeds[tap] = window > best
        best = torch.maximum(best, window)
    won, later = {}, None
    for tap in reversed(exceeds):  # the last that exceeds all before it
        won[tap] = exceeds[tap] if later is None else exceeds[tap] & ~later
        later = exceeds[tap] if later is None else exceeds[tap] | later
    won[taps[0]] = torch.ones_like(best, dtype=torch.bool) if later is None else ~later
    return won


def spread(contribution: Callable[[Tap], Tensor], size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Tensor:
    """Add up what every tap of the pooling windows sends to the input.

    Parameters
    ----------
    contribution
        For a tap, the gradient ``[B, C, H', W']`` that each window sends through it.
    size
        ``(H, W)`` of the pooling's input.

    Returns
    -------
    Tensor
        ``[B, C, H, W]``.
    """
    rows, columns = (-(-full // s) for full, s in zip(size, stride, strict=True))
    phases: list[Tensor | None] = []
    for row_phase, column_phase in product(range(stride[0]), range(stride[1])):
        parts = [
            _window(contribution((ty, tx)), (sy, sx), (rows, columns))
            for ty, sy in taps_of_phase(row_phase, kernel[0], stride[0], padding[0])
            for tx, sx in taps_of_phase(column_phase, kernel[1], stride[1], padding[1])
        ]
        phases.append(sum(parts[1:], parts[0]) if parts else None)
    return interleave(phases, stride, size)


def shares(
    size: Pair, pooled_size: Pair, kernel: Pair, stride: Pair, padding: Pair, *, include_padding: bool
) -> Tensor:
    """What each pixel of an average-pooling window counts, ``[H', W']``; windows that overhang may hold fewer."""
    axes = []
    for full, out, k, s, p in zip(size, pooled_size, kernel, stride, padding, strict=True):
        first, last = (-p, full + p) if include_padding else (0, full)
        starts = (o * s - p for o in range(out))
        axes.append(
            torch.tensor([1 / (min(start + k, last) - max(start, first)) for start in starts], dtype=torch.float64)
        )
    return axes[0][:, None] * axes[1]


def averaging(full: int, out: int) -> Tensor:
    """The matrix ``[out, full]`` of adaptive average pooling along one axis."""
    matrix = torch.zeros(out, full, dtype=torch.float64)
    for o in range(out):
        start, stop = o * full // out, -(-(o + 1) * full // out)
        matrix[o, start:stop] = 1 / (stop - start)
    return matrix


def _window(x: Tensor, shift: Pair, size: Pair) -> Tensor:
    """``y[..., i, j] = x[..., i + shift_y, j + shift_x]`` of the given size, zero outside ``x``."""
    (dy, dx), (rows, columns) = shift, size
    margins = (-dx, columns + dx - x.shape[-1], -dy, rows + dy - x.shape[-2])
    return F.pad(x, margins) if any(margins) else x
