// What `help()` says.
#pragma once

namespace crosseai::postproc::bindings::documentation {

inline constexpr const char* localize =
    R"(Box of each disease from its heat map and its gradient map.

The whole algorithm of arXiv 2310.19835 (Algorithm 1): fuse, binarize, maximal_rectangles, expand, select.

Parameters
----------
heatmaps
    float32 ``[maps, h, w]``, for example Grad-CAM++ of a coarse layer.
gradient_maps
    uint8 or float32 ``[maps, height, width]``, for example absolute Guided Backpropagation gradients.
t
    Share of the heat map in the fused map, 0..1 (section 4.2).
threshold
    Share of the fused map's maximum above which a pixel belongs to the mask, 0..1 (section 4.2).
gradient_positive
    Only positive gradients count, for float32 maps, which have a sign. Not in the paper, like all that follows but for
    ``max_candidates`` and ``min_area``; gradients are changed in the order of these keywords.
gradient_percentile
    Gradients above this percentile of their map are set to it, above 0 and at most 100. It is the least of the map's
    values that this share of its pixels does not exceed; nothing is interpolated.
gradient_power
    Power to which the gradient map, scaled to 0..1, is raised; positive. 0.5 tames the outliers of a gradient.
gradient_sigma
    Standard deviation of a Gaussian that smooths the gradient map, as a share of its shorter side, 0..1. It is three
    box filters in each direction (Kovesi, DICTA 2010); the border is repeated.
closing
    Gaps in the mask are closed by a square of side ``2 * r + 1``, where r is this share of the map's shorter side,
    rounded; 0..1.
candidates
    ``greedy``: the largest rectangle of ones is cleared before the next one is sought, as in the paper.
    ``components``: bounding boxes of the 8-connected components of ones. ``all``: every rectangle of ones that lies in
    no larger one; these overlap.
max_candidates
    Greatest number of candidates, of which the largest are considered; the paper gives none.
min_area
    Smallest area of a candidate in pixels, before it grows; the paper gives none.
min_area_share
    The same as a share of the map's area, 0..1; both must hold.
area_power
    The candidate of the highest mean times ``area ** area_power`` is chosen, 0..1. The paper's rule, 0, favours small
    bright boxes; 1 chooses by the sum of the pixels above the threshold.
threads
    Number of threads; 0 means every core.

Returns
-------
boxes : numpy.ndarray
    int32 ``[maps, 4]``: half-open ``(x0, y0, x1, y1)`` in pixels of the gradient map; all zero means no box.
scores : numpy.ndarray
    float32 ``[maps]``: mean of the masked fused map over the box, 0..255.

Raises
------
crosseai.contract.InvalidMapError
    If a map has the wrong dtype, shape or memory layout, is empty or not finite, or a parameter is out of range.

Examples
--------
>>> import numpy as np
>>> heatmaps = np.zeros((1, 7, 7), np.float32)
>>> heatmaps[0, 2:4, 3:5] = 1
>>> gradient_maps = np.zeros((1, 224, 224), np.uint8)
>>> gradient_maps[0, 70:120, 100:150] = 255
>>> boxes, scores = localize(heatmaps, gradient_maps)
>>> boxes
array([[100,  70, 150, 120]], dtype=int32)
)";

inline constexpr const char* localize_many =
    R"(Boxes of each disease, several where others are nearly as good as the best one.

As :func:`localize`, which says what the other keywords mean. The best candidate is its box; further ones follow, the
best first, that overlap none before them.

Parameters
----------
heatmaps
    float32 ``[maps, h, w]``.
gradient_maps
    uint8 or float32 ``[maps, height, width]``.
score_ratio
    What a further candidate must come to, as a share of the best one, 0..1; compared is the mean times
    ``area ** area_power``.
max_boxes
    Greatest number of boxes for a map.

Returns
-------
boxes : numpy.ndarray
    int32 ``[boxes, 4]``: half-open ``(x0, y0, x1, y1)`` in pixels of the gradient map.
scores : numpy.ndarray
    float32 ``[boxes]``: mean of the masked fused map over each box, 0..255.
offsets : numpy.ndarray
    int64 ``[maps + 1]``: the boxes of map i are ``boxes[offsets[i] : offsets[i + 1]]``, none if there is none.

Raises
------
crosseai.contract.InvalidMapError
    If a map has the wrong dtype, shape or memory layout, is empty or not finite, or a parameter is out of range.

