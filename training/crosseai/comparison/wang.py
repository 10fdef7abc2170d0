"""The baseline: ChestX-ray8's weakly supervised localisation (Wang et al., CVPR 2017)."""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from crosseai import postproc
from crosseai.comparison.candidates import brightest
from crosseai.comparison.classifier import CHECKPOINT_FOLDER, NetworkLocaliser, device, fit_classifier, fresh_network
from crosseai.comparison.cohort import Cohort
from crosseai.comparison.method import Boxes, Localisation
from crosseai.contract import InputError, ModelSpec
from crosseai.training import load_checkpoint
from crosseai.training.config import FitConfig
from crosseai.training.evaluation import Images
from crosseai.training.model import ResNet, feature_shape
from crosseai.training.progress import Epoch

SHARPNESS = 10.0
"""r of the log-sum-exp pooling (section 4.2)."""

INTENSITIES = (60, 180)
"""Thresholds of the heat map, scaled to 0..255 (section 4.2)."""

LAYER = "avgpool.transition"


class LogSumExpPooling(nn.Module):
    """``x* + log(mean(exp(r (x - x*)))) / r`` over the plane, with its maximum ``x*`` (equation 4).

    Between the mean (r to 0) and the maximum (r to infinity). Subtracting the maximum is left to ``logsumexp``.
    """

    def __init__(self, sharpness: float = SHARPNESS) -> None:
        super().__init__()
        self.sharpness = sharpness

    def forward(self, x: Tensor) -> Tensor:
        """``[N, D, h, w] -> [N, D, 1, 1]``."""
        pixels = x.shape[2] * x.shape[3]
        return ((self.sharpness * x).logsumexp((2, 3), keepdim=True) - math.log(pixels)) / self.sharpness


def with_wang_head(model: nn.Module, classes: int) -> nn.Module:
    """Give a ResNet the head of the paper's figure 3: transition layer, log-sum-exp pooling, prediction layer.

    The paper gives the transition layer's purpose, not its form: here a 3x3 convolution that keeps the number of
    channels, batch norm, ReLU.

    Raises
    ------
    InputError
        If it is no ResNet.
    """
    if not isinstance(model, ResNet):
        raise InputError(f"Wang et al. 2017: expected a ResNet, found {type(model).__name__}")
    head = next(module for module in model.head.modules() if isinstance(module, nn.Linear))
    features = head.in_features
    transition = nn.Sequential(
        nn.Conv2d(features, features, 3, padding=1, bias=False), nn.BatchNorm2d(features), nn.ReLU()
    )
    model.avgpool = nn.Sequential(OrderedDict(transition=transition, pooling=LogSumExpPooling()))  # type: ignore[assignment]
    model.head = nn.Sequential(nn.Linear(features, classes))
    return model


class Wang2017:
    """ChestX-ray8's baseline.

    As published: ResNet-50, log-sum-exp pooling, positives weighed by their rarity, boxes around the isolated regions
    of the class's heat map above 60 and above 180 of 255. Ours: weights by the training part, not by each batch; no
    triplet attention and no contrastive loss, which are younger; one box is chosen where a table wants one:
    :func:`brightest`.
    """

    name = "wang2017"
    title = "Baseline"
    training = "wang2017"
    uses_boxes = False

    def train(
        self,
        cohort: Cohort,
        config: FitConfig,
        folder: Path,
        *,
        weights: Path | None = None,
        on_epoch: Callable[[Epoch], None] = lambda _epoch: None,
    ) -> None:
        """Train the network with cross-entropy."""
        config, classes = self._settings(config), cohort.data.radiographs.classes
        model = self._network(config, len(classes))
        spec = ModelSpec(
            classes=classes,
            input_size=config.input_size,
            layer=LAYER,
            feature_shape=feature_shape(model, LAYER, 1, config.input_size),
        )
        fit_classifier(cohort, config, folder, network=(model, spec), weights=weights, on_epoch=on_epoch)

    def load(self, config: FitConfig, folder: Path) -> "WangLocaliser":
        """Read the trained network."""
        checkpoint = folder / CHECKPOINT_FOLDER
        classes = ModelSpec.load(checkpoint).classes
        return WangLocaliser(*load_checkpoint(checkpoint, self._network(self._settings(config), len(classes))))

    @staticmethod
    def _settings(config: FitConfig) -> FitConfig:
        return replace(config, triplet_attention=False, cross_entropy_weight=1.0, balance=True)

    @staticmethod
    def _network(config: FitConfig, classes: int) -> nn.Module:
        return fresh_network(config, lambda model: with_wang_head(model, classes), classes)


class WangLocaliser(NetworkLocaliser):
    """A network with the head of :func:`with_wang_head`, and what its heat maps say."""

    def localise(self, images: Images, classes: npt.NDArray[np.int64]) -> Localisation:
        """As :meth:`Localiser.localise`; the candidates are the regions of both thresholds."""
        maps = np.stack([postproc.fuse(heatmap, images[0, 0], t=1.0) for heatmap in self.heatmaps(images, classes)])
        candidates = tuple(isolated_regions(one) for one in maps)
        return Localisation(brightest(maps, candidates), maps, candidates)

    @torch.inference_mode()
    def heatmaps(self, images: Images, classes: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Activations of the transition layer times the class's prediction weights (section 3.2), ``[N, h, w]``."""
        activations = self.layer_output(LAYER, images)
        weights = self.model.get_parameter("head.0.weight")[torch.from_numpy(classes).to(device())]  # [N, C]
        heatmaps: npt.NDArray[np.float32] = torch.einsum("nc,nchw->nhw", weights, activations).cpu().numpy()
        return np.ascontiguousarray(heatmaps)


def isolated_regions(heatmap: npt.NDArray[np.float32]) -> Boxes:
    """Boxes around the connected regions above each of the two thresholds, int32 ``[k, 4]``.

    Parameters
    ----------
    heatmap
        float32 ``[S, S]`` in 0..255.
    """
    masks = [(heatmap > intensity).astype(np.uint8) for intensity in INTENSITIES]
    found = [postproc.maximal_rectangles(mask, candidates="components", max_candidates=mask.size) for mask in masks]
    return np.concatenate(found)
