"""The pod of deploy/kubernetes on this machine: its Triton, agent and proxy, started as its manifest says."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import tritonclient.grpc as triton
from click.testing import CliRunner
from mlflow import MlflowClient
from tritonclient.utils import InferenceServerException

from crosseai.client.cli import main
from crosseai.contract import CHAMPION
from crosseai.serve.environment import server_environment
from tests.certificates import Certificates
from tests.deployed import DEPLOY, containers, resources, words
from tests.eventually import eventually
from tests.integration.test_nothing_lost import rows, write_images

pytestmark = pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")

PORTS = ("8000", "8001", "8002", "8080", "8443", "9100")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def ports() -> dict[str, str]:
    """Free ports in place of those in the manifests."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in PORTS]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return {port: str(probe.getsockname()[1]) for port, probe in zip(PORTS, sockets, strict=True)}


@pytest.fixture(scope="module")
def pod(
    ports: dict[str, str], certificates: Certificates, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Model repository of a running pod whose registry has no champion yet."""
    folder = tmp_path_factory.mktemp("pod")
    (folder / "models").mkdir()
    deployment = resources("base")["Deployment", "crosseai-server"]
    spec = containers(deployment["spec"]["template"])
    with ExitStack() as running:
        running.enter_context(server(spec["server"]["args"], folder, ports))
        running.enter_context(proxy(folder, ports, certificates))
        agent = [word.replace("/models", f"{folder}/models") for word in spec["agent"]["args"]]
        agent = [word.replace(":8001", f":{ports['8001']}") for word in agent]
        running.enter_context(started(sys.executable, "-m", "crosseai.serve.cli", *agent))
        yield folder / "models"


@contextmanager
def started(*command: object, environment: dict[str, str] | None = None) -> Iterator[None]:
    """A process for the time of a ``with`` block, and all that it starts."""
    process = subprocess.Popen([*map(str, command)], env=environment, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            with ExitStack() as gone:
                gone.callback(process.wait)
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def server(arguments: list[str], folder: Path, ports: dict[str, str]) -> Iterator[None]:
    """The Triton of this machine in place of the image's, with the options of both image and manifest."""
    environment = server_environment()
    environment.place_backends(folder / "backends")
    script, program, *options = words("crosseai-server", "ENTRYPOINT")
    assert (script, program) == ("/opt/nvidia/nvidia_entrypoint.sh", "tritonserver")
    local = [
        f"--backend-directory={folder / 'backends'}",
        f"--backend-config=python,shm-region-prefix-name=crosseai-{os.getpid()}-pod",
        "--pinned-memory-pool-byte-size=0",
        f"--http-port={ports['8000']}",
        f"--grpc-port={ports['8001']}",
        f"--metrics-port={ports['8002']}",
    ]
    options = [option.replace("/models", f"{folder}/models") for option in options]
    with started(environment.tritonserver, *options, *arguments, *local, environment=environment.variables()):
        yield


@contextmanager
def proxy(folder: Path, ports: dict[str, str], certificates: Certificates) -> Iterator[None]:
    text = (DEPLOY / "kubernetes/base/nginx.conf").read_text()
    text = text.replace("/tmp/", f"{folder}/").replace("listen ", "listen 127.0.0.1:")
    for file, source in (
        ("tls.crt", certificates.server),
        ("tls.key", certificates.server_key),
        ("ca.crt", certificates.ca),
    ):
        text = text.replace(f"/tls/{file}", str(source))
    for port, local in ports.items():
        text = text.replace(f":{port}", f":{local}")
    (folder / "nginx.conf").write_text(text)
    user = "user root; " if os.geteuid() == 0 else ""
    with started("nginx", "-c", folder / "nginx.conf", "-p", folder, "-g", f"{user}daemon off;"):
        yield


def status(ports: dict[str, str], page: str) -> int:
    """HTTP status of a page at the port for probes and metrics; 0 where nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{ports['8080']}{page}") as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_from_an_empty_pod_to_scored_images(pod, ports, certificates, store, tmp_path):
    """Live at once, ready with the champion, as long as the probes of the manifest want it."""
    probes = containers(resources("base")["Deployment", "crosseai-server"]["spec"]["template"])["server"]
    pages = {name: probes[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    eventually(lambda: status(ports, pages["startupProbe"]) == 200)
    assert status(ports, pages["livenessProbe"]) == 200
    assert status(ports, pages["readinessProbe"]) in (400, 503), "there is no model yet"
    MlflowClient(f"sqlite:///{store}/mlflow.db").set_registered_model_alias("crosseai", CHAMPION, "2")
    eventually(lambda: status(ports, pages["readinessProbe"]) == 200)
    assert (pod / "crosseai/2/model.onnx").is_file()

    job = resources("batch")["Job", "crosseai-run"]["spec"]["template"]
    images = write_images(tmp_path / "images", 3)
    local = {
        "/images": str(images),
        "/results": str(tmp_path / "results"),
        "dns:///crosseai-server:8443": f"grpcs://127.0.0.1:{ports['8443']}",
        "/tls/ca.crt": str(certificates.ca),
        "/tls/tls.crt": str(certificates.client),
        "/tls/tls.key": str(certificates.client_key),
        "port=9100": f"port={ports['9100']}",
    }
    arguments = containers(job)["client"]["args"]
    for inside, here in local.items():
        assert any(inside in argument for argument in arguments), inside
        arguments = [argument.replace(inside, here) for argument in arguments]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert {row["model_version"] for row in rows(tmp_path / "results")} == {"2"}


def test_what_others_cannot_do(pod, ports, certificates):
    """No call without a certificate, none that changes the server, no other page."""
    eventually(lambda: status(ports, "/v2/health/live") == 200)
    assert status(ports, "/metrics") == 200
    for page in ("/v2", "/v2/models/crosseai/config", "/v2/repository/index"):
        assert status(ports, page) == 404
    secured = {"ssl": True, "root_certificates": str(certificates.ca)}
    identity = {"private_key": str(certificates.client_key), "certificate_chain": str(certificates.client)}
    with triton.InferenceServerClient(f"127.0.0.1:{ports['8443']}", **secured, **identity) as client:
        assert client.is_server_live()
        for call in (lambda: client.load_model("crosseai"), client.get_model_repository_index, client.get_log_settings):
            with pytest.raises(InferenceServerException, match="403") as refused:
                call()
            assert refused.value.status() == "StatusCode.PERMISSION_DENIED"
    with (
        triton.InferenceServerClient(f"127.0.0.1:{ports['8443']}", **secured) as stranger,
        pytest.raises(InferenceServerException),
    ):
        stranger.is_server_live(client_timeout=5)
