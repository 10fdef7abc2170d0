"""Images in shared memory: the same answers as without, and nothing stays behind, against the real embedded Triton."""

import asyncio
import logging
import os
import signal
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.grpc
from tritonclient.grpc import InferResult
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from crosseai.client import score_directory
from crosseai.client.servers import shared_memory, transport
from crosseai.client.servers.transport import ServedModel, TritonTransport
from crosseai.contract import ServerError, ServerUnavailable, TensorSpec
from crosseai.serve.embedded import EmbeddedTriton
from crosseai.serve.repository import place_version
from tests.eventually import eventually
from tests.integration.test_nothing_lost import RUN, TABLES, write_images
from tests.tiny_model import write_tiny_model

OUTPUTS = ("logits", "explained", "heatmaps", "gradient_maps")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("models")
    place_version(repository, write_tiny_model(tmp_path_factory.mktemp("model")), 1)
    return repository


@pytest.fixture(scope="module")
def tiny_server(models: Path) -> Iterator[str]:
    """One that nobody else registers regions with."""
    with EmbeddedTriton(models) as server:
        yield server.grpc_url


def registered(server: str) -> set[str]:
    """Names of the regions that a server has mapped."""
    with tritonclient.grpc.InferenceServerClient(server) as client:
        return set(client.get_system_shared_memory_status().regions)


def names() -> list[Path]:
    """What is visible of our regions on this machine."""
    return list(Path("/dev/shm").glob("crosseai-images-*"))


class Asking:
    """A connection, and requests of noise over it."""

    def __init__(self, connection: TritonTransport, model: ServedModel) -> None:
        self.connection, self._model = connection, model

    async def ask(self, images: int = 8) -> list[np.ndarray]:
        """What the model says of the first few images, always the same ones."""
        side = self._model.spec.input_size
        noise = np.random.default_rng(0).integers(0, 256, (images, 1, side, side), np.uint8)
        answer = await self.connection.infer(self._model, noise, np.full((images, 1), -1), OUTPUTS)
        return [answer[name] for name in OUTPUTS]

    async def several(self, count: int) -> list[list[np.ndarray]]:
        """The same at once."""
        return await asyncio.gather(*(self.ask() for _ in range(count)))


@asynccontextmanager
async def connected(server: str) -> AsyncIterator[Asking]:
    connection = TritonTransport(server)
    try:
        yield Asking(connection, await connection.describe())
    finally:
        await connection.close()


async def reconnected(connection: TritonTransport) -> None:
    """Wait until gRPC tries to connect again."""
    for _ in range(100):
        with suppress(ServerUnavailable):
            return await connection.check()
        await asyncio.sleep(0.1)
    raise TimeoutError("not connected again within 10 s")


def same(answers: list[list[np.ndarray]], expected: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for answer in answers for a, b in zip(answer, expected, strict=True))


@pytest.fixture
def expected(tiny_server: str) -> list[np.ndarray]:
    """The answer without shared memory."""

    async def ask() -> list[np.ndarray]:
        async with connected(tiny_server) as client:
            answer = await client.ask()
            assert not registered(tiny_server)
            return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport, "is_loopback", lambda _: False)
        return asyncio.run(ask())


def test_answers_are_the_same_and_regions_serve_again(tiny_server: str, expected: list[np.ndarray]) -> None:
    async def use() -> None:
        async with connected(tiny_server) as client:
            for _ in range(10):
                assert same(await client.several(3), expected)
            assert len(registered(tiny_server)) == 3
            assert same([await client.ask(5)], [tensor[:5] for tensor in expected])
            assert len(registered(tiny_server)) == 3
            assert not names()

    asyncio.run(use())
    assert not registered(tiny_server)


