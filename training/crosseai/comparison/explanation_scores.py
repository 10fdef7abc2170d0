"""How good an explanation is, beyond its box: where the map points, where its energy lies, what the network uses.

Maps are float32 ``[N, S, S]`` and not negative, boxes float64 ``[N, 4]``, half-open ``(x0, y0, x1, y1)`` in model
pixels. The scores see a map only; :func:`score_explanations` makes the fused map of CrossEAI from any pair of sources.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from crosseai.comparison.replacement import STEPS, replacement_scores
from crosseai.contract import InputError, ModelSpec
from crosseai.contract.spec import HeatmapMethod
from crosseai.export.reference import EagerReference
from crosseai.export.sources import GradientSource
from crosseai.postproc import fuse
from crosseai.training.evaluation import Images, predict_logits

Maps = npt.NDArray[np.float32]
Boxes = npt.NDArray[np.float64]
Values = npt.NDArray[np.float64]

BATCH = 16
"""Images that are explained at once."""


@dataclass(frozen=True, slots=True)
class ExplanationScores:
    """Scores of N explanations, image by image.

    Parameters
    ----------
    pointing
        bool ``[N]``, see :func:`pointing_game`; the higher the mean the better, as for ``energy`` and ``insertion``.
    energy
        float64 ``[N]`` in 0..1, see :func:`energy_in_box`.
    insertion, deletion
        float64 ``[N]`` in 0..1, see :func:`crosseai.comparison.replacement.replacement_scores`; the lower ``deletion``
        the better.
    """

    pointing: npt.NDArray[np.bool_]
    energy: Values
    insertion: Values
    deletion: Values


def score_explanations(
    model: nn.Module,
    spec: ModelSpec,
    images: Images,
    classes: npt.NDArray[np.int64],
    boxes: Boxes,
    *,
    heatmap: HeatmapMethod | None = None,
    gradient: GradientSource | None = None,
    t: float | None = None,
    tolerance_px: float = 15,
    steps: int = STEPS,
) -> ExplanationScores:
    """Score the fused maps of one finding in each image.

    Parameters
    ----------
    model
        From normalised images to logits; in evaluation mode.
    spec
        Its spec.
    images
        uint8 ``[N, 1, S, S]``.
    classes
        int64 ``[N]``, the finding explained in each, 0..C-1.
    boxes
        float64 ``[N, 4]``, where a radiologist saw it, in model pixels.
    heatmap, gradient, t
        Sources and share of the heat map; those of the spec unless given.
    tolerance_px
        See :func:`pointing_game`.
    steps
        Of insertion and of deletion.

    Raises
    ------
    InputError
        If the arrays do not fit each other or the spec, or the network has no such map.
    """
    _check_boxes(boxes, len(images))
    maps = fused_maps(model, spec, images, classes, heatmap=heatmap, gradient=gradient, t=t)
    insertion, deletion = replacement_scores(
        lambda batch: predict_logits(model, batch, spec), spec, images, classes, maps, steps
    ).T
    return ExplanationScores(pointing_game(maps, boxes, tolerance_px), energy_in_box(maps, boxes), insertion, deletion)


def fused_maps(
    model: nn.Module,
    spec: ModelSpec,
    images: Images,
    classes: npt.NDArray[np.int64],
    *,
    heatmap: HeatmapMethod | None = None,
    gradient: GradientSource | None = None,
    t: float | None = None,
) -> Maps:
    """Heat map and gradient map of one class in each image, fused as for the boxes of the spec.

    Parameters
    ----------
    model, spec, images, classes, heatmap, gradient, t
        As for :func:`score_explanations`.

    Returns
    -------
    ndarray
        float32 ``[N, S, S]``, 0..255.
    """
    shape = (len(classes), 1, spec.input_size, spec.input_size)
    if images.dtype != np.uint8 or images.shape != shape:
        raise InputError(
            f"images: expected uint8 {shape} for {len(classes)} classes, found {images.dtype} {images.shape}"
        )
    fusion = spec.boxes.fusion_keywords() | ({} if t is None else {"t": t})
    reference = EagerReference(model, spec, torch.float32, heatmap=heatmap, gradient=gradient)
    maps = np.zeros((len(images), *shape[2:]), np.float32)
    for start in range(0, len(images), BATCH):
        rows = slice(start, start + BATCH)
        explanation = reference.explain(images[rows], classes[rows])
        heat, gradients = explanation.heatmaps.numpy(), explanation.gradient_maps.to(torch.uint8).numpy()
        maps[rows] = [fuse(*pair, **fusion) for pair in zip(heat, gradients, strict=True)]
    return maps


def pointing_game(maps: Maps, boxes: Boxes, tolerance_px: float = 15) -> npt.NDArray[np.bool_]:
    """Whether the centre of each map's brightest pixel lies in the box, or near it (Zhang et al., IJCV 2018).

    Of equally bright pixels the first counts, row by row. A constant map points nowhere: a miss, which is ours.

    Parameters
    ----------
    maps
        float32 ``[N, S, S]``.
    boxes
        float64 ``[N, 4]``.
    tolerance_px
        Distance from the box that still counts as a hit; 15 as published.

    Raises
    ------
    InputError
        If maps and boxes do not fit each other, or the tolerance is negative.
    """
    _check(maps, boxes)
    if not tolerance_px >= 0:
        raise InputError(f"pointing game: expected a tolerance >= 0, found {tolerance_px}")
    flat = maps.reshape(len(maps), -1)
    y, x = np.divmod(flat.argmax(1), maps.shape[2])
    point = np.stack([x, y], 1) + 0.5
    outside = np.maximum(0, np.maximum(boxes[:, :2] - point, point - boxes[:, 2:]))
    hits: npt.NDArray[np.bool_] = (np.hypot(*outside.T) <= tolerance_px) & (flat.max(1) > flat.min(1))
    return hits


def energy_in_box(maps: Maps, boxes: Boxes) -> Values:
    """Share of each map's sum that lies inside the box (Wang et al., Score-CAM, CVPR workshops 2020, section 4.3).

    A pixel that the box's edge cuts counts by the part inside; the sum of a map of zeros, by our choice, is outside.

    Parameters
    ----------
    maps
        float32 ``[N, S, S]``.
    boxes
        float64 ``[N, 4]``.

    Raises
    ------
    InputError
        If maps and boxes do not fit each other.
    """
    _check(maps, boxes)
    pixel = np.arange(maps.shape[1])
    columns, rows = (
        np.clip(np.minimum(stop, pixel + 1) - np.maximum(start, pixel), 0, 1)
        for start, stop in ((boxes[:, :1], boxes[:, 2:3]), (boxes[:, 1:2], boxes[:, 3:]))
    )
    inside = np.einsum("nij,ni,nj->n", maps, rows, columns, dtype=np.float64)
    total = maps.sum((1, 2), dtype=np.float64)
    shares: Values = np.divide(inside, total, out=np.zeros(len(maps)), where=total > 0)
    return shares


def _check(maps: Maps, boxes: Boxes) -> None:
    if maps.ndim != 3:
        raise InputError(f"scores: expected maps [N, S, S], found {maps.shape}")
    _check_boxes(boxes, len(maps))
    if not (maps >= 0).all():
        raise InputError("scores: expected maps that are not negative, found negative values or NaN")


def _check_boxes(boxes: Boxes, count: int) -> None:
    if boxes.shape != (count, 4):
        raise InputError(f"scores: expected boxes [{count}, 4], one for each map, found {list(boxes.shape)}")
    if not (boxes[:, :2] < boxes[:, 2:]).all():
        raise InputError("scores: expected boxes with x0 < x1 and y0 < y1")
