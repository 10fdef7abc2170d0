"""Asking a running Triton server what it serves, and to load models."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from crosseai.contract import InferenceTimeout, ServerError, ServerUnavailable

REQUEST_TIMEOUT_S = 10
LOAD_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One version of a model as a server sees it.

    Parameters
    ----------
    model, version
        Its name and version; the version is empty for a model that has not been loaded.
    state
        ``READY``, ``LOADING``, ``UNLOADING``, ``UNAVAILABLE``, or empty.
    reason
        Why it is not ready, if the server says.
    """

    model: str
    version: str
    state: str
    reason: str


def server_status(server: str) -> list[VersionStatus]:
    """List models and versions in a server's repository.

    Parameters
    ----------
    server
        gRPC address, ``grpc://HOST:PORT`` or ``HOST:PORT``.

    Raises
    ------
    ServerError
        If the server does not answer, or refuses.
    """
    with _connection(server) as client:
        index = client.get_model_repository_index(client_timeout=REQUEST_TIMEOUT_S)
    return [VersionStatus(entry.name, entry.version, entry.state, entry.reason) for entry in index.models]


def load_model(server: str, model: str, version: int) -> None:
    """Have a server load a model anew from its repository, and check that a version of it is ready.

    Raises
    ------
    ServerError
        If it is not.
    """
    with _connection(server) as client:
        client.load_model(model, client_timeout=LOAD_TIMEOUT_S)
        if not client.is_model_ready(model, str(version), client_timeout=REQUEST_TIMEOUT_S):
            raise ServerError(
                f"{server}: expected version {version} of {model!r} to be ready after loading; it is not. "
                "Does the server use this repository?"
            )


@contextmanager
def _connection(server: str) -> Iterator[tritonclient.grpc.InferenceServerClient]:
    """Connect for a few calls, and turn their errors into ours."""
    address = server.removeprefix("grpc://")
    with tritonclient.grpc.InferenceServerClient(address) as client:
        try:
            yield client
        except InferenceServerException as error:
            kind = _ERRORS.get(error.status() or "", ServerError)
            raise kind(f"Triton at grpc://{address}: {error.message()}") from error


_ERRORS: dict[str, type[ServerError]] = {
    "StatusCode.UNAVAILABLE": ServerUnavailable,
    "StatusCode.DEADLINE_EXCEEDED": InferenceTimeout,
}
