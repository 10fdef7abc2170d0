"""How far a training run is, and the file from which it goes on."""

import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crosseai.contract import InputError
from crosseai.training.checkpoint import read_tensors, write_atomically
from crosseai.training.evaluation import mean_auc

STATE_FILENAME = "training_state.pt"


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch yielded.

    Parameters
    ----------
    number
        From 1.
    loss
        Mean training loss (equation 3).
    validation_auc
        AUC of each disease on the validation part.
    cross_entropy, contrastive
        Means of the two terms of the loss.
    """

    number: int
    loss: float
    validation_auc: dict[str, float]
    cross_entropy: float
    contrastive: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Epochs done, and the best of them.

    Parameters
    ----------
    number
        Of the last epoch.
    best
        The best epoch by mean validation AUC, the earliest of equals; number 0 before the first.
    weights
        State dict of the classifier after the best epoch.
    """

    number: int = 0
    best: Epoch = Epoch(0, math.nan, {}, math.nan, math.nan)
    weights: Mapping[str, Tensor] = field(default_factory=dict)

    def after(self, epoch: Epoch, weights: Mapping[str, Tensor]) -> "Progress":
        """Progress with one more epoch; its weights are copied if it is the best so far.

        Without a validation AUC, which is NaN, the last epoch counts as the best.
        """
        if mean_auc(epoch.validation_auc) <= mean_auc(self.best.validation_auc):  # neither is NaN, then
            return Progress(epoch.number, self.best, self.weights)
        return Progress(epoch.number, epoch, {name: tensor.clone() for name, tensor in weights.items()})

    def stalled(self, patience: int) -> bool:
        """Whether so many epochs passed since the best one; never with patience 0."""
        return 0 < patience <= self.number - self.best.number

    def save(self, folder: Path, made_from: Mapping[str, Any], engine: Mapping[str, Any]) -> None:
        """Write the state of a run into a folder.

        Parameters
        ----------
        made_from
            What must be the same when the run goes on; JSON.
        engine
            State of the engine.

        Raises
        ------
        OutputError
            If it cannot be written; the state that was there is intact then.
        """
        content = io.BytesIO()
        progress = {"number": self.number, "best": asdict(self.best), "weights": dict(self.weights)}
        torch.save({"made_from": json.dumps(made_from), "progress": progress, "engine": dict(engine)}, content)
        write_atomically(folder / STATE_FILENAME, content.getbuffer())

    @classmethod
    def load(cls, folder: Path, made_from: Mapping[str, Any]) -> tuple["Progress", dict[str, Any]]:
        """Read the state of a run: its progress, and the engine's state; tensors are on the CPU.

        Raises
        ------
        InputError
            If there is no state, or it was made from something else.
        """
        file = folder / STATE_FILENAME
        state = read_tensors(file)
        before = json.loads(state["made_from"])
        if changed := sorted(key for key in before.keys() | made_from.keys() if before.get(key) != made_from.get(key)):
            found = ", ".join(f"{key} {before.get(key)!r} -> {made_from.get(key)!r}" for key in changed)
            raise InputError(f"{file}: a run goes on with the configuration and data it began with, changed: {found}")
        progress = state["progress"]
        return cls(progress["number"], Epoch(**progress["best"]), progress["weights"]), state["engine"]
