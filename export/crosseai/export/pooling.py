"""Input gradients of pooling, written with slices, compares and sums.

The usual lowering of max pooling's gradient scatters through indices, which TensorRT's parser refuses (``MaxPool``
with two outputs, ``ScatterElements`` with a reduction). Here every tap of the window is a strided slice of the input,
so the gradient of tap ``t`` lands on the input positions ``stride * q + phase`` of one phase, and the phases are
interleaved at the end.
"""

from collections.abc import Callable, Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

Tap = tuple[int, int]
"""Row and column of a pixel within the pooling window."""


def first_maximum(x: Tensor, size: Sequence[int], kernel: Tap, stride: Tap, padding: Tap) -> dict[Tap, Tensor]:
    """Where each tap of a max-pooling window holds the window's first maximum, as ``max_pool2d`` picks it.

    By arg-max over the taps rather than by comparing with the pooled value: that would share the gradient among
    ties, and fails where a runtime keeps one of the two at a higher precision than the other.

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
    winner = torch.stack(windows, dim=2).argmax(dim=2)
    return {tap: winner == index for index, tap in enumerate(taps)}


def spread(
    contribution: Callable[[Tap], Tensor], size: Sequence[int], kernel: Tap, stride: Tap, padding: Tap
) -> Tensor:
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
            for ty, sy in _taps_of_phase(row_phase, kernel[0], stride[0], padding[0])
            for tx, sx in _taps_of_phase(column_phase, kernel[1], stride[1], padding[1])
        ]
        phases.append(sum(parts[1:], parts[0]) if parts else None)
    zero = torch.zeros_like(next(phase for phase in phases if phase is not None))
    filled = [zero if phase is None else phase for phase in phases]
    return _interleave(filled, stride)[..., : size[0], : size[1]]


def _taps_of_phase(phase: int, kernel: int, stride: int, padding: int) -> list[tuple[int, int]]:
    """Taps ``t`` whose windows ``o`` reach input ``stride * q + phase``, each with its shift ``o - q``.

    Window ``o`` covers input ``stride * o - padding + t``.
    """
    reaching = (t for t in range(kernel) if (phase + padding - t) % stride == 0)
    return [(t, (phase + padding - t) // stride) for t in reaching]


def _window(x: Tensor, shift: Tap, size: Tap) -> Tensor:
    """``y[..., i, j] = x[..., i + shift_y, j + shift_x]`` of the given size, zero outside ``x``."""
    (dy, dx), (rows, columns) = shift, size
    margins = (-dx, columns + dx - x.shape[-1], -dy, rows + dy - x.shape[-2])
    return F.pad(x, margins) if any(margins) else x


def _interleave(phases: Sequence[Tensor], stride: Tap) -> Tensor:
    """Phase ``(r, c)`` (row-major) becomes rows ``r::stride_y`` and columns ``c::stride_x``."""
    if stride == (1, 1):
        return phases[0]
    batch, channels, rows, columns = phases[0].shape
    tiled = torch.stack(list(phases), dim=2).reshape(batch, channels, *stride, rows, columns)
    return tiled.permute(0, 1, 4, 2, 5, 3).reshape(batch, channels, rows * stride[0], columns * stride[1])