Examples
--------
>>> import numpy as np
>>> heatmaps = np.ones((1, 1, 1), np.float32)
>>> gradient_maps = np.zeros((1, 100, 100), np.uint8)
>>> gradient_maps[0, 10:30, 20:40] = 255
>>> gradient_maps[0, 60:90, 50:60] = 200
>>> boxes, scores, offsets = localize_many(heatmaps, gradient_maps)
>>> boxes
array([[20, 10, 40, 30],
       [50, 60, 60, 90]], dtype=int32)
>>> offsets
array([0, 2])
)";

inline constexpr const char* fuse =
    R"(Weighted average of a heat map and a gradient map (arXiv 2310.19835, equation 4).

The heat map is enlarged bilinearly to the gradient map's size (half-pixel centres, clamped edges). Both are then scaled
min..max to [0, 255]; a constant map becomes zeros.

Parameters
----------
heatmap
    float32 ``[h, w]``.
gradient_map
    uint8 or float32 ``[height, width]``.
t
    Share of the heat map, 0..1.
gradient_positive, gradient_percentile, gradient_power, gradient_sigma
    How the gradient map is changed first, see :func:`localize`.

Returns
-------
numpy.ndarray
    float32 ``[height, width]``: ``t * H + (1 - t) * G``, 0..255.

Raises
------
crosseai.contract.InvalidMapError
    If a map has the wrong dtype, shape or memory layout, is empty or not finite, or a parameter is out of range.
)";

inline constexpr const char* binarize =
    R"(Mask of the pixels above a share of the map's maximum.

Parameters
----------
fused
    float32 ``[height, width]``.
threshold
    Share of the maximum, 0..1.
closing
    Half the side of a square that closes gaps, as a share of the map's shorter side, 0..1. Outside the mask there are
    zeros to dilate and ones to erode.

Returns
-------
numpy.ndarray
    uint8 ``[height, width]`` in {0, 1}; all zeros if the maximum is not positive.

Raises
------
crosseai.contract.InvalidMapError
    If the map has the wrong dtype, shape or memory layout, is empty or not finite, or a parameter is out of range.
)";

inline constexpr const char* maximal_rectangles =
    R"(Candidates for a box, the largest first.

In the paper, each rectangle of ones is cleared before the next one is sought. Of equally large ones the smallest y0
comes first, then x0, then y1.

Parameters
----------
mask
    uint8 ``[height, width]`` in {0, 1}.
candidates
    ``greedy``, ``components`` (their bounding boxes) or ``all``, see :func:`localize`.
max_candidates
    Greatest number of candidates.
min_area
    Smallest area in pixels.
min_area_share
    The same as a share of the mask's area, 0..1; both must hold.

Returns
-------
numpy.ndarray
    int32 ``[k, 4]``: half-open ``(x0, y0, x1, y1)``.

Raises
------
crosseai.contract.InvalidMaskError
    If the mask has the wrong dtype, shape, memory layout or values.
crosseai.contract.InvalidMapError
    If a parameter is out of range.
)";

inline constexpr const char* expand =
    R"(Grow rectangles while at least half of each newly added ring is ones.

A ring is one pixel wide on every side at once; sides at the border stay.

Parameters
----------
mask
    uint8 ``[height, width]`` in {0, 1}.
rectangles
    int32 ``[k, 4]``: half-open ``(x0, y0, x1, y1)``.

Returns
-------
numpy.ndarray
    int32 ``[k, 4]``, in the same order.

Raises
------
crosseai.contract.InvalidMaskError
    If the mask or the rectangles have the wrong dtype, shape, memory layout or values.
)";

inline constexpr const char* select =
    R"(Rectangle of the highest mean of the masked fused map.

Parameters
----------
fused
    float32 ``[height, width]``.
mask
    uint8 ``[height, width]`` in {0, 1}; pixels outside it count as zero.
rectangles
    int32 ``[k, 4]``: half-open ``(x0, y0, x1, y1)``.
area_power
    The candidate of the highest mean times ``area ** area_power`` is chosen, 0..1. Not in the paper: its rule, 0,
    favours small bright boxes; 1 chooses by the sum over the box.

Returns
-------
index : int
    Row of ``rectangles``, the first one on a tie; -1 if there are none.
score : float
    Its mean intensity; 0 if there are none.

Raises
------
crosseai.contract.InvalidMapError
    If the fused map has the wrong dtype, shape or memory layout, is empty or not finite, or ``area_power`` is out of
    range.
crosseai.contract.InvalidMaskError
    If the mask or the rectangles have the wrong dtype, shape, memory layout or values.
)";

}  // namespace crosseai::postproc::bindings::documentation
