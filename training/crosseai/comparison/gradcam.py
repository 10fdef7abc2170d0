"""The methods that explain one contrastive classifier: CrossEAI, and SCALP with the same box step."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from crosseai import postproc
from crosseai.comparison.classifier import CHECKPOINT_FOLDER, NetworkLocaliser, fit_classifier
from crosseai.comparison.cohort import Cohort
from crosseai.comparison.method import Localisation, Localiser
from crosseai.comparison.sanity_check import SanityCheck, sanity_check
from crosseai.contract import ModelSpec, box_preset
from crosseai.contract.spec import HeatmapMethod
from crosseai.export.reference import EagerReference
from crosseai.export.sources import GradientSource
from crosseai.training import load_checkpoint
from crosseai.training.config import FitConfig
from crosseai.training.evaluation import Images
from crosseai.training.progress import Epoch


class ContrastiveMethod(ABC):
    """What CrossEAI and SCALP share: the classifier, trained by equation 3 (arXiv 2310.19835, section 3.1).

    SCALP contrasts by patient alone (``contrast`` of the configuration); CrossEAI adds the disease. The paper compares
    two ways to a box on one classifier, and so does this: it is trained once, as the configuration says.

    Parameters
    ----------
    name, title
        In the list of methods, in the table.
    """

    training = "contrastive"
    uses_boxes = False

    def __init__(self, name: str, title: str) -> None:
        self.name, self.title = name, title

    def train(
        self,
        cohort: Cohort,
        config: FitConfig,
        folder: Path,
        *,
        weights: Path | None = None,
        on_epoch: Callable[[Epoch], None] = lambda _epoch: None,
    ) -> None:
        """Train the configuration's network with cross-entropy and contrastive loss.

        Where the configuration leaves the contrastive loss out it has the paper's weight: without it this would be
        another method.
        """
        if config.cross_entropy_weight == 1:
            config = replace(config, cross_entropy_weight=FitConfig().cross_entropy_weight)
        fit_classifier(cohort, config, folder, weights=weights, on_epoch=on_epoch)

    def load(self, config: FitConfig, folder: Path) -> Localiser:
        """Read the trained classifier."""
        del config
        return self.explain(*load_checkpoint(folder / CHECKPOINT_FOLDER))

    @abstractmethod
    def explain(self, model: nn.Module, spec: ModelSpec) -> Localiser:
        """The method's boxes for any trained classifier."""


class CrossEAI(ContrastiveMethod):
    """Grad-CAM++ and Guided Backpropagation, fused, and Algorithm 1 with a named set of box parameters.

    The preset ``crosseai`` is the paper as written, ``scalp`` the heat map alone with the same steps after it, which is
    how the paper describes SCALP; ``tuned`` is ours.

    Parameters
    ----------
    name, title
        In the list of methods, in the table.
    preset
        Of :data:`crosseai.contract.PRESETS`.
    heatmap, gradient
        Sources of the maps (:mod:`crosseai.export.sources`), the paper's unless given.
    """

    def __init__(
        self,
        name: str,
        title: str,
        preset: str,
        *,
        heatmap: HeatmapMethod = "gradcam++",
        gradient: GradientSource = "guided",
    ) -> None:
        super().__init__(name, title)
        self.boxes, self.heatmap, self.gradient = box_preset(preset), heatmap, gradient

    def explain(self, model: nn.Module, spec: ModelSpec) -> "MapLocaliser":
        """Boxes by the preset, whatever the spec recommends."""
        return MapLocaliser(model, replace(spec, boxes=self.boxes), heatmap=self.heatmap, gradient=self.gradient)


class MapExplainer(NetworkLocaliser):
    """A classifier, and its two maps of a class.

    Parameters
    ----------
    model
        From normalised images to logits, with a layer of the spec's name.
    spec
        Its spec.
    heatmap, gradient
        Sources of the maps; those of the spec unless given.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: ModelSpec,
        *,
        heatmap: HeatmapMethod | None = None,
        gradient: GradientSource | None = None,
    ) -> None:
        self.reference = EagerReference(model, spec, torch.float32, heatmap=heatmap, gradient=gradient)
        super().__init__(model, spec)

    def explain(
        self, images: Images, classes: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """Heat maps float32 ``[N, h, w]`` and gradient maps uint8 ``[N, S, S]`` of one class in each image."""
        explanation = self.reference.explain(images, classes)
        return explanation.heatmaps.numpy(), explanation.gradient_maps.to(torch.uint8).numpy()


class MapLocaliser(MapExplainer):
    """Boxes by ``crosseai.postproc``, with the box parameters of the spec."""

    def localise(self, images: Images, classes: npt.NDArray[np.int64]) -> Localisation:
        """As :meth:`Localiser.localise`; the maps are the fused ones."""
        heatmaps, gradient_maps = self.explain(images, classes)
        boxes, _ = postproc.localize(heatmaps, gradient_maps, **self.spec.boxes.keywords())
        fusion = self.spec.boxes.fusion_keywords()
        maps = np.stack([postproc.fuse(*pair, **fusion) for pair in zip(heatmaps, gradient_maps, strict=True)])
        return Localisation(boxes, maps)

    def sanity_check(self, images: Images, classes: npt.NDArray[np.int64]) -> SanityCheck:
        """Whether the fused maps depend on what the network has learnt."""
        reference = self.reference
        return sanity_check(
            self.model, self.spec, images, classes, heatmap=reference.heatmap, gradient=reference.gradient
        )
