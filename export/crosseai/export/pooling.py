"""Input gradients of pooling, written with slices, compares and sums.

The usual lowering of max pooling's gradient scatters through indices, which TensorRT's parser refuses (``MaxPool``
with two outputs, ``ScatterElements`` with a reduction). Here what a tap of all windows sees is one phase of the input,
shifted, and there its gradient lands (see :mod:`crosseai.export.phases`).

A window of pixels is pooled along its rows, and what results along the column: of a 3 x 3 window that is 6 taps in
place of 9.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from crosseai.export.phases import Pair, interleave, taps_of_phase


def first_maxima(x: Tensor, dim: int, out: int, kernel: int, stride: int, padding: int) -> tuple[Tensor, list[Tensor]]:
    """Max pooling along one dimension: the maxima, and where each tap of a window holds its first maximum.

    The taps are compared with each other, in turn, rather than with the pooled value: that would share the gradient
    among ties, and fails where a runtime keeps one of the two at a higher precision than the other. An arg-max over
    all taps does the same in twice the time: it wants them stacked.

    Parameters
    ----------
    x
        ``[N, C, H, W]``.
    dim
        2 or 3.
    out
        Windows along that dimension.

    Returns
    -------
    tuple
        ``[N, C, H', W']`` of ``out`` windows, and for every tap the same in booleans; exactly one of them is true for
        every window.
    """
    phases = [x[:, :, phase::stride] if dim == 2 else x[..., phase::stride] for phase in range(stride)]
    offsets = range(-padding, kernel - padding)  # of the taps from the stride's multiples
    windows = [_window(phases[o % stride], dim, o // stride, out, outside=-torch.inf) for o in offsets]
    best, exceeds = windows[0], []
    for window in windows[1:]:
        exceeds.append(window > best)
        best = torch.maximum(best, window)
    won: list[Tensor] = []
    later: Tensor | None = None
    for greater in reversed(exceeds):  # the last that exceeds all before it
        won.append(greater if later is None else greater & ~later)
        later = greater if later is None else greater | later
    won.append(torch.ones_like(best, dtype=torch.bool) if later is None else ~later)
    return best, won[::-1]


def spread(taps: Sequence[Tensor], dim: int, size: int, stride: int, padding: int) -> Tensor:
    """Add up what every tap of windows along one dimension sends to their input.

    Parameters
    ----------
    taps
        For each tap, the gradient ``[B, C, H', W']`` that each window sends through it.
    dim
        2 or 3.
    size
        Of the input along that dimension.

    Returns
    -------
    Tensor
        ``[B, C, H, W]``.
    """
    phases: list[Tensor | None] = []
    for phase in range(stride):
        reaching = taps_of_phase(phase, len(taps), stride, padding)
        parts = [_window(taps[tap], dim, shift, -(-size // stride), outside=0) for tap, shift in reaching]
        phases.append(sum(parts[1:], parts[0]) if parts else None)
    if dim == 2:
        return interleave(phases, (stride, 1), (size, taps[0].shape[3]))
    return interleave(phases, (1, stride), (taps[0].shape[2], size))


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


def _window(x: Tensor, dim: int, shift: int, size: int, *, outside: float) -> Tensor:
    """``y[..., i, ...] = x[..., i + shift, ...]`` of the given size along a dimension."""
    before, after = -shift, size + shift - x.shape[dim]
    margins = (0, 0, before, after) if dim == 2 else (before, after)
    return F.pad(x, margins, value=outside) if before or after else x
