"""ChexRadiNet (Han et al. 2020): an image encoder, taught by radiomic features of the region that it looks at.

Sources: "Using radiomics as prior knowledge for thorax disease classification and localization in chest X-rays" (arXiv
2011.12506), and where it leaves a detail open its authors' other publications: the code of "Pneumonia detection on
chest X-ray using radiomic features and contrastive learning" (ISBI 2021) and of the WACV 2022 paper on a feedback loop.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from crosseai import postproc
from crosseai.comparison.candidates import brightest
from crosseai.comparison.classifier import CHECKPOINT_FOLDER, NetworkLocaliser, device, fresh_network
from crosseai.comparison.cohort import Cohort
from crosseai.comparison.learning import learn
from crosseai.comparison.method import Localisation
from crosseai.comparison.radiomics import radiomic_features
from crosseai.contract import ModelSpec
from crosseai.training import load_checkpoint
from crosseai.training.checkpoint import load_weights
from crosseai.training.config import FitConfig
from crosseai.training.contrastive import EMBEDDING_SIZE, head_of
from crosseai.training.evaluation import Images, normalise
from crosseai.training.feed import Batch
from crosseai.training.losses import contrastive_loss, cross_entropy
from crosseai.training.model import feature_shape
from crosseai.training.progress import Epoch

THRESHOLD = 127
"""Intensity of 0..255 above which a pixel of the activation map belongs to a region (the code of WACV 2022)."""

CROSS_ENTROPY_WEIGHT = 0.7
"""Weight of the cross-entropy; the contrastive loss has the rest (the code of WACV 2022)."""

TEMPERATURE = 0.5
"""Of the contrastive loss (the code of both)."""

RADIOMIC_SIZE = 128
"""Length of the radiomic encoder's feature (the code of ISBI 2021)."""

RADIOMIC_FEATURES = len(radiomic_features(np.zeros((1, 1), np.float32), (0, 0, 1, 1)))


class ChexRadiNet:
    """Class activation maps of an image encoder that radiomic features have taught where to look.

    As published: in every step the image branch's class activation map gives a region, whose radiomic features enter a
    second branch; both branches classify, and a contrastive loss ties their embeddings of one image; boxes come from
    the activation map alone, at half of its range. Triplet attention is the configuration's, and the paper's. Ours:
    the radiomic features that :mod:`crosseai.comparison.radiomics` has; the region is that of the most probable
    disease; of several regions the brightest counts; cross-entropy is the mean of the two branches'.
    """

    name = "chexradinet"
    title = "ChexRadiNet"
    training = "chexradinet"
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
        """Train both branches; see :class:`crosseai.comparison.method.Method`."""
        spec = ModelSpec(classes=cohort.data.radiographs.classes, input_size=config.input_size)
        model = self._network(config, spec, weights)
        layer = "encoder"
        spec = replace(spec, layer=layer, feature_shape=feature_shape(model, layer, 1, config.input_size))
        config = replace(config, cross_entropy_weight=CROSS_ENTROPY_WEIGHT)
        learn(model, spec, cohort.data, config, folder, BranchLoss(config), on_epoch)

    def load(self, config: FitConfig, folder: Path) -> "RadiomicLocaliser":
        """Read the trained network."""
        checkpoint = folder / CHECKPOINT_FOLDER
        network = self._network(config, ModelSpec.load(checkpoint))
        _, spec = load_checkpoint(checkpoint, network)
        return RadiomicLocaliser(network, spec)

    @staticmethod
    def _network(config: FitConfig, spec: ModelSpec, weights: Path | None = None) -> "RadiomicNetwork":
        def change(classifier: nn.Module) -> RadiomicNetwork:
            if weights is not None:
                load_weights(classifier, weights)
            return RadiomicNetwork(classifier, spec)

        return fresh_network(config, change, len(spec.classes))


class Branches(NamedTuple):
    """What the two branches make of a batch.

    Parameters
    ----------
    image, radiomic
        Logits ``[N, C]``.
    image_embedding, radiomic_embedding
        ``[N, E]``, of any length.
    """

    image: Tensor
    radiomic: Tensor
    image_embedding: Tensor
    radiomic_embedding: Tensor


