"""One process, or several that ``torchrun`` or Ray started: who does what, and what they exchange."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those that train together.

    Parameters
    ----------
    rank
        0 is the main process: it alone writes files and records the run.
    count
        Number of processes.
    device
        Where this one computes.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the main process."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This process's part of n rows, of which all parts together are the whole, in rank order."""
        return slice(self.rank * n // self.count, (self.rank + 1) * n // self.count)

    def gather(self, own: Tensor) -> Tensor:
        """Rows ``[n, ...]`` of every process, ``[count * n, ...]`` in rank order; gradients reach the own rows only."""
        if self.count == 1:
            return own
        parts = [torch.empty_like(own) for _ in range(self.count)]
        dist.all_gather(parts, own.detach().contiguous())
        parts[self.rank] = own
        return torch.cat(parts)

    def gather_objects(self, own: T) -> list[T]:
        """One object from every process, in rank order."""
        if self.count == 1:
            return [own]
        parts = [own] * self.count
        dist.all_gather_object(parts, own)
        return parts

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes, without gradient."""
        values = values.detach().clone()
        if self.count > 1:
            dist.all_reduce(values)
        return values / self.count


ALONE = Processes(0, 1, torch.device("cpu"))


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """Join the group that ``torchrun`` describes in the environment, if it does; a GPU each where there are GPUs.

    A group that this process is in, as Ray Train's workers are, is taken as it is.
    """
    rank, count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    joins = "WORLD_SIZE" in os.environ and not dist.is_initialized()
    if joins:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(rank, count, device)
    finally:
        if joins:
            gc.collect()  # a wrapped network holds the group, whose threads would abort at exit
            dist.destroy_process_group()
