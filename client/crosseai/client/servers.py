"""Several servers of one model, used as one that does not go away easily."""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from crosseai.client.meter import Meter
from crosseai.client.transport import ServedModel, ServerStatistics, TritonTransport
from crosseai.contract import AccessRefused, ContractError, InferenceTimeout, ModelSpec, ServerError, ServerUnavailable

FIRST_RETRY_S = 0.25
LAST_RETRY_S = 10.0
POLL_S = 0.05

_EVERYTHING = ("logits", "explained", "heatmaps", "gradient_maps")


@dataclass(slots=True, eq=False)
class _Server:
    """One server and what is known of its health."""

    transport: TritonTransport
    outstanding: int = 0
    failures: int = 0
    retry_at: float = 0.0
    verified: bool = False

    def may_be_asked(self) -> bool:
        """A sick server gets one request at a time, and none before its time."""
        return not self.failures or (self.outstanding == 0 and time.monotonic() >= self.retry_at)

    def failed(self) -> None:
        """Ask no more for a while: twice as long after each failure, with jitter."""
        if time.monotonic() < self.retry_at:
            return  # a request from before the last failure
        self.failures += 1
        self.verified = False
        delay = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** (self.failures - 1))
        self.retry_at = time.monotonic() + delay * random.uniform(0.5, 1.0)


