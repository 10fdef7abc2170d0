"""One server of a pool: its health, and requests to it."""

import asyncio
import random
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from crosseai.client.servers.transport import ServedModel, TritonTransport
from crosseai.contract import AccessRefused, ContractError, InferenceTimeout, ServerError, ServerUnavailable

FIRST_RETRY_S = 0.25
LAST_RETRY_S = 10.0

_EVERYTHING = ("logits", "explained", "heatmaps", "gradient_maps")

Tensors: TypeAlias = dict[str, npt.NDArray[Any]]
Result = TypeVar("Result")


class Request(NamedTuple):
    """One batch for the model; see :meth:`TritonTransport.infer`."""

    images: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.int64]
    outputs: tuple[str, ...]

    @property
    def kind(self) -> tuple[int, tuple[str, ...]]:
        """What its duration depends on most: maps an image, and outputs."""
        return self.targets.shape[1], self.outputs


@dataclass(slots=True, eq=False)
class Member:
    """One server and what is known of its health.

    Parameters
    ----------
    transport
        The connection.
    outstanding
        Requests under way.
    outrun
        Those of them whose answer came from another server first.
    failures
        Failures since the last answer.
    retry_at
        When a sick server may be asked again, on the monotonic clock.
    verified
        Whether it is known to serve the pool's model.
    """

    transport: TritonTransport
    outstanding: set["asyncio.Task[Any]"] = field(default_factory=set)
    outrun: set["asyncio.Task[Any]"] = field(default_factory=set)
    failures: int = 0
    retry_at: float = 0.0
    verified: bool = False

    def may_be_asked(self) -> bool:
        """One that was outrun must answer first; a sick one gets one request at a time, and none before its time."""
        if self.outrun:
            return False
        return not self.failures or (not self.outstanding and time.monotonic() >= self.retry_at)

    def start(self, request: Coroutine[Any, Any, Result]) -> "asyncio.Task[Result]":
        """Begin a request, which goes on when nobody waits for it any more."""
        task = asyncio.ensure_future(request)
        self.outstanding.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self.outstanding.discard(task)
        self.outrun.discard(task)
        if not task.cancelled():
            task.exception()  # of an answer that nobody waits for, nobody wants to hear

    def failed(self) -> None:
        """Ask no more for a while: twice as long after each failure, with jitter."""
        if time.monotonic() < self.retry_at:
            return  # a request from before the last failure
        self.failures += 1
        self.verified = False
        delay = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** (self.failures - 1))
        self.retry_at = time.monotonic() + delay * random.uniform(0.5, 1.0)

    async def infer(self, model: ServedModel, request: Request) -> Tensors:
        """Ask for the answer to a request.

        Raises
        ------
        ServerUnavailable, InferenceTimeout
            If the server went away, was too slow, or refuses even a blank image.
        ServerError
            If it refuses these images.
        """
        try:
            return await self.transport.infer(model, *request)
        except (ServerUnavailable, InferenceTimeout, AccessRefused):
            raise
        except ServerError:
            side = model.spec.input_size
            blank = np.zeros((1, 1, side, side), np.uint8)
            with _sick_if_refused("cannot score a blank image"):
                await self.transport.infer(model, blank, np.full((1, 1), -1), _EVERYTHING)
            raise

    async def verify(self, expected: ServedModel) -> None:
        """Check that the server, new or restarted perhaps, serves this very model.

        Raises
        ------
        ContractError
            If it serves another one.
        """
        with _sick_if_refused("cannot describe its model"):
            found = await self.transport.describe(expected.spec.name, expected.version)
        if (found.sha256, found.spec) != (expected.sha256, expected.spec):
            raise ContractError(
                f"{self.transport.address}: expected model {expected.spec.name!r} version {expected.version} with "
                f"SHA-256 {expected.sha256} as the run began with, found {found.sha256}"
            )
        self.verified = True


@contextmanager
def _sick_if_refused(what: str) -> Iterator[None]:
    """A server that refuses what every server can do is as good as absent, and no image is to blame."""
    try:
        yield
    except (ServerUnavailable, InferenceTimeout, AccessRefused):
        raise
    except ServerError as error:
        raise ServerUnavailable(f"the server {what}: {error}") from error
