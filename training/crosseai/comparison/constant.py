"""The baseline that needs no image: one box for each disease."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crosseai.comparison.cohort import Cohort
from crosseai.comparison.method import Localisation
from crosseai.comparison.overlap import overlaps
from crosseai.contract import ModelSpec
from crosseai.training.checkpoint import write_atomically
from crosseai.training.config import FitConfig
from crosseai.training.evaluation import Images
from crosseai.training.progress import Epoch

BOXES_FILENAME = "constant_boxes.json"

STEPS = 16
"""Edges lie on whole multiples of that part of the side."""


class ConstantBox:
    """For each disease the box of the highest mean IoU with the boxes of other patients.

    What a localisation table should show, and the papers' do not: how much of an accuracy comes from knowing where a
    disease usually is.
    """

    name = "constant"
    title = "Constant box"
    training = "constant"
    uses_boxes = True

    def train(
        self,
        cohort: Cohort,
        config: FitConfig,
        folder: Path,
        *,
        weights: Path | None = None,
        on_epoch: Callable[[Epoch], None] = lambda _epoch: None,
    ) -> None:
        """Choose the boxes; a disease without any takes what is best for all."""
        del weights, on_epoch
        candidates = grid_boxes(config.input_size)
        boxes = cohort.boxes
        best = {}
        for c, disease in enumerate(cohort.data.radiographs.classes):
            of_disease = boxes.boxes[boxes.classes == c]
            best[disease] = best_box(candidates, of_disease if len(of_disease) else boxes.boxes).tolist()
        write_atomically(folder / BOXES_FILENAME, f"{json.dumps(best, indent=2)}\n".encode())

    def load(self, config: FitConfig, folder: Path) -> "ConstantLocaliser":
        """Read the boxes."""
        best = json.loads((folder / BOXES_FILENAME).read_text(encoding="utf-8"))
        spec = ModelSpec(classes=tuple(best), input_size=config.input_size)
        return ConstantLocaliser(spec, np.array(list(best.values()), np.int32))


class ConstantLocaliser:
    """Boxes that are always the same.

    Parameters
    ----------
    spec
        Gives classes and input size.
    boxes
        int32 ``[C, 4]``.
    """

    def __init__(self, spec: ModelSpec, boxes: npt.NDArray[np.int32]) -> None:
        self.spec, self.boxes = spec, boxes

    def logits(self, images: Images) -> npt.NDArray[np.float32]:
        """Zeros: it knows nothing of the image."""
        return np.zeros((len(images), len(self.spec.classes)), np.float32)

    def localise(self, images: Images, classes: npt.NDArray[np.int64]) -> Localisation:
        """As :meth:`Localiser.localise`; the maps are 1 inside the box."""
        boxes = self.boxes[classes]
        maps = np.zeros((len(images), *images.shape[2:]), np.float32)
        for one, (x0, y0, x1, y1) in zip(maps, boxes, strict=True):
            one[y0:y1, x0:x1] = 1
        return Localisation(boxes, maps)


def grid_boxes(side: int) -> npt.NDArray[np.int64]:
    """All boxes with edges on a grid, int64 ``[k, 4]``, in a square of that side."""
    edges = np.linspace(0, side, STEPS + 1).round().astype(np.int64)
    return np.array([(x0, y0, x1, y1) for x0, x1, y0, y1 in product(edges, repeat=4) if x0 < x1 and y0 < y1])


def best_box(candidates: npt.NDArray[np.int64], truth: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The candidate with the highest mean IoU with the true boxes ``[n, 4]``; the first of equals."""
    iou, _ = overlaps(candidates[:, None], truth)
    best: npt.NDArray[np.int64] = candidates[int(iou.mean(1).argmax())]
    return best
