"""A server of our own for the time of a run, when none is given."""

import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from crosseai.contract import CrossEAIError, InputError, ServerUnavailable

RESTARTS, RESTARTS_WITHIN_S = 3, 600.0
"""A server that dies is started again, but only so often in so many seconds."""

_STOP_S = 30.0
_EXIT_BAD_MODEL = 1
"""Exit status of ``crosseai-serve`` when the model, not the server, is at fault."""

_logger = logging.getLogger(__name__)


@contextmanager
def embedded_server(model: str | None, *, start_timeout_s: float = 600.0) -> Iterator[str]:
    """Run ``crosseai-serve up`` as a child process and yield its gRPC address.

    The child has its own session, so that Ctrl-C reaches this process alone, and ends when this process dies. One
    that dies by itself is started again at the same address. What it says goes to this module's logger where that
    takes INFO, else to stderr.

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
        If the server does not become ready; what it said is in the log or on stderr.
    InputError
        If there is no such model.
    """
    server = _Server(model, start_timeout_s)
    try:
        yield server.start()
    finally:
        server.stop()


class _Server:
    """A child process, and a thread that starts it again when it dies."""

    def __init__(self, model: str | None, start_timeout_s: float) -> None:
        self._command = [sys.executable, "-m", "crosseai.serve.cli", "up", "--tie-to-parent"]
        if model is not None:
            self._command += ["--model", model]
        self._start_timeout_s = start_timeout_s
        self._stopping = False
        self._lock = threading.Lock()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._relay: threading.Thread | None = None
        self._process = self._spawn()

    def start(self) -> str:
        """Wait until the server is ready; its address, which it keeps."""
        address = _address(self._process, self._start_timeout_s)
        self._command += ["--grpc-port", address.rpartition(":")[2]]
        self._watcher.start()
        return address

    def stop(self) -> None:
        """End the server, and its watch."""
        with self._lock:
            self._stopping = True
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._watcher.ident is not None:
            self._watcher.join()
        if self._relay is not None:
            self._relay.join(_STOP_S)

    def _spawn(self) -> "subprocess.Popen[bytes]":
        relayed = subprocess.PIPE if _logger.isEnabledFor(logging.INFO) else None
        process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=relayed, start_new_session=True)
        if process.stderr is not None:
            self._relay = threading.Thread(target=_log_lines, args=(process.stderr,), daemon=True)
            self._relay.start()
        return process

    def _watch(self) -> None:
        restarts: deque[float] = deque(maxlen=RESTARTS)
        while True:
            status = self._process.wait()
            now = time.monotonic()
            with self._lock:
                if self._stopping:
                    return
                if len(restarts) == RESTARTS and now - restarts[0] < RESTARTS_WITHIN_S:
                    _logger.error("the embedded server ended with status %d once more; it stays down", status)
                    return
                _logger.warning("the embedded server ended with status %d; it is started again", status)
                restarts.append(now)
                self._process = self._spawn()
            with suppress(CrossEAIError):  # it has ended, and the next round says so
                _address(self._process, self._start_timeout_s)


def _log_lines(stream: IO[bytes]) -> None:
    with stream:
        for line in stream:
            _logger.info("%s", line.decode(errors="replace").rstrip())


def _address(server: "subprocess.Popen[bytes]", timeout_s: float) -> str:
    """Address in the line that the server prints once it is ready; one that is not ready in time is ended."""
    if server.stdout is None:
        raise ServerUnavailable("the embedded server has no output to read")
    deadline, line = time.monotonic() + timeout_s, b""
    with server.stdout as output:
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([output], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                server.terminate()
                raise ServerUnavailable(f"the embedded server was not ready within {timeout_s:g} s")
            chunk = os.read(output.fileno(), 65536)
            if not chunk:
                kind = InputError if server.wait() == _EXIT_BAD_MODEL else ServerUnavailable
                raise kind("the embedded server did not start; its reason is above")
            line += chunk
    return str(json.loads(line)["grpc_url"])
