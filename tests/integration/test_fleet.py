"""Servers behind one name, slow ones and dead ones among them; each of them the real Triton."""

import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import tritonclient.grpc

from crosseai.client import score_directory
from crosseai.client.servers import fleet
from crosseai.client.servers.credentials import Credentials
from crosseai.client.servers.pool import ServerPool
from crosseai.contract import ServerUnavailable
from crosseai.serve.embedded import EmbeddedTriton
from crosseai.serve.repository import place_version
from tests.certificates import Certificates
from tests.integration.test_nothing_lost import rows, write_images
from tests.integration.test_servers import TOKEN, RunInThread, gateway, triton_process
from tests.tiny_model import write_tiny_model

COUNT = 1000
OPTIONS = {"explain": "top:1"}
NAME = "triton.example"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Requests are full with two images, and never merged: results are the same to the last bit."""
    repository = tmp_path_factory.mktemp("models")
    place_version(repository, write_tiny_model(tmp_path_factory.mktemp("model")), 1)
    config = repository / "crosseai" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 8", "max_batch_size: 2"))
    return repository


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), COUNT)


@pytest.fixture(scope="module")
def expected(models: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """Rows of an undisturbed run on one server."""
    output = tmp_path_factory.mktemp("expected")
    with EmbeddedTriton(models) as server:
        score_directory(images, output, server=server.grpc_url, **OPTIONS)
    return rows(output)


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What DNS answers for ``NAME``; other names are resolved as ever."""
    answers: list[str] = []
    resolver = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *arguments: object, **options: object) -> list:
        if host != NAME:
            return resolver(host, port, *arguments, **options)
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answers]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(fleet, "RESOLVE_S", 0.05)
    return answers


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[ServerPool]:
    """The pools that runs make."""
    made: list[ServerPool] = []
    connect = ServerPool.connect

    async def remember(*arguments: object, **options: object) -> ServerPool:
        made.append(await connect(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(ServerPool, "connect", remember)
    return made


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def answered(server: EmbeddedTriton) -> int:
    """Images that a server has scored."""
    with tritonclient.grpc.InferenceServerClient(server.grpc_url) as client:
        return int(client.get_inference_statistics("crosseai", "1").model_stats[0].inference_count)


def model_process(server: EmbeddedTriton) -> psutil.Process:
    """The one that runs the model."""
    (process,) = (p for p in triton_process(server).children() if "stub" in p.name())
    return process


def test_servers_come_and_go_behind_a_name(
    models: Path,
    images: Path,
    expected: list,
    addresses: list[str],
    pools: list[ServerPool],
    tmp_path: Path,
    unused_port: int,
) -> None:
    run = RunInThread(images, tmp_path / "out", f"dns:///{NAME}:{unused_port}", **OPTIONS)
    with (
        EmbeddedTriton(models, grpc_port=unused_port) as first,
        EmbeddedTriton(models, host="127.0.0.2", grpc_port=unused_port) as second,
    ):
        before = answered(second)
        addresses.append("127.0.0.1")
        run.wait_for_the_middle()
        assert answered(second) == before
        addresses.append("127.0.0.2")
        wait_until(lambda: answered(second) > before)
        assert pools[0].healthy == (2, 2)
        addresses.remove("127.0.0.1")
        wait_until(lambda: pools[0].healthy == (1, 1))
        triton_process(first).kill()
        addresses.clear()  # DNS is down, and what was known holds
        assert run.summary().counts.scored == COUNT
    assert rows(tmp_path / "out") == expected
    assert all(progress.servers_up for progress in run.seen), "no request went to the one that had left"


def test_a_name_without_addresses(images: Path, addresses: list[str], tmp_path: Path) -> None:
    with pytest.raises(ServerUnavailable, match=f"{NAME}: expected a DNS name with addresses"):
        score_directory(images, tmp_path / "out", server=f"dns:///{NAME}:8001", wait_s=0.1)


def test_the_certificate_is_for_the_name(tiny_server: str, addresses: list[str], tmp_path: Path) -> None:
    """The address alone would do: the certificate is for 127.0.0.1, too."""
    certificates, few = Certificates(tmp_path), write_images(tmp_path / "images", 2)
    credentials = Credentials(
        ca=certificates.ca, certificate=certificates.client, key=certificates.client_key, token=TOKEN
    )
    addresses.append("127.0.0.1")
    with gateway(tiny_server, certificates) as address:
        port = address.rpartition(":")[2]
        summary = score_directory(few, tmp_path / "out", server=f"dns:///{NAME}:{port}", credentials=credentials)
        assert summary.counts.scored == 2
        with pytest.raises(ServerUnavailable):
            score_directory(few, tmp_path / "no", server=f"dns:///localhost:{port}", credentials=credentials, wait_s=0)


def test_one_of_three_servers_is_slow_and_one_dies(
    models: Path, images: Path, expected: list, pools: list[ServerPool], tmp_path: Path
) -> None:
    with contextlib.ExitStack() as running:
        servers = [running.enter_context(EmbeddedTriton(models)) for _ in range(3)]
        run = RunInThread(images, tmp_path / "out", ",".join(server.grpc_url for server in servers), **OPTIONS)
        run.wait_for_the_middle()
        slow = model_process(servers[1])
        slow.suspend()
        wait_until(lambda: pools[0].hedging.hedges > 0)
        triton_process(servers[2]).kill()
        wait_until(lambda: run.seen[-1].servers_up < 3)
        slow.resume()
        assert run.summary().counts.scored == COUNT
    assert rows(tmp_path / "out") == expected
    hedging = pools[0].hedging
    assert 0 < hedging.hedges <= 0.05 * hedging.requests
