"""The methods' classifiers: trained by the ordinary loop, with all that belongs to it, and asked."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from crosseai.comparison.cohort import Cohort
from crosseai.contract import ModelSpec
from crosseai.training.config import FitConfig
from crosseai.training.evaluation import Images, normalise, predict_logits
from crosseai.training.fit import fit
from crosseai.training.model import build_model
from crosseai.training.progress import STATE_FILENAME, Epoch
from crosseai.training.tracking import CHECKPOINT_ARTIFACT

CHECKPOINT_FOLDER = CHECKPOINT_ARTIFACT
"""In a method's folder: weights and spec of its best epoch."""


def fit_classifier(
    cohort: Cohort,
    config: FitConfig,
    folder: Path,
    *,
    network: tuple[nn.Module, ModelSpec] | None = None,
    weights: Path | None = None,
    on_epoch: Callable[[Epoch], None] = lambda _epoch: None,
) -> None:
    """Train a classifier with cross-entropy, and with the contrastive loss if the configuration has it.

    Goes on with a run that was interrupted. Arguments as of :func:`crosseai.training.fit.fit`; the division by patient
    depends on data set and seed alone, so that it is the cohort's.
    """
    fit(
        cohort.folder,
        config,
        network=network,
        layout=cohort.layout,
        weights=weights,
        cache=cohort.cache,
        output=folder,
        resume=(folder / STATE_FILENAME).is_file(),
        on_epoch=on_epoch,
    )


Network = TypeVar("Network", bound=nn.Module)


def fresh_network(config: FitConfig, change: Callable[[nn.Module], Network], classes: int) -> Network:
    """A network of the configuration, changed; all of its weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = config.network
        model = build_model(
            network.name, triplet_attention=network.triplet_attention, classes=classes, width=network.width
        )
        return change(model)


class NetworkLocaliser:
    """What the localisers have in common that see with one trained network.

    Parameters
    ----------
    model
        In evaluation mode.
    spec
        Its spec.
    """

    def __init__(self, model: nn.Module, spec: ModelSpec) -> None:
        self.model, self.spec = model.to(device()), spec

    def logits(self, images: Images) -> npt.NDArray[np.float32]:
        """As :meth:`crosseai.comparison.method.Localiser.logits`."""
        return predict_logits(self.model, images, self.spec)

    @torch.inference_mode()
    def layer_output(self, layer: str, images: Images) -> Tensor:
        """What a layer gives for images uint8 ``[N, 1, S, S]``."""
        kept: list[Tensor] = []
        handle = self.model.get_submodule(layer).register_forward_hook(lambda _module, _inputs, out: kept.append(out))
        try:
            self.model(normalise(torch.from_numpy(images).to(device()), self.spec))
        finally:
            handle.remove()
        (output,) = kept
        return output


def device() -> torch.device:
    """Where networks predict."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
