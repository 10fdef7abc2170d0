"""Strides, undone: a gradient is computed for each phase of the input positions, then the phases are interleaved.

Along one axis, output ``o`` of a window of stride ``s`` and padding ``p`` reads input ``s * o - p + t`` through its tap
``t``. Input position ``s * q + phase`` is thus reached by the taps ``t`` for which ``phase + p - t`` is a multiple of
``s``, each from output ``o = q + (phase + p - t) / s``.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = tuple[int, int]
"""Rows or vertical, then columns or horizontal."""


def taps_of_phase(phase: int, kernel: int, stride: int, padding: int) -> list[tuple[int, int]]:
    """Taps ``t`` whose windows ``o`` reach input ``stride * q + phase``, each with its shift ``o - q``."""
    reaching = (t for t in range(kernel) if (phase + padding - t) % stride == 0)
    return [(t, (phase + padding - t) // stride) for t in reaching]


def interleave(phases: Sequence[Tensor | None], stride: Pair, size: Pair) -> Tensor:
    """Phase ``(r, c)`` (row-major) becomes rows ``r::stride[0]`` and columns ``c::stride[1]``.

    By concatenation: on a CPU a transposition of six axes takes five times as long.

    Parameters
    ----------
    phases
        ``stride[0] * stride[1]`` tensors ``[B, C, ceil(H / stride[0]), ceil(W / stride[1])]``; ``None`` means zeros.
    size
        ``(H, W)`` of the result.
    """
    first, *others = phases
    if others and first is not None and all(phase is None for phase in others):  # zeros need not be made first
        apart = F.pad(first.unsqueeze(3).unsqueeze(5), (0, stride[1] - 1, 0, 0, 0, stride[0] - 1))
        whole: Tensor | None = apart.flatten(4, 5).flatten(2, 3)
    else:
        rows = [_woven(phases[r * stride[1] : (r + 1) * stride[1]], 4, 3) for r in range(stride[0])]
        whole = _woven(rows, 3, 2)
    if whole is None:
        raise ValueError("interleave: expected at least one phase, found none")
    height, width = size
    return whole if whole.shape[2:] == size else whole[..., :height, :width]


def _woven(parts: Sequence[Tensor | None], new_axis: int, axis: int) -> Tensor | None:
    """Alternate tensors along an axis."""
    present = [part for part in parts if part is not None]
    if not present or len(parts) == 1:
        return parts[0] if parts else None
    filled = [torch.zeros_like(present[0]) if part is None else part for part in parts]
    return torch.stack(filled, new_axis).flatten(axis, axis + 1)
