"""One optimizer step: what it computes, and everything that it changes."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR, StepLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from crosseai.training.config import FitConfig
from crosseai.training.contrastive import ContrastiveNetwork
from crosseai.training.feed import Batch
from crosseai.training.losses import contrastive_loss, cross_entropy
from crosseai.training.processes import Processes

MOMENTUM = 0.9
STEP_EPOCHS, STEP_FACTOR = 7, 0.1
Loss: TypeAlias = Callable[[Any, Batch], Tensor]
"""From what a network gives in training, and its batch with the labels and patients of this process, to two terms
``[2]``, which are weighed as cross-entropy and contrastive loss are."""

_AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Engine:
    """A classifier in training: network, optimizer, schedule, average.

    Parameters
    ----------
    classifier
        Trained in place, on the device of this process.
    config
        How.
    steps_per_epoch
        For the schedule.
    positive_weight
        float32 ``[C]``, factor of the positive term of each disease; None is 1.
    processes
        Those that share every batch.
    loss
        What is minimised; None is cross-entropy and contrastive loss, for which a projection head is trained along.
    """

    def __init__(
        self,
        classifier: nn.Module,
        config: FitConfig,
        steps_per_epoch: int,
        positive_weight: Tensor | None,
        processes: Processes,
        loss: Loss | None = None,
    ) -> None:
        device = processes.device
        classifier.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stub lacks it
        self.config, self.processes, self.classifier, self.loss = config, processes, classifier, loss
        self.positive_weight = None if positive_weight is None else positive_weight.to(device)
        self.average: AveragedModel | None = None
        if config.average_decay:
            rule = get_ema_multi_avg_fn(config.average_decay)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(classifier, multi_avg_fn=rule)
        contrasted = loss is None and config.cross_entropy_weight < 1
        self.trained = ContrastiveNetwork(classifier).to(device) if contrasted else classifier
        self.optimizer = _optimizer(self.trained, config)
        self.schedule = _schedule(self.optimizer, config, steps_per_epoch)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.network = self._wrapped()

    @property
    def result(self) -> nn.Module:
        """The classifier to evaluate and keep: with averaged weights, if an average is formed."""
        return self.classifier if self.average is None else self.average.module

    def step(self, parts: Sequence[Batch]) -> Tensor:
        """One optimizer step on a batch that is computed in parts.

        Parameters
        ----------
        parts
            Of that batch.

        Returns
        -------
        Tensor
            Cross-entropy and contrastive loss of the whole batch, ``[2]``; not waited for.
        """
        self.network.train()
        total = torch.zeros(2, device=self.processes.device)
        for i, part in enumerate(parts, start=1):
            with nullcontext() if i == len(parts) else self._without_exchange():
                losses = self.losses(part) / len(parts)
                # Equation 3. The contrastive gradient reaches this process's embeddings only, and the processes'
                # gradients are then averaged: times their count it is the gradient of the whole.
                factor = self.processes.count if self.loss is None else 1
                self.scaler.scale(self.total(losses, factor)).backward()  # type: ignore[no-untyped-call]
            total += losses.detach()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.classifier)
        return self.processes.mean(total)

    def losses(self, batch: Batch) -> Tensor:
        """Cross-entropy of this process's images and contrastive loss of everybody's, ``[2]``; or the loss given."""
        config, device = self.config, self.processes.device
        own = self.processes.share(len(batch.labels))
        with torch.autocast(device.type, _AUTOCAST[config.precision], enabled=config.precision != "fp32"):
            output = self.network(batch.images)
        if self.loss is not None:
            return self.loss(output, batch._replace(labels=batch.labels[own], patients=batch.patients[own]))
        logits, embeddings = output if isinstance(output, tuple) else (output, None)
        entropy = cross_entropy(
            logits.float(),
            batch.labels[own],
            class_reduction=config.class_reduction,
            positive_weight=self.positive_weight,
            label_smoothing=config.label_smoothing,
        )
        if embeddings is None:
            return torch.stack([entropy, torch.zeros_like(entropy)])
        contrast = contrastive_loss(
            self.processes.gather(embeddings.float()),
            batch.labels,
            batch.patients,
            contrast=config.contrast,
            temperature=config.temperature,
            positive_in_denominator=config.positive_in_denominator,
        )
        return torch.stack([entropy, contrast])

    def total(self, losses: Tensor, contrastive_factor: int = 1) -> Tensor:
        """``lambda * cross-entropy + (1 - lambda) * contrastive`` (equation 3)."""
        share = self.config.cross_entropy_weight
        return share * losses[0] + (1 - share) * contrastive_factor * losses[1]

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "network": self.trained.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": {} if self.average is None else self.average.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` gave."""
        self.trained.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])

    def release(self) -> None:
        """Leave the classifier as a module of its own."""
        if isinstance(self.trained, ContrastiveNetwork):
            self.trained.release()

    def _wrapped(self) -> nn.Module:
        network, processes = self.trained, self.processes
        if processes.count > 1:
            gpus = [processes.device] if processes.device.type == "cuda" else None
            if gpus:  # statistics of the whole batch; PyTorch has no such batch norm for CPUs
                network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
            network = DistributedDataParallel(network, device_ids=gpus)
        return torch.compile(network) if self.config.compile else network  # type: ignore[return-value]

    def _without_exchange(self) -> Any:
        """Gradients of all parts but the last stay with their process."""
        return self.network.no_sync() if self.processes.count > 1 else nullcontext()  # type: ignore[operator]


def _optimizer(network: nn.Module, config: FitConfig) -> torch.optim.Optimizer:
    """The paper's two weight decays: one on what classifies, one on what only the contrastive loss trains."""
    groups = {True: list[nn.Parameter](), False: list[nn.Parameter]()}
    for name, parameter in network.named_parameters():
        groups[name.startswith("projection.")].append(parameter)
    decays = {True: config.projection_weight_decay, False: config.weight_decay}
    chosen = [{"params": groups[key], "weight_decay": decays[key]} for key in (False, True) if groups[key]]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(chosen, config.learning_rate)
    return torch.optim.SGD(chosen, config.learning_rate, MOMENTUM)


def _schedule(optimizer: torch.optim.Optimizer, config: FitConfig, steps_per_epoch: int) -> LRScheduler:
    """Advanced by every optimizer step."""
    if config.schedule == "one-cycle":
        return OneCycleLR(optimizer, config.learning_rate, config.epochs * steps_per_epoch)
    if config.schedule == "step":
        return StepLR(optimizer, STEP_EPOCHS * steps_per_epoch, STEP_FACTOR)
    return ConstantLR(optimizer, 1.0)
