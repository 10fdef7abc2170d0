"""A training step shared by the processes of torchrun: ``torchrun shared_step.py FILE`` writes losses and gradients.

Batch norm is left in evaluation mode: on CPUs its statistics are those of each process.
"""

import sys

import torch

from crosseai.training.engine import Engine
from crosseai.training.feed import Feed
from crosseai.training.processes import Processes, joined_processes
from tests.unit.training.test_loop import CONFIG, DATA, SPEC, fresh_model


def losses_and_gradients(processes: Processes) -> dict[str, torch.Tensor]:
    """Of the first batch."""
    feed = Feed(DATA, SPEC, CONFIG, processes)
    engine = Engine(fresh_model(), CONFIG, feed.steps_per_epoch, None, processes)
    _, (batch,) = next(feed.epoch(1))
    engine.network.eval()
    losses = engine.losses(batch)
    engine.total(losses, processes.count).backward()
    gradients = {name: p.grad for name, p in engine.trained.named_parameters() if p.grad is not None}
    return {"losses": processes.mean(losses), "images": processes.gather(batch.images), **gradients}


if __name__ == "__main__":
    with joined_processes() as joined:
        result = losses_and_gradients(joined)
        if joined.is_main:
            torch.save(result, sys.argv[1])
