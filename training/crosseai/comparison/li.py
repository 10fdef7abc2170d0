"""Li et al., CVPR 2018: thoracic disease identification and localization with limited supervision."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from crosseai import postproc
from crosseai.comparison.classifier import CHECKPOINT_FOLDER, NetworkLocaliser, fresh_network
from crosseai.comparison.cohort import BoxedFindings, Cohort
from crosseai.comparison.learning import learn
from crosseai.comparison.method import Boxes, Localisation
from crosseai.comparison.patches import PATCH_LAYER, PatchLoss, with_patch_head
from crosseai.contract import ModelSpec
from crosseai.training import load_checkpoint
from crosseai.training.checkpoint import load_weights
from crosseai.training.config import FitConfig
from crosseai.training.evaluation import Images
from crosseai.training.feed import TrainingData
from crosseai.training.model import feature_shape
from crosseai.training.progress import Epoch

UNBOXED_SHARE = 0.5
"""Share of the patients without boxes whose images are learnt from (section 4.2)."""

POSITIVE = 0.5
"""Least probability of a patch that belongs to the finding (section 4.2)."""


class Li2018:
    """Patches judged one by one, taught by boxes where there are any.

    As published: a grid of 20 x 20 patches; the joint loss with the boxed findings weighed by 5; half of the images
    without boxes; four fifths of those with boxes, which the folds of the cohort give. Ours: the configuration's
    network, input size and optimizer (the paper has a ResNet of version 2, 512 px), with triplet attention only if the
    configuration asks for it; boxes move with the augmentation; one box a finding, where the paper counts every
    positive patch: the box around the connected patches of the highest total probability.

    Parameters
    ----------
    uses_boxes
        Whether to learn from boxes at all: the paper's own comparison.
    """

    def __init__(self, *, uses_boxes: bool = True) -> None:
        self.uses_boxes = uses_boxes
        self.name = self.training = "li2018" if uses_boxes else "li2018-without-boxes"
        self.title = "Supervision" if uses_boxes else "Supervision, no boxes"

    def train(
        self,
        cohort: Cohort,
        config: FitConfig,
        folder: Path,
        *,
        weights: Path | None = None,
        on_epoch: Callable[[Epoch], None] = lambda _epoch: None,
    ) -> None:
        """Train the network; see :class:`Method`."""
        classes = cohort.data.radiographs.classes
        model = self._network(config, len(classes))
        if weights is not None:
            load_weights(model, weights)
        spec = ModelSpec(
            classes=classes,
            input_size=config.input_size,
            layer=PATCH_LAYER,
            feature_shape=feature_shape(model, PATCH_LAYER, 1, config.input_size),
        )
        data = half_of_the_unboxed(cohort.data, cohort.boxes, config.seed)
        config = replace(config, cross_entropy_weight=1.0)
        learn(model, spec, data, config, folder, PatchLoss(cohort.boxes, config.input_size), on_epoch)

    def load(self, config: FitConfig, folder: Path) -> "PatchLocaliser":
        """Read the trained network."""
        checkpoint = folder / CHECKPOINT_FOLDER
        classes = ModelSpec.load(checkpoint).classes
        return PatchLocaliser(*load_checkpoint(checkpoint, self._network(config, len(classes))))

    @staticmethod
    def _network(config: FitConfig, classes: int) -> nn.Module:
        return fresh_network(config, lambda model: with_patch_head(model, classes), classes)


class PatchLocaliser(NetworkLocaliser):
    """A network with the heads of :func:`with_patch_head`, which judges patches, and the boxes around them."""

    def localise(self, images: Images, classes: npt.NDArray[np.int64]) -> Localisation:
        """As :meth:`Localiser.localise`; the maps are the patches' probabilities."""
        found = [patch_boxes(grid, self.spec.input_size) for grid in self.probabilities(images, classes)]
        best = [boxes[0] if len(boxes) else np.zeros(4, np.int32) for boxes, _ in found]
        return Localisation(np.stack(best), np.stack([map_ for _, map_ in found]), tuple(boxes for boxes, _ in found))

    def probabilities(self, images: Images, classes: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Of the patches for one disease in each image, float32 ``[N, P, P]``."""
        patches = self.layer_output(PATCH_LAYER, images)
        chosen = patches[torch.arange(len(images)), torch.from_numpy(classes)]
        probabilities: npt.NDArray[np.float32] = chosen.float().sigmoid().cpu().numpy()
        return probabilities


def patch_boxes(probabilities: npt.NDArray[np.float32], input_size: int) -> tuple[Boxes, npt.NDArray[np.float32]]:
    """Boxes around the connected regions of positive patches, and the map of all patches.

    Parameters
    ----------
    probabilities
        float32 ``[P, P]``.
    input_size
        S.

    Returns
    -------
    boxes
        int32 ``[k, 4]`` in model pixels, the region of the highest total probability first.
    map
        float32 ``[S, S]``, each pixel the probability of the patch that its centre lies in.
    """
    side = len(probabilities)
    first = np.ceil(np.arange(side + 1) * input_size / side - 0.5).astype(np.int32)  # of the pixels of each patch
    widths = np.diff(first)
    positive = (probabilities >= POSITIVE).astype(np.uint8)
    regions = postproc.maximal_rectangles(positive, candidates="components", max_candidates=positive.size)
    evidence = probabilities * positive
    totals = [evidence[y0:y1, x0:x1].sum() for x0, y0, x1, y1 in regions]
    boxes: Boxes = first[regions[np.argsort(-np.array(totals), kind="stable")]]
    return boxes, probabilities.repeat(widths, 0).repeat(widths, 1)


def half_of_the_unboxed(data: TrainingData, boxes: BoxedFindings, seed: int) -> TrainingData:
    """The same data with all images of a random half of the patients without boxes out of the training part."""
    patients = np.array(data.radiographs.patients)
    train = data.split.train
    unboxed = np.setdiff1d(patients[train], patients[boxes.rows])
    left_out = np.random.default_rng(seed).permutation(unboxed)[: round(len(unboxed) * (1 - UNBOXED_SHARE))]
    return replace(data, split=replace(data.split, train=train[~np.isin(patients[train], left_out)]))
