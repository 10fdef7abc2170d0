"""Training of what the ordinary run does not know: another loss, other images than the data set's own training part."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from crosseai.comparison.classifier import CHECKPOINT_FOLDER
from crosseai.contract import ModelSpec
from crosseai.training.calibration import calibrate
from crosseai.training.checkpoint import save_checkpoint
from crosseai.training.config import FitConfig
from crosseai.training.engine import Loss
from crosseai.training.evaluation import predict_logits
from crosseai.training.feed import TrainingData
from crosseai.training.loop import train
from crosseai.training.processes import joined_processes
from crosseai.training.progress import STATE_FILENAME, Epoch


def learn(
    model: nn.Module,
    spec: ModelSpec,
    data: TrainingData,
    config: FitConfig,
    folder: Path,
    loss: Loss,
    on_epoch: Callable[[Epoch], None],
) -> None:
    """Train by the ordinary loop and leave the checkpoint of the best epoch, calibrated on the validation part.

    Parameters
    ----------
    model
        Trained in place; in evaluation mode it gives logits ``[N, C]``.
    spec
        Its spec.
    folder
        Gets the checkpoint, and the state of the run; one that was interrupted there goes on.
    loss
        Of what the model gives in training mode.
    """
    resume = (folder / STATE_FILENAME).is_file()
    with joined_processes() as processes:
        train(model, spec, data, config, folder, resume=resume, processes=processes, loss=loss, on_epoch=on_epoch)
        validation = data.split.validation
        logits = predict_logits(model, data.images, spec, rows=validation)
    calibrated = calibrate(spec, data.radiographs.labels[validation], logits, config.sensitivity)
    save_checkpoint(model, calibrated, folder / CHECKPOINT_FOLDER)
