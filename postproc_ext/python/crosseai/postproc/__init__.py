"""Boxes from heat maps and gradient maps: Algorithm 1 of CrossEAI (arXiv 2310.19835), in C++.

:func:`localize` does everything for a batch, :func:`localize_many` gives several boxes for a map; the other functions
are their steps, one by one.

>>> import numpy as np
>>> fused = np.zeros((6, 8), np.float32)
>>> fused[1:4, 2:7] = 200
>>> mask = binarize(fused)
>>> rectangles = expand(mask, maximal_rectangles(mask))
>>> rectangles
array([[2, 1, 7, 4]], dtype=int32)
>>> select(fused, mask, rectangles)
(0, 200.0)
"""

from crosseai.postproc._core import binarize, expand, fuse, localize, localize_many, maximal_rectangles, select

__all__ = ["binarize", "expand", "fuse", "localize", "localize_many", "maximal_rectangles", "select"]
