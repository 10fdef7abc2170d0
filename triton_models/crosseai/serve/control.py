"""Asking a running Triton server what it serves, and to load models."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import tritonclient.grpc
from google.protobuf import json_format, text_format
from tritonclient.utils import InferenceServerException

from crosseai.contract import InferenceTimeout, ServerError, ServerUnavailable
from crosseai.serve.config import parse_config

ADMIN_KEY_HEADER = "crosseai-admin-key"
ADMIN_KEY_VARIABLE = "CROSSEAI_ADMIN_KEY"
"""Environment variable with what an exposed server wants to hear before it loads models."""

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
        index = client.get_model_repository_index(client_timeout=REQUEST_TIMEOUT_S, headers=_headers())
    return [VersionStatus(entry.name, entry.version, entry.state, entry.reason) for entry in index.models]


def load_model(server: str, model: str, version: int) -> None:
    """Have a server load a model anew from its repository, and check that a version of it is ready.

    Raises
    ------
    ServerError
        If it is not.
    """
    with _connection(server) as client:
        client.load_model(model, client_timeout=LOAD_TIMEOUT_S, headers=_headers())
        if not client.is_model_ready(model, str(version), client_timeout=REQUEST_TIMEOUT_S):
            raise ServerError(
                f"{server}: expected version {version} of {model!r} to be ready after loading; it is not. "
                "Does the server use this repository?"
            )


def served_configuration(server: str, model: str) -> str:
    """``config.pbtxt`` of a model as a server has it loaded.

    Raises
    ------
    ServerError
        If the server does not answer, or has no version of the model loaded.
    """
    with _connection(server) as client:
        return text_format.MessageToString(client.get_model_config(model, client_timeout=REQUEST_TIMEOUT_S).config)


def load_configuration(server: str, config: str) -> None:
    """Have a server load the versions that a configuration lists, instead of those that it has loaded.

    Triton starts the new versions beside the old ones, then switches; requests under way are answered by those that
    they were sent to. If one version cannot be loaded, everything stays as it was. The files must be in the server's
    repository; its ``config.pbtxt`` there is neither read nor written.

    Parameters
    ----------
    server
        gRPC address.
    config
        Text of a ``config.pbtxt``.

    Raises
    ------
    ServerError
        If the server does not answer, or cannot load them all.
    """
    parsed = parse_config(config)
    with _connection(server) as client:
        override = json_format.MessageToJson(parsed)
        client.load_model(parsed.name, config=override, client_timeout=LOAD_TIMEOUT_S, headers=_headers())
        for version in parsed.version_policy.specific.versions:
            if not client.is_model_ready(parsed.name, str(version), client_timeout=REQUEST_TIMEOUT_S):
                raise ServerError(f"{server}: expected version {version} of {parsed.name!r} to be ready after loading")


def last_requests(server: str, model: str) -> dict[int, float]:
    """When each loaded version of a model got its last request, in seconds since the epoch; 0 for never.

    Raises
    ------
    ServerError
        If the server does not answer.
    """
    with _connection(server) as client:
        statistics = client.get_inference_statistics(model, client_timeout=REQUEST_TIMEOUT_S)
    return {int(version.version): version.last_inference / 1000 for version in statistics.model_stats}


def _headers() -> dict[str, str] | None:
    """What opens the restricted protocols of an exposed server."""
    key = os.environ.get(ADMIN_KEY_VARIABLE)
    return {f"triton-grpc-protocol-{ADMIN_KEY_HEADER}": key} if key else None


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
