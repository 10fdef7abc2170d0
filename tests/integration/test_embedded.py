"""The server that a client starts for itself, and starts again."""

import os
import time
from pathlib import Path

import psutil
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from crosseai.client.servers import embedded
from crosseai.client.servers.embedded import embedded_server
from tests.tiny_model import write_tiny_model


def is_ready(address: str) -> bool:
    with tritonclient.grpc.InferenceServerClient(address) as client:
        try:
            return client.is_model_ready("crosseai")
        except InferenceServerException:
            return False


def processes(name: str) -> list[psutil.Process]:
    """Ours of this name; a process may end while it is looked at."""
    found = []
    for process in psutil.Process(os.getpid()).children(recursive=True):
        try:
            if process.name() == name:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def test_a_server_that_keeps_dying_is_started_again_a_bounded_number_of_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(embedded, "RESTARTS", 1)
    others = {server.pid for server in processes("tritonserver")}

    def ours() -> list[psutil.Process]:
        return [server for server in processes("tritonserver") if server.pid not in others]

    with embedded_server(str(write_tiny_model(tmp_path))) as address:
        for messages in (1, 2):
            assert is_ready(address)
            (server,) = ours()
            server.kill()
            deadline = time.monotonic() + 60
            while len(caplog.messages) < messages or (messages == 1 and not is_ready(address)):
                assert time.monotonic() < deadline
                time.sleep(0.05)
    first, last = caplog.messages
    assert first.endswith("it is started again")
    assert last.endswith("it stays down")
    assert ours() == []
