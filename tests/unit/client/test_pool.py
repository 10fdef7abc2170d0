"""Balancing, ejection, hedging and giving up, with transports that compute nothing."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from crosseai.client.servers import hedging, member
from crosseai.client.servers import pool as module
from crosseai.client.servers.pool import ServerPool
from crosseai.client.servers.transport import ServedModel, ServerStatistics
from crosseai.contract import (
    AccessRefused,
    ContractError,
    InferenceTimeout,
    ModelSpec,
    ServerError,
    ServerUnavailable,
)

SPEC = ModelSpec(input_size=16, feature_shape=(4, 2, 2))
IMAGE, TARGET = np.full((1, 1, 16, 16), 7, np.uint8), np.full((1, 1), -1)


@pytest.fixture(autouse=True)
def short_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member, "FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(member, "LAST_RETRY_S", 0.05)
    monkeypatch.setattr(module, "POLL_S", 0.002)


@pytest.fixture
def unhedged(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request is sent again, which those that a busy machine holds up would be."""
    monkeypatch.setattr(hedging, "BUDGET", 0)


class FakeTransport:
    """Fails with ``error`` while there is one; ``refuses`` images of this gray; takes ``seconds``."""

    def __init__(self, name: str = "a:1", *, error: ServerError | None = None, sha256: str = "f" * 64) -> None:
        self.address = name
        self.error = error
        self.sha256 = sha256
        self.refuses: int | None = None
        self.seconds = 0.001
        self.calls = self.outstanding = self.peak = self.closed = 0

    async def describe(self, model: str, version: str | None = None) -> ServedModel:
        if self.error:
            raise self.error
        return ServedModel(SPEC, version or "7", self.sha256, max_batch_size=8)

    async def infer(
        self, model: ServedModel, images: np.ndarray, targets: np.ndarray, outputs: Sequence[str]
    ) -> dict[str, Any]:
        self.calls += 1
        self.outstanding += 1
        self.peak = max(self.peak, self.outstanding)
        await asyncio.sleep(self.seconds)
        self.outstanding -= 1
        if self.error:
            raise self.error
        if images[0, 0, 0, 0] == self.refuses:
            raise ServerError("refused")
        return {"logits": np.zeros((len(images), 8), np.float32)}

    async def statistics(self, model: ServedModel) -> ServerStatistics:
        return ServerStatistics(1.0, 2.0)

    async def close(self) -> None:
        self.closed += 1


def ask(*transports: FakeTransport, requests: int = 1, during: dict | None = None, wait_s: float = 0.2, **options):
    """Results of so many requests at once; ``during[n]`` is called when n of them are done."""

    async def run() -> list:
        async with await ServerPool.connect(transports, wait_s=wait_s, **options) as pool:
            done = 0

            async def one() -> Any:
                nonlocal done
                result = await pool.infer(IMAGE, TARGET, ["logits"])
                done += 1
                (during or {}).get(done, lambda: None)()
                return result

            return await asyncio.gather(*(one() for _ in range(requests)))

    return asyncio.run(run())


def test_requests_go_to_the_least_loaded_server(unhedged: None) -> None:
    a, b = FakeTransport(), FakeTransport("b:1")
    assert len(ask(a, b, requests=40, in_flight=3)) == 40
    assert a.calls + b.calls == 40
    assert (a.peak, b.peak) == (3, 3)
    assert min(a.calls, b.calls) >= 10
    assert (a.closed, b.closed) == (1, 1)


@pytest.mark.parametrize("error", [ServerUnavailable("gone"), InferenceTimeout("slow")])
def test_a_dead_server_is_asked_now_and_then_and_a_live_one_does_the_work(error: ServerError) -> None:
    a, b = FakeTransport(), FakeTransport("b:1", error=error)
    assert len(ask(a, b, requests=100, in_flight=2)) == 100
    assert a.calls == 100
    assert b.calls == 0, "it must say which model it serves first"


def test_a_server_that_comes_back_is_used_again() -> None:
    a, b = FakeTransport(), FakeTransport("b:1")
    dies = {5: lambda: setattr(b, "error", ServerUnavailable("gone")), 50: lambda: setattr(b, "error", None)}
    assert len(ask(a, b, requests=300, during=dies)) == 300
    assert a.calls > b.calls > 20


def test_no_server_for_a_while_is_waited_for() -> None:
    a = FakeTransport()
    loop_time = []

    def die() -> None:
        a.error = ServerUnavailable("gone")
        asyncio.get_running_loop().call_later(0.1, setattr, a, "error", None)
        loop_time.append(time.monotonic())

    assert len(ask(a, requests=20, during={5: die}, wait_s=10)) == 20
    assert time.monotonic() - loop_time[0] >= 0.1


@pytest.mark.parametrize("dies_after", [0, 5])
def test_giving_up_says_why(dies_after: int) -> None:
    a, b = FakeTransport(), FakeTransport("b:1")

    def die() -> None:
        a.error, b.error = ServerUnavailable("a is gone"), ServerUnavailable("b is gone")

    if not dies_after:
        die()
    with pytest.raises(ServerUnavailable, match="is gone"):
        ask(a, b, requests=20, during={dies_after: die})
    assert (a.closed, b.closed) == (1, 1)