class ServerPool:
    """Balances requests over servers by load, and asks again elsewhere or later what a server could not answer.

    Each request goes to the server with the fewest requests outstanding. A server that cannot be reached, is too
    slow, or refuses even a blank image is left alone for a while, and must then prove to serve the same model still.
    When no server has answered for ``wait_s``, the error of the last one is raised.

    Make it with :meth:`connect` inside a running event loop, and use ``async with`` to close it.

    Attributes
    ----------
    model
        The model, the same on every server.
    slots
        Free places for requests; a release more than taken makes one more.
    """

    def __init__(
        self, transports: Sequence[TritonTransport], *, wait_s: float, in_flight: int, meter: Meter | None = None
    ) -> None:
        self._servers = [_Server(transport) for transport in transports]
        self._wait_s = wait_s
        self._meter = meter or Meter()
        self._down_since: float | None = None
        self._model: ServedModel | None = None
        self._requested_version: str | None = None
        self.slots = asyncio.Semaphore(in_flight * len(transports))

    @classmethod
    async def connect(
        cls,
        transports: Sequence[TritonTransport],
        *,
        model: str = "crosseai",
        version: str | None = None,
        wait_s: float = 60.0,
        in_flight: int = 2,
        meter: Meter | None = None,
    ) -> Self:
        """Find out which model the servers serve; one that answers is enough.

        Parameters
        ----------
        transports
            Connections to the servers; the pool closes them.
        model
            Model name.
        version
            Model version; None for the newest one that is loaded.
        wait_s
            How long no server may answer before the pool gives up, in seconds.
        in_flight
            Requests under way at a time, for each server.
        meter
            Gets the times of requests.

        Raises
        ------
        ServerUnavailable, InferenceTimeout, AccessRefused
            If no server answers.
        ContractError
            If the model is not one of ours, or differs from its own spec.
        """
        self = cls(transports, wait_s=wait_s, in_flight=in_flight, meter=meter)
        try:
            while self._model is None:
                server = await self._next_server()
                try:
                    self._model = await server.transport.describe(model, version)
                    server.verified = True
                except (ServerUnavailable, InferenceTimeout) as error:
                    self._failed(server, error)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        for server in self._servers:
            await server.transport.close()

    @property
    def model(self) -> ServedModel:
        """The model, the same on every server."""
        if self._model is None:
            raise ServerUnavailable("expected a pool made by ServerPool.connect")
        return self._model

    @property
    def spec(self) -> ModelSpec:
        """The model's spec."""
        return self.model.spec

    @property
    def healthy(self) -> tuple[int, int]:
        """Servers that answered last time, and all."""
        return sum(not server.failures for server in self._servers), len(self._servers)

    async def infer(
        self, images: npt.NDArray[np.uint8], targets: npt.NDArray[np.int64], outputs: Sequence[str]
    ) -> dict[str, npt.NDArray[Any]]:
        """Run the model on one batch; parameters and result as in :meth:`TritonTransport.infer`.

        Raises
        ------
        ServerUnavailable, InferenceTimeout
            If no server answers any more.
        ServerError
            If a server that scores a blank image refuses these.
        ContractError
            If a server serves another model than the one that the pool began with.
        """
        with self._meter.clock("wait"):
            await self.slots.acquire()
        try:
            while True:
                server = await self._next_server()
                server.outstanding += 1
                try:
                    return await self._infer_on(server, images, targets, outputs)
                except (ServerUnavailable, InferenceTimeout) as error:
                    self._failed(server, error)
                finally:
                    server.outstanding -= 1
        finally:
            self.slots.release()

    async def statistics(self) -> ServerStatistics:
        """What all servers that answer have done for the model; a server that does not counts as nothing."""
        answers = await asyncio.gather(
            *(server.transport.statistics(self.model) for server in self._servers if not server.failures),
            return_exceptions=True,
        )
        known = [answer for answer in answers if isinstance(answer, ServerStatistics)]
        return ServerStatistics(sum(s.queue_s for s in known), sum(s.compute_s for s in known))

    async def _infer_on(
        self,
        server: _Server,
        images: npt.NDArray[np.uint8],
        targets: npt.NDArray[np.int64],
        outputs: Sequence[str],
    ) -> dict[str, npt.NDArray[Any]]:
        if not server.verified:
            with _sick_if_refused("cannot describe its model"):
                await self._verify(server)
        try:
            with self._meter.clock("request"):
                tensors = await server.transport.infer(self.model, images, targets, outputs)
        except (ServerUnavailable, InferenceTimeout, AccessRefused):
            raise
        except ServerError:
            with _sick_if_refused("cannot score a blank image"):
                await self._infer_blank(server)
            raise
        server.failures, self._down_since = 0, None
        return tensors

    async def _next_server(self) -> _Server:
        """The least loaded server that may be asked, as soon as there is one."""
        while True:
            candidates = [server for server in self._servers if server.may_be_asked()]
            if candidates:
                return min(candidates, key=lambda server: (server.outstanding, random.random()))
            await asyncio.sleep(POLL_S)

    async def _verify(self, server: _Server) -> None:
        """Check that a server, restarted perhaps, serves this very model."""
        expected = self.model
        found = await server.transport.describe(expected.spec.name, expected.version)
        if (found.sha256, found.spec) != (expected.sha256, expected.spec):
            raise ContractError(
                f"{server.transport.address}: expected model {expected.spec.name!r} version {expected.version} with "
                f"SHA-256 {expected.sha256} as the run began with, found {found.sha256}"
            )
        server.verified = True

    async def _infer_blank(self, server: _Server) -> None:
        side = self.spec.input_size
        blank = np.zeros((1, 1, side, side), np.uint8)
        await server.transport.infer(self.model, blank, np.full((1, 1), -1), _EVERYTHING)

    def _failed(self, server: _Server, error: ServerError) -> None:
        """Leave a server alone for a while; raise its error when none has answered for too long."""
        server.failed()
        now = time.monotonic()
        if all(other.failures for other in self._servers):
            self._down_since = now if self._down_since is None else self._down_since
            if now - self._down_since >= self._wait_s:
                raise error


@contextmanager
def _sick_if_refused(what: str) -> Iterator[None]:
    """A server that refuses what every server can do is as good as absent, and no image is to blame."""
    try:
        yield
    except (ServerUnavailable, InferenceTimeout, AccessRefused):
        raise
    except ServerError as error:
        raise ServerUnavailable(f"the server {what}: {error}") from error
