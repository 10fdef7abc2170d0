"""A real Triton server as a child of this process."""

import http.client
import json
import logging
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from crosseai.contract import InputError, ServerUnavailable
from crosseai.serve import guardian
from crosseai.serve.control import ADMIN_KEY_HEADER, NO_TLS, Tls
from crosseai.serve.environment import ServerEnvironment, server_environment
from crosseai.serve.ports import reachable, reserve_port
from crosseai.serve.repository import models_of

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
POLL_INTERVAL_S = 0.02
STOP_TIMEOUT_S = 5
RESTRICTED = "model-repository,shared-memory,trace,logging"
"""What an exposed server does for holders of the admin key alone, as Triton calls it."""
LOG_TAIL_BYTES = 16_000
LOG_TAIL_LINES = 15

_NOISE = re.compile(r"[+|]|I\d{4} |E\d{4} .*CudaDriverHelper")
"""Lines of the log that explain no failure: tables, information, and that there is no GPU."""


class EmbeddedTriton:
    """A Triton server that lives as long as this context, and no longer than this process.

    It loads every model of a repository and listens on the loopback interface, on ports of its own. However this
    process ends, the server ends too, and leaves no process, shared memory or temporary file behind.

    Parameters
    ----------
    repository
        Triton model repository: a folder with one folder a model.
    host
        IPv4 address to listen on. Anything but the loopback interface opens the server to the network; loading models,
        shared memory, tracing and logging are then for those alone who know the admin key.
    grpc_port, http_port
        Ports to listen on; free ones when not given.
    metrics_port
        Port of Prometheus' metrics; there are none when it is not given.
    start_timeout_s
        How long loading may take, in seconds.
    delete_repository
        Whether the repository is a temporary one, to be deleted with all else at the end.
    admin_key
        What a header of these calls must say; nobody can make them when it is not given.
    tls
        The server's certificate and key; gRPC is then encrypted, and HTTP, which Triton cannot encrypt, on the loopback
        interface alone. With ``ca`` only clients with a certificate by it are answered.

    Raises
    ------
    InputError
        On entry, if a port is taken, or the repository is not one that Triton can serve.
    ServerUnavailable
        On entry, if the server ends, or is not ready in time; the message has the end of its log.
    ServerError
        On entry, if Triton cannot run on this machine.

    Examples
    --------
    >>> with EmbeddedTriton(Path("triton_models/repository")) as server:  # doctest: +SKIP
    ...     print(server.grpc_url)
    127.0.0.1:40211
    """

    def __init__(
        self,
        repository: str | Path,
        *,
        host: str = LOOPBACK,
        grpc_port: int | None = None,
        http_port: int | None = None,
        metrics_port: int | None = None,
        start_timeout_s: float = 120,
        delete_repository: bool = False,
        admin_key: str | None = None,
        tls: Tls = NO_TLS,
    ) -> None:
        self._repository = Path(repository).absolute()
        self._host, self._http_host = host, LOOPBACK if tls.is_given else host
        self._tls = tls
        self._wanted_ports = (grpc_port, http_port)
        self._metrics_port = metrics_port
        self._start_timeout_s = start_timeout_s
        self._delete_repository = delete_repository
        self._admin_key = admin_key or secrets.token_urlsafe()
        self._id = f"crosseai-{os.getpid()}-{uuid.uuid4().hex[:8]}"

    @property
    def grpc_url(self) -> str:
        """``host:port`` of the gRPC endpoint."""
        return f"{reachable(self._host)}:{self._ports[0]}"

    @property
    def http_url(self) -> str:
        """``host:port`` of the HTTP endpoint."""
        return f"{reachable(self._http_host)}:{self._ports[1]}"

    @property
    def pid(self) -> int:
        """The process that guards the server."""
        return self._guardian.pid

    def __enter__(self) -> Self:
        environment = server_environment()
        models = models_of(self._repository)
        began = time.monotonic()
        with ExitStack() as resources:
            self._ports = tuple(
                reserve_port(host, port, resources)
                for host, port in zip((self._host, self._http_host), self._wanted_ports, strict=True)
            )
            workspace = Path(tempfile.mkdtemp(prefix=f"{self._id}-"))
            plan = guardian.Plan(
                command=self._command(environment, workspace, models),
                parent=os.getpid(),
                workspace=str(workspace),
                scratch=[str(workspace), *([str(self._repository)] if self._delete_repository else [])],
                shm_prefix=self._id,
                stop_timeout_s=STOP_TIMEOUT_S,
            )
            resources.callback(guardian.sweep, plan)
            for path in (self._repository, workspace):
                _refuse_spaces(path)
            environment.place_backends(workspace / "backends")
            self._log = resources.enter_context((workspace / "server.log").open("ab+", buffering=0))
            self._guardian = _start_guardian(plan, environment, self._log)
            resources.callback(_stop, self._guardian)
            self._wait_until_ready(models, began + self._start_timeout_s)
            self._resources = resources.pop_all()
        logger.info("Triton is ready at grpc://%s after %.1f s", self.grpc_url, time.monotonic() - began)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._resources.close()

    def wait(self, timeout_s: float | None = None) -> None:
        """Block while the server lives, at most for a time.

        Raises
        ------
        ServerUnavailable
            When it has ended by itself, with the end of its log.
        """
        try:
            status = self._guardian.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return
        raise self._failure(_meaning(status))

    def _command(self, environment: ServerEnvironment, workspace: Path, models: tuple[str, ...]) -> list[str]:
        grpc_port, http_port = self._ports
        return [
            str(environment.tritonserver),
            f"--id={self._id}",
            f"--model-repository={self._repository}",
            f"--backend-directory={workspace / 'backends'}",
            f"--backend-config=python,shm-region-prefix-name={self._id}",
            f"--grpc-address={self._host}",
            f"--grpc-port={grpc_port}",
            "--reuse-grpc-port=true",  # the ports are reserved by sockets of ours, see reserve_port
            f"--http-address={self._http_host}",
            f"--http-port={http_port}",
            "--reuse-http-port=true",
            *self._metrics,
            "--pinned-memory-pool-byte-size=0",  # for GPUs
            "--disable-auto-complete-config",  # our configurations are complete, and starting is faster
            "--model-control-mode=explicit",
            *(f"--load-model={model}" for model in models),
            f"--exit-timeout-secs={STOP_TIMEOUT_S - 1}",
            *self._restrictions,
            *self._encryption,
        ]

    @property
    def _metrics(self) -> list[str]:
        if self._metrics_port is None:
            return ["--allow-metrics=false"]
        return [f"--metrics-address={self._host}", f"--metrics-port={self._metrics_port}"]

    @property
    def _restrictions(self) -> list[str]:
        """Options that close what could change an exposed server, or reach beyond it."""
        if self._host == LOOPBACK:
            return []
        return [
            f"--grpc-restricted-protocol={RESTRICTED}:{ADMIN_KEY_HEADER}={self._admin_key}",
            f"--http-restricted-api={RESTRICTED}:{ADMIN_KEY_HEADER}={self._admin_key}",
        ]

    @property
    def _encryption(self) -> list[str]:
        """Options for TLS, mutual where authorities are given."""
        if not self._tls.is_given:
            return []
        return [
            f"--grpc-use-ssl{'-mutual' if self._tls.ca else ''}=true",
            f"--grpc-server-cert={self._tls.certificate}",
            f"--grpc-server-key={self._tls.key}",
            *([f"--grpc-root-cert={self._tls.ca}"] if self._tls.ca else []),
        ]

    def _wait_until_ready(self, models: tuple[str, ...], deadline: float) -> None:
        """Wait for this very server (its id says so) and for its models, while its process lives."""
        pages = ["/v2", *(f"/v2/models/{model}/ready" for model in models)]
        while time.monotonic() < deadline:
            self.wait(POLL_INTERVAL_S)
            answers = [self._get(page) for page in pages]
            if all(answer is not None for answer in answers) and json.loads(answers[0] or "")["name"] == self._id:
                return
        raise self._failure(f"was not ready within {self._start_timeout_s:g} s")

    def _get(self, page: str) -> bytes | None:
        """Body of a page, or None if there is none; the connection is closed, as an open one delays the stop."""
        connection = http.client.HTTPConnection(self.http_url, timeout=1)
        try:
            connection.request("GET", page)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            return None
        else:
            return body if response.status == http.HTTPStatus.OK else None
        finally:
            connection.close()

    def _failure(self, what: str) -> ServerUnavailable:
        size = os.fstat(self._log.fileno()).st_size
        tail = os.pread(self._log.fileno(), LOG_TAIL_BYTES, max(0, size - LOG_TAIL_BYTES)).decode(errors="replace")
        lines = [line for line in tail.splitlines() if line.strip()]
        telling = [line for line in lines if not _NOISE.match(line)] or lines
        log = "\n".join(f"  {line}" for line in telling[-LOG_TAIL_LINES:])
        return ServerUnavailable(f"Triton, serving {self._repository}, {what}. Its log ends with:\n{log}")


def _refuse_spaces(path: Path) -> None:
    """Triton splits the command line of its Python workers at spaces, and they crash."""
    if any(character.isspace() for character in str(path)):
        raise InputError(f"Triton cannot serve from a path with spaces; expected none in {str(path)!r}")


def _start_guardian(plan: guardian.Plan, environment: ServerEnvironment, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the process that starts the server; in a session of its own, so that Ctrl-C does not reach it."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", guardian.__file__, plan.to_json()],
        env=environment.variables(),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the guardian to stop the server and to clean up, which takes about two seconds."""
    process.terminate()
    try:
        process.wait(2 * STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _meaning(status: int) -> str:
    """What an exit status of the guardian says about the server."""
    if status == guardian.WORKER_LOST:
        return "lost the process that runs a model (killed, perhaps for lack of memory, or it could not start)"
    if status < 0 or status > 128:
        return f"was ended by {signal.Signals(abs(status) % 128).name}"
    return f"ended with exit status {status}"
