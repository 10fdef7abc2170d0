"""The agent of a server whose repository this machine can write, for the time of one promotion."""

import subprocess
import sys
from pathlib import Path
from typing import Self

from crosseai.client.servers.credentials import Credentials
from crosseai.contract import ServerError

INTERVAL_S = 0.5
STOP_TIMEOUT_S = 30


class Agent:
    """``crosseai-serve deploy --watch`` as a child of this process; a context manager.

    Parameters
    ----------
    repository
        The server's model repository.
    server
        Its gRPC address.
    credentials
        Files for TLS, where the server wants it.
    grace_s
        How long a version that has lost its alias stays after its last request, in seconds.
    """

    def __init__(self, repository: Path, server: str, credentials: Credentials, *, grace_s: float) -> None:
        watch = [sys.executable, "-m", "crosseai.serve.cli", "deploy", "--watch", "--tie-to-parent"]
        where = ["--repository", str(repository), "--server", server]
        files = {"--tls-ca": credentials.ca, "--tls-cert": credentials.certificate, "--tls-key": credentials.key}
        tls = [word for option, file in files.items() if file for word in (option, str(file))]
        self._command = [*watch, *where, *tls, "--grace", str(grace_s), "--interval", str(INTERVAL_S)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, start_new_session=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def check(self) -> None:
        """Raise a ServerError if it has ended; what it said is on stderr."""
        if self._process.poll() is not None:
            raise ServerError(f"`crosseai-serve deploy --watch` ended with exit status {self._process.returncode}")
