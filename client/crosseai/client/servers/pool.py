"""Several servers of one model, used as one that does not go away easily."""

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from crosseai.client.flow import Places
from crosseai.client.meter import Meter
from crosseai.client.servers.hedging import Hedging
from crosseai.client.servers.member import Member, Request, Tensors
from crosseai.client.servers.transport import ServedModel, ServerStatistics, TritonTransport
from crosseai.contract import InferenceTimeout, ModelSpec, ServerError, ServerUnavailable

POLL_S = 0.05


class ServerPool:
    """Balances requests over servers by load, and asks again elsewhere or later what a server could not answer.

    Each request goes to the server with the fewest requests outstanding. A server that cannot be reached, is too
    slow, or refuses even a blank image is left alone for a while, and must then prove to serve the same model still.
    When no server has answered for ``wait_s``, the error of the last one is raised. A request that takes far longer
    than others do is sent to one more server, and the first answer is the answer
    (:mod:`crosseai.client.servers.hedging`).

    Make it with :meth:`connect` inside a running event loop, and use ``async with`` to close it.

    Attributes
    ----------
    model
        The model, the same on every server.
    slots
        Places for requests; their number follows that of the servers.
    hedging
        Counts requests, and those that were sent again.
    """

    def __init__(
        self, transports: Sequence[TritonTransport], *, wait_s: float, in_flight: int, meter: Meter | None = None
    ) -> None:
        self._members = [Member(transport) for transport in transports]
        self._former: list[Member] = []
        self._wait_s = wait_s
        self._meter = meter or Meter()
        self._down_since: float | None = None
        self._model: ServedModel | None = None
        self.slots = Places(in_flight * len(transports))
        self.hedging = Hedging()

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
            Model version; None for the champion, or the newest one that is loaded.
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
                member = await self._next_member()
                try:
                    self._model = await member.transport.describe(model, version)
                    member.verified = True
                except (ServerUnavailable, InferenceTimeout) as error:
                    self._failed(member, error)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; what nobody waits for any more has some seconds to end."""
        members = [*self._members, *self._former]
        await asyncio.gather(*(member.transport.close() for member in members))
        requests = [request for member in members for request in member.outstanding]
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)

    def join(self, transport: TritonTransport) -> None:
        """Use one more server, once it has proved to serve the same model; the pool closes the connection."""
        self._members.append(Member(transport))
        self._resize(len(self._members) - 1)

    def leave(self, transport: TritonTransport) -> None:
        """Send a server no further requests; those under way are still waited for."""
        (member,) = (member for member in self._members if member.transport is transport)
        self._members.remove(member)
        self._former.append(member)
        self._resize(len(self._members) + 1)

    def _resize(self, servers_before: int) -> None:
        self.slots.resize(self.slots.size * len(self._members) // servers_before)

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
        return sum(not member.failures for member in self._members), len(self._members)

    async def infer(
        self, images: npt.NDArray[np.uint8], targets: npt.NDArray[np.int64], outputs: Sequence[str]
    ) -> Tensors:
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
        request = Request(images, targets, tuple(outputs))
        with self._meter.clock("wait"):
            await self.slots.acquire()
        try:
            while (answer := await self._first_answer(request)) is None:
                pass
        finally:
            self.slots.release()
        return answer

    async def statistics(self) -> dict[str, ServerStatistics]:
        """What each server that answers has done for the model, by address."""
        members = [member for member in self._members if not member.failures]
        answers = await asyncio.gather(
            *(member.transport.statistics(self.model) for member in members), return_exceptions=True
        )
        return {
            member.transport.address: answer
            for member, answer in zip(members, answers, strict=True)
            if isinstance(answer, ServerStatistics)
        }

    async def _first_answer(self, request: Request) -> Tensors | None:
        """The answer of a server or, where that takes too long, of one more; None if none of them could answer."""
        patience_s = self.hedging.begin(request.kind)
        first = await self._next_member()
        race = {first.start(self._answer(first, request)): first}
        try:
            done, _ = await asyncio.wait(race, timeout=patience_s)
            if not done and (second := self._least_loaded(healthy_but=first)) is not None and self.hedging.spend():
                race[second.start(self._answer(second, request))] = second
            for attempt in asyncio.as_completed(race):
                if (answer := await attempt) is not None:
                    return answer
            return None
        finally:
            for task, member in race.items():
                if not task.done():
                    member.outrun.add(task)

    async def _answer(self, member: Member, request: Request) -> Tensors | None:
        """The answer of one server; None if it could not give one, and is to be left alone."""
        try:
            if not member.verified:
                await member.verify(self.model)
            began = time.monotonic()
            with self._meter.clock("request"):
                answer = await member.infer(self.model, request)
        except (ServerUnavailable, InferenceTimeout) as error:
            self._failed(member, error)
            return None
        self.hedging.took(request.kind, time.monotonic() - began)
        member.failures, self._down_since = 0, None
        return answer

    async def _next_member(self) -> Member:
        """The least loaded server that may be asked, as soon as there is one."""
        while (member := self._least_loaded()) is None:
            await asyncio.sleep(POLL_S)
        return member

    def _least_loaded(self, healthy_but: Member | None = None) -> Member | None:
        """The least loaded server that may be asked; on demand a healthy one, and not this one."""
        candidates = [member for member in self._members if member.may_be_asked()]
        if healthy_but is not None:
            candidates = [member for member in candidates if member is not healthy_but and not member.failures]
        return min(candidates, key=lambda member: (len(member.outstanding), random.random()), default=None)

    def _failed(self, member: Member, error: ServerError) -> None:
        """Leave a server alone for a while; raise its error when none has answered for too long."""
        member.failed()
        now = time.monotonic()
        if all(other.failures for other in self._members):
            self._down_since = now if self._down_since is None else self._down_since
            if now - self._down_since >= self._wait_s:
                raise error
