"""The real Triton server: what it answers, and that nothing is left of it."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import psutil
import pytest
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from crosseai.contract import MODEL_FILENAME, InputError, ModelSpec, ServerUnavailable
from crosseai.serve.config import CONFIG_FILENAME, parse_config
from crosseai.serve.control import Control
from crosseai.serve.embedded import EmbeddedTriton
from crosseai.serve.repository import place_version
from tests.eventually import DEADLINE_S, eventually
from tests.tiny_model import TINY_SPEC, write_tiny_model

OUTPUTS = [tensor.name for tensor in TINY_SPEC.outputs]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    repository = tmp_path_factory.mktemp("models")
    place_version(repository, model, 3)
    return repository


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(models) as server:
        yield server


@pytest.fixture
def client(server: EmbeddedTriton) -> Iterator[grpc.InferenceServerClient]:
    with grpc.InferenceServerClient(server.grpc_url) as client:
        yield client


@pytest.fixture
def leaves_nothing() -> Iterator[set[int]]:
    """Check that no server of this process, nor of those whose ids the test adds, leaves anything behind."""
    owners = {os.getpid()}
    before = leftovers(owners)
    yield owners
    eventually(lambda: leftovers(owners) <= before)


def leftovers(owners: set[int]) -> set[str]:
    """Shared memory, folders and processes; the server's id, which has its owner's, is in all of their names."""
    names = [str(file) for folder in ("/dev/shm", tempfile.gettempdir()) for file in Path(folder).iterdir()]
    names += [" ".join(command_line(process)) for process in psutil.process_iter()]
    return {name for name in names if any(f"crosseai-{owner}-" in name for owner in owners)}


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def processes_of(server: EmbeddedTriton) -> tuple[psutil.Process, psutil.Process]:
    """The server and its only worker, below the guardian."""
    (triton,) = psutil.Process(server.pid).children()
    (worker,) = triton.children()
    return triton, worker


def inputs(images: int = 2, targets: int = 3, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    side = TINY_SPEC.input_size
    return {
        "image": rng.integers(0, 256, (images, 1, side, side), dtype=np.uint8),
        "targets": rng.integers(-1, len(TINY_SPEC.classes), (images, targets)),
    }


def infer(client: grpc.InferenceServerClient, feed: dict[str, np.ndarray], outputs: list[str]) -> list[np.ndarray]:
    tensors = []
    for name, array in feed.items():
        dtype = {"uint8": "UINT8", "int64": "INT64", "float32": "FP32"}[array.dtype.name]
        tensors.append(grpc.InferInput(name, array.shape, dtype))
        tensors[-1].set_data_from_numpy(array)
    result = client.infer("crosseai", tensors, outputs=[grpc.InferRequestedOutput(name) for name in outputs])
    return [result.as_numpy(name) for name in outputs]


# What it answers


def test_all_outputs_are_those_of_the_model(client, model):
    feed = inputs()
    expected = ort.InferenceSession(model / MODEL_FILENAME).run(OUTPUTS, feed)
    for spec, found, reference in zip(TINY_SPEC.outputs, infer(client, feed, OUTPUTS), expected, strict=True):
        assert spec.check(found)["N"] == 2
        np.testing.assert_array_equal(found, reference, err_msg=spec.name)


@pytest.mark.parametrize("outputs", [["logits"], ["heatmaps", "explained"], ["gradient_maps", "logits"]])
def test_some_outputs_are_the_same_as_with_all(client, model, outputs):
    feed = inputs(images=3, targets=1)
    expected = ort.InferenceSession(model / MODEL_FILENAME).run(outputs, feed)
    for found, reference in zip(infer(client, feed, outputs), expected, strict=True):
        np.testing.assert_allclose(found, reference, rtol=1e-5, atol=1e-6)


def test_asking_for_logits_alone_runs_the_forward_pass_alone(client):
    """A target that is no class fails in the explaining part: what succeeds did not run it."""
    feed = {**inputs(), "targets": np.full((2, 3), 99)}
    (logits,) = infer(client, feed, ["logits"])
    assert logits.shape == (2, len(TINY_SPEC.classes))
    for outputs in (["heatmaps"], OUTPUTS):
        with pytest.raises(InferenceServerException, match=r"onnxruntime: .*idx=99 must be within"):
            infer(client, feed, outputs)


def test_concurrent_requests_of_all_kinds_get_their_own_answers(client, model):
    """Batched together or not, and bad ones among them."""
    reference = ort.InferenceSession(model / MODEL_FILENAME)
    kinds = [(images, targets, outputs) for images in (1, 2) for targets in (1, 3) for outputs in (["logits"], OUTPUTS)]

    def ask(number: int) -> None:
        images, targets, outputs = kinds[number % len(kinds)]
        feed = inputs(images, targets, seed=number)
        if number % 5 == 0:
            with pytest.raises(InferenceServerException, match="idx=99"):
                infer(client, {**feed, "targets": np.full_like(feed["targets"], 99)}, ["explained", "heatmaps"])
        for found, expected in zip(infer(client, feed, outputs), reference.run(outputs, feed), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(200)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((2, 1, 32, 32), np.float32)}, "data-type is 'FP32', but .*expects 'UINT8'"),
        (
            {"image": np.zeros((2, 1, 16, 32), np.uint8)},
            r"unexpected shape .* Expected \[-1,1,32,32\], got \[2,1,16,32\]",
        ),
        ({"image": np.zeros((9, 1, 32, 32), np.uint8), "targets": np.zeros((9, 1), np.int64)}, "must be <= 8"),
        ({"targets": np.zeros((1, 3), np.int64)}, "batch"),
    ],
    ids=["dtype", "shape", "batch size", "unequal batches"],
)
def test_wrong_inputs_are_named(client, change, message):
    with pytest.raises(InferenceServerException, match=message):
        infer(client, {**inputs(), **change}, ["logits"])


def test_the_config_tells_a_client_the_spec(client):
    config = client.get_model_config("crosseai").config
    assert ModelSpec.from_json(config.parameters["model_spec.3"].string_value) == TINY_SPEC
    assert list(config.version_policy.specific.versions) == [3]


def test_the_written_configuration_is_served_unchanged(client, models):
    written = parse_config((models / "crosseai" / CONFIG_FILENAME).read_text())
    served = client.get_model_config("crosseai").config
    for field in ("name", "backend", "max_batch_size", "input", "output", "version_policy", "model_warmup"):
        assert getattr(served, field) == getattr(written, field), field


def test_it_listens_on_the_loopback_interface_alone(server):
    connections = processes_of(server)[0].net_connections()
    addresses = {c.laddr.ip.removeprefix("::ffff:") for c in connections if c.status == psutil.CONN_LISTEN}
    assert addresses == {"127.0.0.1"}


def test_an_exposed_server_is_controlled_by_holders_of_the_key_alone(models, monkeypatch):
    """But it answers everybody."""
    with EmbeddedTriton(models, host="0.0.0.0", admin_key="open sesame") as exposed:  # noqa: S104 - the point
        with grpc.InferenceServerClient(exposed.grpc_url) as client:
            assert infer(client, inputs(), ["logits"])[0].shape == (2, 8)
            for forbidden in (
                lambda: client.load_model("crosseai"),
                lambda: client.unload_model("crosseai"),
                client.get_model_repository_index,
                lambda: client.register_system_shared_memory("region", "/region", 8),
                client.get_trace_settings,
                client.get_log_settings,
            ):
                with pytest.raises(InferenceServerException, match="expecting header 'triton-grpc-protocol-crosseai-"):
                    forbidden()
        for page in ("repository/index", "repository/models/crosseai/load", "systemsharedmemory/region/x/register"):
            request = urllib.request.Request(f"http://{exposed.http_url}/v2/{page}", data=b"{}")
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(request)  # noqa: S310 - our own server
        monkeypatch.setenv("CROSSEAI_ADMIN_KEY", "open sesame")
        assert [version.state for version in Control(exposed.grpc_url).status()] == ["READY"]
        Control(exposed.grpc_url).load_model("crosseai", 3)
        monkeypatch.setenv("CROSSEAI_ADMIN_KEY", "another")
        with pytest.raises(ServerUnavailable, match="expecting header"):
            Control(exposed.grpc_url).load_model("crosseai", 3)


# How it starts


def test_servers_run_beside_each_other(models, leaves_nothing):
    with EmbeddedTriton(models) as first, EmbeddedTriton(models) as second:
        assert len({first.grpc_url, first.http_url, second.grpc_url, second.http_url}) == 4
        for server in (first, second):
            with grpc.InferenceServerClient(server.grpc_url) as client:
                assert infer(client, inputs(), ["logits"])[0].shape == (2, 8)


def test_a_given_port_is_used_and_a_taken_one_is_named(models, server):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(InputError, match=f"expected a free port at 127.0.0.1:{port}"),
            EmbeddedTriton(models, grpc_port=port),
        ):
            pass
    with EmbeddedTriton(models, grpc_port=port) as given:
        assert given.grpc_url == f"127.0.0.1:{port}"
        with (
            pytest.raises(InputError, match=f"expected a free port at 127.0.0.1:{port}"),
            EmbeddedTriton(models, http_port=port),
        ):
            pass


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.write_bytes(b"not a model"), "expected SHA-256 [0-9a-f]{64} .*, found"),
        (lambda file: file.unlink(), "model.onnx"),
    ],
    ids=["tampered", "missing"],
)
def test_a_model_that_does_not_load_is_explained(tmp_path, model, damage, message, leaves_nothing):
    damage(place_version(tmp_path, model, 1) / MODEL_FILENAME)
    with pytest.raises(ServerUnavailable, match=rf"ended with exit status 1(.|\n)*{message}"), EmbeddedTriton(tmp_path):
        pass


def test_a_spec_that_is_not_the_models_own_is_refused(tmp_path, model, leaves_nothing):
    other = ModelSpec(input_size=32, feature_shape=(4, 4, 4), operating_points=(0.1,) * 8)
    other.save(write_tiny_model(tmp_path / "source"))
    place_version(tmp_path / "models", tmp_path / "source", 1)
    with (
        pytest.raises(
            ServerUnavailable, match=r"model spec: expected operating_points = \[0.5, .*\(the ONNX model\), found \[0.1"
        ),
        EmbeddedTriton(tmp_path / "models"),
    ):
        pass


def test_paths_that_triton_cannot_serve(tmp_path, model):
    place_version(tmp_path / "with space", model, 1)
    with pytest.raises(InputError, match="path with spaces"), EmbeddedTriton(tmp_path / "with space"):
        pass
    with pytest.raises(InputError, match="expected a Triton model repository"), EmbeddedTriton(tmp_path / "nothing"):
        pass


def test_a_server_that_is_not_ready_in_time(models, leaves_nothing):
    with pytest.raises(ServerUnavailable, match="was not ready within 0 s"), EmbeddedTriton(models, start_timeout_s=0):
        pass


# How it ends


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_nothing_is_left(models, attempt, leaves_nothing):
    with EmbeddedTriton(models) as server:
        ports = [int(url.rpartition(":")[2]) for url in (server.grpc_url, server.http_url)]
    for port in ports:
        with socket.create_server(("127.0.0.1", port), reuse_port=False):
            pass


def test_nothing_is_left_after_an_exception(models, leaves_nothing):
    with pytest.raises(ZeroDivisionError), EmbeddedTriton(models):
        _ = 1 / 0


def test_a_killed_server_is_noticed(models, leaves_nothing):
    folders = set(Path("/tmp").glob("python_env_*"))
    with EmbeddedTriton(models) as server:
        made = set(Path("/tmp").glob("python_env_*")) - folders  # others' servers come and go meanwhile
        assert made
        processes_of(server)[0].kill()
        with pytest.raises(ServerUnavailable, match="was ended by SIGKILL"):
            server.wait(DEADLINE_S)
        assert made.isdisjoint(Path("/tmp").glob("python_env_*"))


def test_a_killed_worker_is_noticed(models, leaves_nothing):
    """Triton itself goes on, and says that it is ready."""
    with EmbeddedTriton(models) as server:
        processes_of(server)[1].kill()
        with pytest.raises(ServerUnavailable, match="lost the process that runs a model"):
            server.wait(DEADLINE_S)


def test_a_killed_guardian_takes_the_server_along(models, leaves_nothing):
    with EmbeddedTriton(models) as server:
        triton, _ = processes_of(server)
        psutil.Process(server.pid).kill()
        with pytest.raises(ServerUnavailable, match="was ended by SIGKILL"):
            server.wait(DEADLINE_S)
        eventually(lambda: not triton.is_running())


PARENT = """
import sys, threading
from pathlib import Path
from crosseai.serve.control import Control
from crosseai.serve.embedded import EmbeddedTriton
def start():
    global server
    server = EmbeddedTriton(Path(sys.argv[1]))
    server.__enter__()
    print(server.pid, flush=True)
thread = threading.Thread(target=start)
thread.start()
thread.join()  # the server outlives the thread that started it
sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_parent_takes_the_server_along(models, number, leaves_nothing):
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(models)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=-3
    ) as parent:
        assert parent.stdout is not None
        leaves_nothing.add(parent.pid)
        guardian = psutil.Process(int(parent.stdout.readline()))
        time.sleep(0.6)
        assert guardian.is_running()
        os.kill(parent.pid, number)
        assert parent.wait(DEADLINE_S) != 0
    eventually(lambda: not guardian.is_running())