class RadiomicNetwork(nn.Module):
    """Two branches: the image, and the radiomic features of the region that the first looks at.

    The image branch ends in global average pooling and one linear layer, so that its class activation map (Zhou et al.,
    CVPR 2016, equation 2) is what it adds up. No gradient passes through the radiomic features.

    Parameters
    ----------
    classifier
        Its layers before the pooling become the image encoder.
    spec
        Gives the classes, and the normalisation: radiomic features are of gray values.

    Raises
    ------
    InputError
        If the classifier has no linear head.
    """

    def __init__(self, classifier: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        _, size = head_of(classifier)
        layers = takewhile(lambda child: child[0] != "avgpool", classifier.named_children())
        self.encoder = nn.Sequential(OrderedDict(layers))
        self.head = nn.Linear(size, len(spec.classes))
        self.radiomic_encoder = nn.Sequential(
            nn.BatchNorm1d(RADIOMIC_FEATURES, affine=False),
            nn.Linear(RADIOMIC_FEATURES, RADIOMIC_SIZE),
            nn.ReLU(),
            nn.Linear(RADIOMIC_SIZE, RADIOMIC_SIZE),
        )
        self.radiomic_head = nn.Linear(RADIOMIC_SIZE, len(spec.classes))
        self.projection = nn.ModuleList([nn.Linear(size, EMBEDDING_SIZE), nn.Linear(RADIOMIC_SIZE, EMBEDDING_SIZE)])

    def forward(self, x: Tensor) -> Tensor | Branches:
        """``[N, ch, S, S]`` to :class:`Branches` in training mode, to the image's logits in evaluation mode."""
        maps = self.encoder(x)  # [N, D, h, w]
        pooled = maps.mean((2, 3))  # [N, D]
        logits: Tensor = self.head(pooled)
        if not self.training:
            return logits
        features = self._radiomic_features(x, self.activation_maps(maps, logits.argmax(1)))  # [N, F]
        radiomic = self.radiomic_encoder(features)
        embeddings = [project(feature) for project, feature in zip(self.projection, (pooled, radiomic), strict=True)]
        return Branches(logits, self.radiomic_head(radiomic), *embeddings)

    @torch.no_grad()
    def activation_maps(self, maps: Tensor, classes: Tensor) -> npt.NDArray[np.float32]:
        """Of the encoder's output ``[N, D, h, w]`` for one class in each image, float32 ``[N, h, w]``."""
        weighed = torch.einsum("nc,nchw->nhw", self.head.weight[classes], maps.to(self.head.weight.dtype))
        activation: npt.NDArray[np.float32] = weighed.float().contiguous().cpu().numpy()
        return activation

    @torch.no_grad()
    def _radiomic_features(self, x: Tensor, activation: npt.NDArray[np.float32]) -> Tensor:
        (mean, *_), (std, *_) = self.spec.mean, self.spec.std
        gray = (
            (255 * (x[:, 0].float() * std + mean)).round(decimals=3).cpu().numpy()
        )  # 50 is not in the bin of 49.99999
        boxes = attended(activation, x.shape[2]).boxes
        boxes[~boxes.any(1)] = (0, 0, *gray.shape[:0:-1])  # a flat map: the whole image
        features = [list(radiomic_features(*pair).values()) for pair in zip(gray, boxes, strict=True)]
        return x.new_tensor(np.array(features), dtype=torch.float32)


class BranchLoss:
    """Cross-entropy of both branches, and the contrastive loss between their embeddings.

    The contrastive loss is NT-Xent (Chen et al., ICML 2020): the two embeddings of an image are each other's positive,
    all others of both branches negatives.

    Parameters
    ----------
    config
        Says how the cross-entropy sums over diseases.
    """

    def __init__(self, config: FitConfig) -> None:
        self.class_reduction = config.class_reduction

    def __call__(self, branches: Branches, batch: Batch) -> Tensor:
        """Both terms, ``[2]``."""
        entropies = [
            cross_entropy(logits.float(), batch.labels, class_reduction=self.class_reduction)
            for logits in (branches.image, branches.radiomic)
        ]
        embeddings = torch.cat([branches.image_embedding, branches.radiomic_embedding]).float()
        images = torch.arange(len(batch.labels), device=embeddings.device).repeat(2)  # a patient each, with two views
        labels = batch.labels.repeat(2, 1)
        contrast = contrastive_loss(embeddings, labels, images, contrast="patient", temperature=TEMPERATURE)
        return torch.stack([torch.stack(entropies).mean(), contrast])


class RadiomicLocaliser(NetworkLocaliser):
    """The image branch of a :class:`RadiomicNetwork`, and its class activation maps."""

    model: RadiomicNetwork

    @torch.inference_mode()
    def localise(self, images: Images, classes: npt.NDArray[np.int64]) -> Localisation:
        """As :meth:`Localiser.localise`; the maps are the class activation maps, 0..255."""
        shown = normalise(torch.from_numpy(images).to(device()), self.spec)
        activation = self.model.activation_maps(self.model.encoder(shown), torch.from_numpy(classes).to(device()))
        return attended(activation, self.spec.input_size)


def attended(activation: npt.NDArray[np.float32], input_size: int) -> Localisation:
    """Regions of class activation maps above half of their range.

    Parameters
    ----------
    activation
        float32 ``[N, h, w]``.
    input_size
        S.

    Returns
    -------
    Localisation
        Boxes around the connected regions, the brightest of each image; none for a constant map.
    """
    blank = np.zeros((input_size, input_size), np.uint8)
    maps = np.stack([postproc.fuse(one, blank, t=1.0) for one in activation])
    masks = (maps > THRESHOLD).astype(np.uint8)
    candidates = tuple(
        postproc.maximal_rectangles(mask, candidates="components", max_candidates=mask.size) for mask in masks
    )
    return Localisation(brightest(maps, candidates), maps, candidates)