def test_another_model_after_a_restart_is_noticed() -> None:
    a = FakeTransport()

    def restart() -> None:
        a.error, a.sha256 = ServerUnavailable("gone"), "0" * 64
        asyncio.get_running_loop().call_later(0.02, setattr, a, "error", None)

    with pytest.raises(ContractError, match=r"SHA-256 f+ as the run began with, found 0+"):
        ask(a, requests=20, during={5: restart}, wait_s=10)


def test_another_model_on_another_server_is_noticed() -> None:
    with pytest.raises(ContractError, match=r"[ab]:1.*as the run began with"):
        ask(FakeTransport(), FakeTransport("b:1", sha256="0" * 64), requests=20, version="7", in_flight=4)


def test_refused_credentials_are_not_tried_again() -> None:
    a = FakeTransport()
    with pytest.raises(AccessRefused):
        ask(a, requests=3, during={1: lambda: setattr(a, "error", AccessRefused("no"))}, in_flight=1)
    assert a.calls == 3


def test_an_image_that_is_refused_is_told_from_a_sick_server() -> None:
    a, b = FakeTransport(), FakeTransport("b:1")
    a.refuses = b.refuses = 7
    with pytest.raises(ServerError, match="refused") as refusal:
        ask(a, b)
    assert type(refusal.value) is ServerError
    a.refuses = b.refuses = None
    sick = {1: lambda: setattr(b, "error", ServerError("the model process is not healthy"))}
    assert len(ask(a, b, requests=40, during=sick)) == 40
    with pytest.raises(ServerUnavailable, match=r"the server cannot.*not healthy"):
        ask(a, requests=4, during={1: lambda: setattr(a, "error", ServerError("not healthy"))})


class Stragglers:
    """Two servers, of which one gets slow; requests one after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hedging, "FACTOR", 10.0)  # a busy machine is no straggler
        self.fast, self.slow = FakeTransport(), FakeTransport("b:1")

    def run(self, requests: int, *, slow_from: int, slow_s: float, error: ServerError | None = None) -> ServerPool:
        async def ask_all() -> ServerPool:
            async with await ServerPool.connect([self.fast, self.slow], wait_s=0.2) as pool:
                for number in range(requests):
                    if number == slow_from:
                        self.slow.seconds, self.slow.error = slow_s, error
                    await asyncio.wait_for(pool.infer(IMAGE, TARGET, ["logits"]), 2)
                self.waiting = self.slow.outstanding
            return pool

        return asyncio.run(ask_all())


def test_a_straggler_is_outrun_by_another_server_and_left_alone_until_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    servers = Stragglers(monkeypatch)
    pool = servers.run(200, slow_from=100, slow_s=30)
    assert servers.waiting == 1
    assert servers.fast.calls + servers.slow.calls == 200 + pool.hedging.hedges


def test_an_outrun_server_that_has_answered_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    servers = Stragglers(monkeypatch)
    pool = servers.run(400, slow_from=100, slow_s=0.15)
    assert pool.hedging.hedges >= 2
    assert pool.hedging.hedges <= 0.05 * 400
    assert servers.fast.calls + servers.slow.calls == 400 + pool.hedging.hedges


def test_what_a_straggler_says_too_late_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    servers = Stragglers(monkeypatch)
    pool = servers.run(300, slow_from=100, slow_s=0.1, error=ServerUnavailable("gone"))
    assert pool.healthy == (1, 2)
    assert servers.fast.calls >= 200


def test_one_server_is_never_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    a, dead = FakeTransport(), FakeTransport("b:1", error=ServerUnavailable("gone"))

    async def run() -> int:
        async with await ServerPool.connect([a, dead], wait_s=0.2) as pool:
            for number in range(60):
                a.seconds = 0.1 if number == 50 else 0.001
                await pool.infer(IMAGE, TARGET, ["logits"])
            return pool.hedging.hedges

    assert asyncio.run(run()) == 0
    assert a.calls == 60


def test_servers_join_and_leave_a_pool_at_work(unhedged: None) -> None:
    a, b, c = (FakeTransport(f"{name}:1") for name in "abc")

    async def run() -> None:
        async with await ServerPool.connect([a], wait_s=0.2, in_flight=2) as pool:

            async def ask_all(requests: int) -> None:
                await asyncio.gather(*(pool.infer(IMAGE, TARGET, ["logits"]) for _ in range(requests)))

            await ask_all(10)
            pool.join(b)
            pool.join(c)
            assert pool.slots.size == 6
            await ask_all(60)
            assert min(b.calls, c.calls) >= 10
            asked = asyncio.ensure_future(ask_all(60))
            await asyncio.sleep(0)
            before = b.calls
            pool.leave(b)
            await asked
            assert b.calls - before <= 2, "those under way"
            assert pool.slots.size == 4
            assert pool.healthy == (2, 2)

    asyncio.run(run())
    assert [t.closed for t in (a, b, c)] == [1, 1, 1]
    assert a.calls + b.calls + c.calls == 130


def test_a_server_that_joins_with_another_model_ends_the_run() -> None:
    async def run() -> None:
        async with await ServerPool.connect([FakeTransport()], wait_s=0.2) as pool:
            pool.join(FakeTransport("b:1", sha256="0" * 64))
            await asyncio.gather(*(pool.infer(IMAGE, TARGET, ["logits"]) for _ in range(20)))

    with pytest.raises(ContractError, match=r"b:1.*as the run began with"):
        asyncio.run(run())
