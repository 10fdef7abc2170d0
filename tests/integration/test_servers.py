"""Servers that come late, go away, come back, hang and ask who is there; each of them the real Triton."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import cv2
import grpc
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import tritonclient.grpc
from click.testing import CliRunner

from crosseai.client import RunSummary, score_directory
from crosseai.client.cli import main
from crosseai.client.run import Progress
from crosseai.contract import ContractError, InferenceTimeout, ServerUnavailable
from crosseai.serve.embedded import EmbeddedTriton
from crosseai.serve.repository import place_version
from tests.certificates import Certificates
from tests.tiny_model import write_tiny_model

COUNT = 1200
TOKEN = "s3cret-t0ken"  # noqa: S105 - of the gateway below


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("models")
    place_version(repository, write_tiny_model(tmp_path_factory.mktemp("model")), 1)
    return repository


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough files that a run can be caught in the middle."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(COUNT):
        noise = np.random.default_rng(number % 50).integers(0, 256, (40, 48), np.uint8)
        cv2.imwrite(str(folder / f"{number:04d}.png"), noise)
    return folder


@pytest.fixture(scope="module")
def expected(images: Path, tiny_server: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """Rows of an undisturbed run."""
    output = tmp_path_factory.mktemp("expected")
    score_directory(images, output, server=tiny_server, explain="top:1")
    return rows(output)


def rows(output: Path) -> list[dict]:
    return pq.read_table(output / "predictions.parquet").to_pylist()


class RunInThread:
    """A run beside the test, which waits until it is in the middle."""

    def __init__(self, images: Path, output: Path, server: str, **options) -> None:
        self._middle = threading.Event()
        self.seen: list[Progress] = []
        options = {"explain": "top:1", "timeout_s": 20, "wait_s": 30, **options}

        def progress(progress: Progress) -> None:
            self.seen.append(progress)
            if progress.done >= 128:
                self._middle.set()

        executor = ThreadPoolExecutor(1)
        self._future: Future[RunSummary] = executor.submit(
            score_directory, images, output, server=server, progress=progress, **options
        )
        executor.shutdown(wait=False)

    def wait_for_the_middle(self) -> None:
        assert self._middle.wait(30)
        assert not self._future.done()

    def summary(self) -> RunSummary:
        return self._future.result(60)


def triton_process(server: EmbeddedTriton) -> psutil.Process:
    (process,) = (p for p in psutil.Process(server.pid).children(recursive=True) if p.name() == "tritonserver")
    return process


def test_a_server_that_comes_late_goes_away_and_comes_back(
    models: Path, images: Path, expected: list[dict], tmp_path: Path, unused_port: int
) -> None:
    run = RunInThread(images, tmp_path / "out", f"127.0.0.1:{unused_port}")
    with EmbeddedTriton(models, grpc_port=unused_port) as server:
        run.wait_for_the_middle()
        triton_process(server).kill()
    with EmbeddedTriton(models, grpc_port=unused_port):
        assert run.summary().counts.scored == COUNT
    assert rows(tmp_path / "out") == expected
    assert {progress.servers_up for progress in run.seen} == {0, 1}


def test_another_model_at_the_same_address_ends_the_run(
    models: Path, images: Path, tmp_path: Path, unused_port: int
) -> None:
    with EmbeddedTriton(models, grpc_port=unused_port):
        run = RunInThread(images, tmp_path / "out", f"127.0.0.1:{unused_port}")
        run.wait_for_the_middle()
    place_version(tmp_path / "other", write_tiny_model(tmp_path / "model", seed=1), 1)
    with EmbeddedTriton(tmp_path / "other", grpc_port=unused_port), pytest.raises(ContractError, match="began with"):
        run.summary()
    assert 0 < len(rows(tmp_path / "out")) < COUNT


def test_one_of_two_servers_dies(models: Path, images: Path, tiny_server: str, expected: list, tmp_path: Path) -> None:
    with EmbeddedTriton(models) as other:
        run = RunInThread(images, tmp_path / "out", f"{other.grpc_url},{tiny_server}", wait_s=0)
        run.wait_for_the_middle()
        with tritonclient.grpc.InferenceServerClient(other.grpc_url) as client:
            answered = client.get_inference_statistics("crosseai", "1").model_stats[0].inference_count
        assert answered > 0
        triton_process(other).kill()
        assert run.summary().counts.scored == COUNT
    assert run.seen[-1].servers_up == 1
    paths = [row["path"] for row in rows(tmp_path / "out")]
    assert paths == [row["path"] for row in expected]


def test_a_model_that_is_unloaded_for_a_while(models: Path, images: Path, expected: list, tmp_path: Path) -> None:
    with EmbeddedTriton(models) as server, tritonclient.grpc.InferenceServerClient(server.grpc_url) as client:
        run = RunInThread(images, tmp_path / "out", server.grpc_url)
        run.wait_for_the_middle()
        client.unload_model("crosseai")
        client.load_model("crosseai")
        assert run.summary().counts.scored == COUNT
        assert rows(tmp_path / "out") == expected
        client.unload_model("crosseai")
        with pytest.raises(ServerUnavailable, match="crosseai"):
            score_directory(images, tmp_path / "none", server=server.grpc_url, wait_s=0)


def test_a_server_that_hangs(models: Path, images: Path, expected: list, tmp_path: Path) -> None:
    """Requests end at their deadline and are sent again; when all have timed out, the run ends."""
    with EmbeddedTriton(models) as server:
        process = triton_process(server)
        run = RunInThread(images, tmp_path / "out", server.grpc_url, timeout_s=1)
        run.wait_for_the_middle()
        process.suspend()
        threading.Timer(2.5, process.resume).start()
        assert run.summary().counts.scored == COUNT
        assert rows(tmp_path / "out") == expected
        run = RunInThread(images, tmp_path / "again", server.grpc_url, timeout_s=0.5, wait_s=0)
        run.wait_for_the_middle()
        process.suspend()
        try:
            with pytest.raises(InferenceTimeout):
                run.summary()
        finally:
            process.resume()


@contextmanager
def gateway(target: str, certificates: Certificates) -> Iterator[str]:
    """A gRPC gateway before a server: TLS, client certificates, and a token for every call."""
    files = (certificates.server_key, certificates.server)
    credentials = grpc.ssl_server_credentials(
        [tuple(file.read_bytes() for file in files)], certificates.ca.read_bytes(), require_client_auth=True
    )

    class Forward(grpc.GenericRpcHandler):
        def __init__(self, channel: grpc.Channel) -> None:
            self._channel = channel

        def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            def forward(request: bytes, context: grpc.ServicerContext) -> bytes:
                if dict(call.invocation_metadata).get("authorization") != f"Bearer {TOKEN}":
                    context.abort(grpc.StatusCode.UNAUTHENTICATED, "a token is needed")
                return self._channel.unary_unary(call.method)(request)

            return grpc.unary_unary_rpc_method_handler(forward)

    with grpc.insecure_channel(target) as channel:
        server = grpc.server(ThreadPoolExecutor(4), handlers=[Forward(channel)])
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


def test_tls_with_client_certificates_and_a_token(
    images: Path, expected: list, tiny_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = Certificates(tmp_path)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    authority = ("--tls-ca", certificates.ca)
    identity = ("--tls-cert", certificates.client, "--tls-key", certificates.client_key)
    token = ("--token-file", tmp_path / "token")
    few = tmp_path / "few"
    few.mkdir()
    for name in ("0000.png", "0001.png"):
        (few / name).hardlink_to(images / name)

    def run(address: str, *options: object) -> str:
        command = ["run", few, "--output", tmp_path / "out", "--server", address, "--wait", 0.5, "--explain", "top:1"]
        result = CliRunner().invoke(main, [str(argument) for argument in (*command, *options)])
        return f"{result.exit_code} {result.output}"

    with gateway(tiny_server, certificates) as address:
        assert run(address, *authority, *identity, *token).startswith("0 ")
        np.testing.assert_allclose(
            [row["p_Mass"] for row in rows(tmp_path / "out")], [row["p_Mass"] for row in expected[:2]], rtol=1e-5
        )
        monkeypatch.setenv("CROSSEAI_TOKEN", TOKEN)
        assert run(f"grpcs://{address}", *authority, *identity).startswith("0 ")
        monkeypatch.setenv("CROSSEAI_TOKEN", "wrong")
        for refused in (
            run(address, *authority, *identity),  # a wrong token
            run(address, *authority),  # no client certificate
            run(f"grpcs://{address}", *identity, *token),  # an unknown authority
            run(address),  # no TLS
        ):
            assert refused.startswith("3 "), refused
            assert "Traceback" not in refused
            assert TOKEN not in refused
        assert "a token is needed" in run(address, *authority, *identity)
        for misused, reason in (
            (run(f"grpc://{address}", *authority), "expected grpcs://"),
            (run(address, *authority, *identity[:2]), "together with its key"),
            (run(address, "--tls-ca", tmp_path / "token"), "expected a PEM file"),
            (run("grpc://example.org:8001"), "never sent unencrypted"),
        ):
            assert misused.startswith("2 "), misused
            assert reason in misused
