"""A promotion on a server that is open to the network: TLS on both sides, and only its administrator loads models."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tritonclient.grpc
from click.testing import CliRunner, Result
from mlflow import MlflowClient
from tritonclient.utils import InferenceServerException

from crosseai.client.cli import main
from crosseai.contract import CHAMPION, PREVIOUS, InputError, ServerUnavailable
from crosseai.serve.cli import main as serve
from crosseai.serve.control import ADMIN_KEY_VARIABLE, Control, Tls
from crosseai.serve.embedded import EmbeddedTriton
from tests.certificates import Certificates
from tests.eventually import DEADLINE_S
from tests.registered import aliases, remove_aliases

COMMAND = str(Path(sys.executable).with_name("crosseai-serve"))
KEY = "open sesame"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(models: Path, certificates: Certificates) -> Iterator[EmbeddedTriton]:
    """A server that listens everywhere and answers holders of a certificate."""
    tls = Tls(certificates.ca, certificates.server, certificates.server_key)
    with EmbeddedTriton(models, host="0.0.0.0", admin_key=KEY, tls=tls) as server:  # noqa: S104 - the point
        yield server


@pytest.fixture
def client(store: Path) -> MlflowClient:
    """The registry; version 1 is the champion, and no other has an alias."""
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    remove_aliases(client)
    client.set_registered_model_alias("crosseai", CHAMPION, "1")
    return client


@pytest.fixture
def ours(certificates: Certificates) -> list[str]:
    """Options of who may ask."""
    files = {"--tls-ca": certificates.ca, "--tls-cert": certificates.client, "--tls-key": certificates.client_key}
    return [str(word) for option in files.items() for word in option]


@pytest.fixture
def promote(tmp_path: Path) -> Callable[..., Result]:
    def invoke(version: int, *arguments: str) -> Result:
        log = ["--audit-log", str(tmp_path / "log.jsonl"), "--timeout", str(DEADLINE_S)]
        return CliRunner().invoke(main, ["promote", f"crosseai/{version}", "--to", "champion", *log, *arguments])

    return invoke


def test_an_agent_with_the_key_and_a_promotion_without_it(client, models, server, ours, promote, monkeypatch):
    address = f"grpcs://{server.grpc_url}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ADMIN_KEY_VARIABLE, KEY)
        watch = [COMMAND, "deploy", "--watch", "--interval", "0.2", "--repository", str(models)]
        agent = subprocess.Popen([*watch, "--server", address, *ours], stderr=subprocess.DEVNULL)
    try:
        result = promote(2, "--server", address, *ours)
    finally:
        agent.terminate()
        agent.wait(DEADLINE_S)
    assert (result.exit_code, result.stdout) == (0, "crosseai/2 is the champion\n"), result.output
    assert aliases(client) == {CHAMPION: 2, PREVIOUS: 1}

    monkeypatch.setenv(ADMIN_KEY_VARIABLE, KEY)
    listed = CliRunner().invoke(serve, ["status", "--server", address, *ours])
    assert listed.exit_code == 0, listed.output
    assert ["crosseai", "2", "READY"] in [line.split() for line in listed.output.splitlines()]


def test_an_agent_for_the_time_of_a_promotion(client, models, server, ours, promote, monkeypatch):
    monkeypatch.setenv(ADMIN_KEY_VARIABLE, KEY)
    where = ("--server", server.grpc_url, "--repository", str(models), "--grace", "0")
    result = promote(3, *where, *ours)
    assert result.exit_code == 0, result.output
    assert f"drain {server.grpc_url}" in result.stderr


def test_who_has_no_certificate_or_no_key_changes_nothing(client, server, certificates, ours, promote):
    for strangers in (ours[:2], []):
        result = promote(3, "--server", server.grpc_url, *strangers)
        assert result.exit_code == 3, result.output
    assert aliases(client) == {CHAMPION: 1}
    tls = {
        "root_certificates": str(certificates.ca),
        "certificate_chain": str(certificates.client),
        "private_key": str(certificates.client_key),
    }
    with tritonclient.grpc.InferenceServerClient(server.grpc_url, ssl=True, **tls) as connection:
        assert connection.is_model_ready("crosseai")
        for forbidden in (
            lambda: connection.load_model("crosseai"),
            lambda: connection.unload_model("crosseai"),
            connection.get_model_repository_index,
            lambda: connection.register_system_shared_memory("region", "/region", 8),
        ):
            with pytest.raises(InferenceServerException, match="expecting header 'triton-grpc-protocol-crosseai-"):
                forbidden()


def test_http_stays_on_this_machine(server):
    assert server.http_url.startswith("127.0.0.1:")


def test_control_without_tls_or_with_wrong_files(server, certificates):
    with pytest.raises(ServerUnavailable):
        Control(server.grpc_url).status()
    with pytest.raises(InputError, match="expected grpcs://HOST:PORT together with TLS files"):
        Control(f"grpc://{server.grpc_url}", Tls(certificates.ca)).status()
    with pytest.raises(InputError, match="none: expected a PEM file for TLS"):
        Control(server.grpc_url, Tls(certificates.ca.with_name("none"))).status()


@pytest.mark.parametrize("options", [["--tls-cert"], ["--tls-ca"], ["--tls-cert", "--tls-key", "--image"]])
def test_up_wants_a_certificate_with_its_key(models, certificates, options):
    command = ["up", "--repository", str(models), *(word for option in options for word in (option, certificates.ca))]
    result = CliRunner().invoke(serve, [str(word) for word in command])
    assert result.exit_code == 2
    assert "--tls-" in result.output
