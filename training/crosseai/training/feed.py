"""What a network is fed: the steps of an epoch, as tensors."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from crosseai.contract import InputError, ModelSpec
from crosseai.training.augmentation import augment, random_views
from crosseai.training.batches import Indices, epoch_batches
from crosseai.training.config import FitConfig
from crosseai.training.dataset import LabelledRadiographs
from crosseai.training.evaluation import ImageSource, normalise
from crosseai.training.processes import Processes
from crosseai.training.split import Split


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a run learns from and is validated on.

    Parameters
    ----------
    radiographs
        The listing.
    images
        uint8 ``[n, 1, S, S]``, preprocessed, in the order of the listing.
    split
        Of the listing. Training never looks at the test part.
    """

    radiographs: LabelledRadiographs
    images: ImageSource
    split: Split

    def digest(self) -> str:
        """SHA-256 of names and labels of the training and validation parts."""
        used = np.concatenate([self.split.train, [-1], self.split.validation])
        names = "\n".join(self.radiographs.image_ids[i] if i >= 0 else "" for i in used)
        return hashlib.sha256(names.encode() + self.radiographs.labels[used].tobytes()).hexdigest()


class Batch(NamedTuple):
    """What a loss is computed of.

    Parameters
    ----------
    images
        This process's, augmented and normalised, float32 ``[n, ch, S, S]``.
    labels, patients
        Those of all processes, in rank order: integers ``[N, C]`` and ``[N]``.
    rows
        Positions of this process's images in the listing, int64 ``[n]``.
    poses
        How they are shown, float32 ``[n, 2, 3]``; see :class:`crosseai.training.augmentation.Views`.
    """

    images: Tensor
    labels: Tensor
    patients: Tensor
    rows: Tensor
    poses: Tensor


class Feed:
    """Steps of an epoch: a function of data, configuration and the epoch's number, however many processes share it.

    Raises
    ------
    InputError
        If there are more processes than training images.
    """

    def __init__(self, data: TrainingData, spec: ModelSpec, config: FitConfig, processes: Processes) -> None:
        self.data, self.spec, self.config, self.processes = data, spec, config, processes
        self.rows = data.split.train
        if len(self.rows) < processes.count:
            raise InputError(f"training: expected an image a process, found {len(self.rows)} for {processes.count}")
        self.labels = data.radiographs.labels[self.rows]
        self.patients = [data.radiographs.patients[i] for i in self.rows]
        self._patient_codes = torch.from_numpy(np.unique(self.patients, return_inverse=True)[1])
        self.steps_per_epoch = -(-len(self._batches(np.random.default_rng(0))) // config.accumulate)

    def positive_weight(self) -> Tensor | None:
        """Negatives over positives of each disease, float32 ``[C]``; 1 where either lacks. None unless balanced."""
        if not self.config.balance:
            return None
        positives, negatives = (self.labels == 1).sum(0), (self.labels == 0).sum(0)
        weights = np.where(positives * negatives > 0, negatives / np.maximum(positives, 1), 1.0)
        return torch.from_numpy(weights.astype(np.float32))

    def epoch(self, number: int) -> Iterator[tuple[Indices, list[Batch]]]:
        """For each optimizer step the images in the listing, and the batches that it is computed in."""
        random = np.random.default_rng((self.config.seed, number))
        views = torch.Generator().manual_seed(int(random.integers(2**63)))
        batches = self._batches(random)
        for start in range(0, len(batches), self.config.accumulate):
            step = batches[start : start + self.config.accumulate]
            yield self.rows[np.concatenate(step)], [self._batch(batch, views) for batch in step]

    def _batches(self, random: np.random.Generator) -> list[Indices]:
        config = self.config
        return epoch_batches(
            self.patients,
            self.labels,
            config.batch_size // config.accumulate,
            random,
            multiple=self.processes.count,
            share_disease=config.contrast == "disease",
        )

    def _batch(self, batch: Indices, random: torch.Generator) -> Batch:
        own, device = self.processes.share(len(batch)), self.processes.device
        rows = self.rows[batch[own]]
        pixels = torch.from_numpy(self.data.images[rows]).to(device).float()
        views = random_views(len(batch), random)[own]  # drawn for all, so that sharing changes nothing
        return Batch(
            normalise(augment(pixels, views), self.spec),
            torch.from_numpy(self.labels[batch]).to(device),
            self._patient_codes[batch].to(device),
            torch.from_numpy(rows).to(device),
            views.poses.to(device),
        )