def test_whole_runs_are_the_same(tiny_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_images(tmp_path / "images", 100)
    score_directory(images, tmp_path / "shared", server=tiny_server)
    monkeypatch.setattr(transport, "is_loopback", lambda _: False)
    score_directory(images, tmp_path / "plain", server=tiny_server)
    for table in TABLES:
        assert (tmp_path / "shared" / table).read_bytes() == (tmp_path / "plain" / table).read_bytes(), table
    assert not registered(tiny_server)


def test_a_refused_request_costs_no_region(tiny_server: str) -> None:
    async def use() -> None:
        async with connected(tiny_server) as client:
            for _ in range(3):
                with pytest.raises(ServerError, match="batch-size must be <= 8"):
                    await client.ask(9)
                await client.ask(8)
            assert len(registered(tiny_server)) == 1

    asyncio.run(use())


def test_a_server_that_is_killed_and_started_again(models: Path, unused_port: int, expected: list[np.ndarray]) -> None:
    """It knows no region any more: the next request is made again without one, and those after it have new ones."""

    async def use() -> None:
        with EmbeddedTriton(models, grpc_port=unused_port) as server:
            address, connection = server.grpc_url, TritonTransport(server.grpc_url)
            client = Asking(connection, await connection.describe())
            assert same(await client.several(3), expected)
            before = registered(address)
            assert len(before) == 3
            (triton,) = (p for p in psutil.Process(server.pid).children() if p.name() == "tritonserver")
            triton.kill()
            with pytest.raises(ServerUnavailable):
                await client.ask()
            with pytest.raises(ServerUnavailable):
                await client.ask(9)  # which needs a new region
        with EmbeddedTriton(models, grpc_port=unused_port):
            await reconnected(connection)
            for _ in range(4):
                assert same([await client.ask()], expected)
            assert len(registered(address)) == 1
            assert not registered(address) & before
            await connection.close()
            assert not registered(address)

    asyncio.run(use())
    assert not names()


def test_what_a_killed_client_registered_is_removed_by_the_next(tiny_server: str, tmp_path: Path) -> None:
    images, journal = write_images(tmp_path / "images", 1000), tmp_path / "out/.journal"
    command = [*map(str, (*RUN, images, "--server", tiny_server, "--output", tmp_path / "out"))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        eventually(lambda: client.poll() is not None or any(journal.glob("*.jsonl")))
        client.kill()
    assert client.returncode == -signal.SIGKILL
    assert not names()
    assert registered(tiny_server)

    async def use() -> None:
        async with connected(tiny_server) as one, connected(tiny_server) as other:
            await one.ask()
            assert len(registered(tiny_server)) == 1
            await other.ask()
            assert len(registered(tiny_server)) == 2, "those of a client that lives stay"

    asyncio.run(use())
    assert not registered(tiny_server)


def test_names_that_killed_clients_left_are_removed(
    tiny_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    prefix, boot = shared_memory._prefix(), Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    abandoned, mine = tmp_path / f"{prefix}{ended.pid}-0", tmp_path / f"{prefix}{os.getpid()}-0"
    elsewhere = tmp_path / abandoned.name.replace(boot, str(uuid.uuid4()))
    for path in (abandoned, mine, elsewhere):
        path.touch()
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path)

    async def use() -> None:
        async with connected(tiny_server) as client:
            await client.ask()

    asyncio.run(use())
    assert set(tmp_path.iterdir()) == {mine, elsewhere}


def test_regions_of_unanswered_requests_are_let_go_at_the_end(tiny_server: str) -> None:
    images = np.zeros((1, 1, 8, 8), np.uint8)

    async def late(_: object) -> InferResult:
        raise InferenceServerException("too late", "StatusCode.DEADLINE_EXCEEDED")

    async def use() -> None:
        async with InferenceServerClient(tiny_server) as client:
            shared = shared_memory.SharedImages(client, None, local=True)
            for count in (1, 2):
                with pytest.raises(InferenceServerException, match="too late"):
                    await shared.send(TensorSpec("images", "uint8", (-1, 1, 8, 8)), images, late)
                assert len(registered(tiny_server)) == count, "the server may read it yet"
            await shared.close()

    asyncio.run(use())
    assert not registered(tiny_server)


def test_a_server_that_hangs_is_asked_once_to_let_go(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "_CALL_TIMEOUT_S", 0.5)
    unregister, asked = InferenceServerClient.unregister_system_shared_memory, []

    async def counted(client: InferenceServerClient, name: str, **options: object) -> None:
        asked.append(name)
        await unregister(client, name, **options)

    monkeypatch.setattr(InferenceServerClient, "unregister_system_shared_memory", counted)

    async def use() -> None:
        with EmbeddedTriton(models) as server:
            (triton,) = (p for p in psutil.Process(server.pid).children() if p.name() == "tritonserver")
            async with connected(server.grpc_url) as client:
                await client.several(3)
                triton.suspend()
            triton.resume()

    asyncio.run(use())
    assert len(asked) == len(set(asked)) == 3


@pytest.mark.parametrize("obstacle", ["this machine has none", "the server sees another", "the server allows none"])
def test_without_shared_memory_images_travel_in_the_request(
    obstacle: str,
    models: Path,
    tiny_server: str,
    expected: list[np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, shared_memory.__name__)

    async def use(server: str) -> None:
        async with connected(server) as client:
            assert same(await client.several(3), expected)
            assert "without shared memory" in caplog.text
            caplog.clear()
            assert same(await client.several(3), expected)
            assert "shared memory" not in caplog.text, "the server was asked again"

    if obstacle == "the server allows none":
        with EmbeddedTriton(models, host="0.0.0.0") as exposed:  # noqa: S104 - for the time of the test
            asyncio.run(use(exposed.grpc_url))
    else:
        folder = tmp_path if obstacle == "the server sees another" else tmp_path / "nonexistent"
        monkeypatch.setattr(shared_memory, "FOLDER", folder)
        asyncio.run(use(tiny_server))
        assert not registered(tiny_server)
        assert not list(tmp_path.iterdir())
