"""The training loop."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from crosseai.contract import InputError, ModelSpec
from crosseai.training.checkpoint import write_atomically
from crosseai.training.config import FitConfig
from crosseai.training.engine import Engine, Loss
from crosseai.training.evaluation import auc_per_class, predict_logits
from crosseai.training.feed import Feed, TrainingData
from crosseai.training.processes import ALONE, Processes
from crosseai.training.progress import Epoch, Progress

LOST_BATCH_FILENAME = "lost_batch.txt"


def train(
    classifier: nn.Module,
    spec: ModelSpec,
    data: TrainingData,
    config: FitConfig,
    folder: Path,
    *,
    resume: bool = False,
    processes: Processes = ALONE,
    loss: Loss | None = None,
    on_epoch: Callable[[Epoch], None] = lambda _epoch: None,
) -> Epoch:
    """Train a classifier in place and leave it with the weights of its best epoch, in evaluation mode.

    After every epoch, all that the next one depends on is in ``folder``: a run that was ended at any moment and goes
    on with ``resume`` computes what it would have computed in one go.

    Parameters
    ----------
    classifier
        From normalised images ``[N, spec.channels, S, S]`` to logits ``[N, C]``. With a loss of its own it may give
        something else in training mode.
    folder
        Gets the state, and the image names of a batch whose loss is not finite.
    resume
        Go on from the state in the folder.
    processes
        Those that train together.
    loss
        What is minimised; None is the loss of the paper.
    on_epoch
        Called after every epoch, in the main process.

    Returns
    -------
    Epoch
        The best one by mean validation AUC, the earliest of equals.

    Raises
    ------
    InputError
        If the loss stops being finite, or the state to go on from is missing or another run's.
    OutputError
        If the state cannot be written; the one before is intact then.
    """
    made_from = {**asdict(config), "data": data.digest(), "processes": processes.count}
    feed, progress = Feed(data, spec, config, processes), Progress()
    with _torch_settings(config):
        engine = Engine(classifier, config, feed.steps_per_epoch, feed.positive_weight(), processes, loss)
        if resume:
            progress, state = Progress.load(folder, made_from)
            engine.restore(state)
        while progress.number < config.epochs and not progress.stalled(config.patience):
            number = progress.number + 1
            torch.manual_seed(config.seed + number)  # for networks with dropout
            losses = _train_epoch(engine, feed, number, folder)
            auc = _validate(engine.result, spec, data, processes)
            epoch = Epoch(number, engine.total(losses).item(), auc, *losses.tolist())
            progress = progress.after(epoch, engine.result.state_dict())
            if processes.is_main:
                on_epoch(epoch)
                progress.save(folder, made_from, engine.state())
    engine.release()
    classifier.load_state_dict(progress.weights)
    classifier.eval()
    return progress.best


def _train_epoch(engine: Engine, feed: Feed, number: int, folder: Path) -> Tensor:
    """Mean cross-entropy and contrastive loss of an epoch, float64 ``[2]``."""
    total, images = torch.zeros(2, dtype=torch.float64), 0
    for rows, batches in feed.epoch(number):
        losses = engine.step(batches).double().cpu()
        if not losses.isfinite().all():
            if feed.processes.is_main:
                names = "".join(f"{feed.data.radiographs.image_ids[row]}\n" for row in rows)
                write_atomically(folder / LOST_BATCH_FILENAME, names.encode())
            raise InputError(
                f"loss is {losses.sum():g} in epoch {number}; the images of that batch are listed in "
                f"{folder / LOST_BATCH_FILENAME}; a lower learning rate may help"
            )
        total += losses * len(rows)
        images += len(rows)
    return total / images


def _validate(classifier: nn.Module, spec: ModelSpec, data: TrainingData, processes: Processes) -> dict[str, float]:
    """AUC of each disease on the validation part, of which every process predicts its share."""
    rows = data.split.validation
    own = predict_logits(classifier, data.images, spec, rows=rows[processes.share(len(rows))])
    logits = np.concatenate(processes.gather_objects(own))
    return auc_per_class(data.radiographs.labels[rows], logits, spec.classes)


@contextmanager
def _torch_settings(config: FitConfig) -> Iterator[None]:
    """Deterministic kernels if wanted; torch's settings and random state are afterwards as before."""
    before = torch.are_deterministic_algorithms_enabled()
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS refuses
    torch.use_deterministic_algorithms(config.deterministic or before)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            yield
    finally:
        torch.use_deterministic_algorithms(before)
