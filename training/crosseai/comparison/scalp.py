"""SCALP (Jaiswal et al., ICDM 2021) with the box procedure of its authors' public code."""

from itertools import combinations

import cv2
import numpy as np
import numpy.typing as npt
from torch import nn

from crosseai import postproc
from crosseai.comparison.candidates import brightest
from crosseai.comparison.gradcam import ContrastiveMethod, MapExplainer
from crosseai.comparison.method import Boxes, Localisation
from crosseai.contract import ModelSpec
from crosseai.training.evaluation import Images

RED = 0.95
"""Least red of a pixel in JET colours, 0..1. JET is red from 0.62 to 0.89 of the range: the very peak is left out."""

CONTOUR_POINTS, CONTOUR_SIDE_PX = 20, 224
"""A contour must have more points than that in an image of that side; in others in proportion."""

ROUNDS = 2
"""How often the unions of all pairs of rectangles are added."""


class ScalpContours(ContrastiveMethod):
    """SCALP as its code draws boxes, around contours of the heat map; its paper speaks of dynamic programming.

    Ours: the heat map is that of the labelled disease, as in every row of the table (the code takes the most probable
    one), and one box is chosen without the truth, :func:`brightest` (the code counts the best of all).
    """

    def explain(self, model: nn.Module, spec: ModelSpec) -> "ContourLocaliser":
        """Boxes by contours."""
        return ContourLocaliser(model, spec)


class ContourLocaliser(MapExplainer):
    """Boxes from the contours of Grad-CAM++."""

    def localise(self, images: Images, classes: npt.NDArray[np.int64]) -> Localisation:
        """As :meth:`Localiser.localise`."""
        heatmaps, gradient_maps = self.explain(images, classes)
        pairs = zip(heatmaps, gradient_maps, strict=True)
        maps = np.stack([postproc.fuse(heatmap, gradient_map, t=1.0) for heatmap, gradient_map in pairs])
        candidates = tuple(contour_boxes(one) for one in maps)
        return Localisation(brightest(maps, candidates), maps, candidates)


def contour_boxes(heatmap: npt.NDArray[np.float32]) -> Boxes:
    """Rectangles around the contours of the red band, and the unions of pairs of them, int32 ``[k, 4]``.

    Parameters
    ----------
    heatmap
        float32 ``[S, S]`` in 0..255.
    """
    jet = cv2.applyColorMap(np.rint(heatmap).astype(np.uint8), cv2.COLORMAP_JET)
    band = (jet[:, :, 2] >= RED * 255).astype(np.uint8)
    contours, _ = cv2.findContours(band, cv2.RETR_TREE, cv2.CHAIN_APPROX_NONE)
    least = CONTOUR_POINTS * len(heatmap) / CONTOUR_SIDE_PX
    rectangles = [cv2.boundingRect(contour) for contour in contours if len(contour) > least]
    boxes = dict.fromkeys((x, y, x + width, y + height) for x, y, width, height in rectangles)
    for _ in range(ROUNDS):
        boxes |= dict.fromkeys([_union(a, b) for a, b in combinations(boxes, 2)])
    return np.array(list(boxes), np.int32).reshape(-1, 4)


def _union(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The smallest box around two."""
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
