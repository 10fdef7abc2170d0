"""A server of our own for the time of a run, when none is given."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from crosseai.contract import InputError, ServerUnavailable

_STOP_S = 30.0
_EXIT_BAD_MODEL = 1
"""Exit status of ``crosseai-serve`` when the model, not the server, is at fault."""


@contextmanager
def embedded_server(model: str | None, *, start_timeout_s: float = 600.0) -> Iterator[str]:
    """Run ``crosseai-serve up`` as a child process and yield its gRPC address.

    The child has its own session, so that Ctrl-C reaches this process alone, and ends when this process dies.

    Parameters
    ----------
    model
        ``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or a folder; None for the registry's champion, or
        its newest version.
    start_timeout_s
        How long the server may take until it is ready, in seconds; the first start installs it.

    Raises
    ------
    ServerUnavailable
        If the server does not become ready; what it said is on stderr.
    InputError
        If there is no such model.
    """
    command = [sys.executable, "-m", "crosseai.serve.cli", "up", "--tie-to-parent"]
    if model is not None:
        command += ["--model", model]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    try:
        yield _address(server, start_timeout_s)
    finally:
        server.terminate()
        try:
            server.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _address(server: "subprocess.Popen[bytes]", timeout_s: float) -> str:
    """Address in the line that the server prints once it is ready."""
    if server.stdout is None:
        raise ServerUnavailable("the embedded server has no output to read")
    deadline, line = time.monotonic() + timeout_s, b""
    with server.stdout as output:
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([output], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise ServerUnavailable(f"the embedded server was not ready within {timeout_s:g} s")
            chunk = os.read(output.fileno(), 65536)
            if not chunk:
                kind = InputError if server.wait() == _EXIT_BAD_MODEL else ServerUnavailable
                raise kind("the embedded server did not start; its reason is above")
            line += chunk
    return str(json.loads(line)["grpc_url"])
