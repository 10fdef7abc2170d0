"""Asking a running Triton server what it serves, and to load models."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tritonclient.grpc
from google.protobuf import json_format, text_format
from tritonclient.utils import InferenceServerException

from crosseai.contract import InferenceTimeout, InputError, ServerError, ServerUnavailable
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


@dataclass(frozen=True, slots=True)
class Tls:
    """Files for an encrypted connection, all PEM.

    Parameters
    ----------
    ca
        Certificate authorities that vouch for the other side.
    certificate, key
        One's own certificate chain and private key.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @property
    def is_given(self) -> bool:
        """Whether there is any file."""
        return any((self.ca, self.certificate, self.key))


NO_TLS = Tls()


@dataclass(frozen=True, slots=True)
class Control:
    """A running server as its administrator sees it: what it serves, and what it shall serve.

    Parameters
    ----------
    server
        gRPC address: ``grpc://HOST:PORT``, ``grpcs://HOST:PORT`` for TLS, or ``HOST:PORT``, which means TLS where there
        are files for it.
    tls
        Files for TLS.

    Raises
    ------
    ServerError
        In every method, if the server does not answer, or refuses.
    InputError
        In every method, if a file for TLS cannot be read, or is given for an unencrypted connection.
    """

    server: str
    tls: Tls = NO_TLS

    def __str__(self) -> str:
        return self.server

    def status(self) -> list[VersionStatus]:
        """List models and versions in the server's repository."""
        with self._connection() as client:
            index = client.get_model_repository_index(client_timeout=REQUEST_TIMEOUT_S, headers=_headers())
        return [VersionStatus(entry.name, entry.version, entry.state, entry.reason) for entry in index.models]

    def load_model(self, model: str, version: int) -> None:
        """Load a model anew from the repository, and check that a version of it is ready.

        Raises
        ------
        ServerError
            If it is not.
        """
        with self._connection() as client:
            client.load_model(model, client_timeout=LOAD_TIMEOUT_S, headers=_headers())
            if not client.is_model_ready(model, str(version), client_timeout=REQUEST_TIMEOUT_S):
                raise ServerError(
                    f"{self}: expected version {version} of {model!r} to be ready after loading; it is not. "
                    "Does the server use this repository?"
                )

    def configuration(self, model: str) -> str:
        """``config.pbtxt`` of a model as the server has it loaded.

        Raises
        ------
        ServerError
            If it has no version of the model loaded.
        """
        with self._connection() as client:
            return text_format.MessageToString(client.get_model_config(model, client_timeout=REQUEST_TIMEOUT_S).config)

    def load_configuration(self, config: str) -> None:
        """Load the versions that a configuration lists, instead of those that are loaded.

        Triton starts the new versions beside the old ones, then switches; requests under way are answered by those
        that they were sent to. If one version cannot be loaded, everything stays as it was. The files must be in the
        server's repository; its ``config.pbtxt`` there is neither read nor written.

        Parameters
        ----------
        config
            Text of a ``config.pbtxt``.

        Raises
        ------
        ServerError
            If it cannot load them all.
        """
        parsed = parse_config(config)
        with self._connection() as client:
            override = json_format.MessageToJson(parsed)
            client.load_model(parsed.name, config=override, client_timeout=LOAD_TIMEOUT_S, headers=_headers())
            for version in parsed.version_policy.specific.versions:
                if not client.is_model_ready(parsed.name, str(version), client_timeout=REQUEST_TIMEOUT_S):
                    raise ServerError(
                        f"{self}: expected version {version} of {parsed.name!r} to be ready after loading"
                    )

    def last_requests(self, model: str) -> dict[int, float]:
        """When each loaded version of a model got its last request, in seconds since the epoch; 0 for never."""
        with self._connection() as client:
            statistics = client.get_inference_statistics(model, client_timeout=REQUEST_TIMEOUT_S)
        return {int(version.version): version.last_inference / 1000 for version in statistics.model_stats}

    @contextmanager
    def _connection(self) -> Iterator[tritonclient.grpc.InferenceServerClient]:
        """Connect for a few calls, and turn their errors into ours."""
        scheme, _, address = self.server.rpartition("://")
        encrypted = scheme == "grpcs" or (not scheme and self.tls.is_given)
        if self.tls.is_given and not encrypted:
            raise InputError(f"server {self}: expected grpcs://HOST:PORT together with TLS files")
        ca, certificate, key = (_readable(file) for file in (self.tls.ca, self.tls.certificate, self.tls.key))
        client = tritonclient.grpc.InferenceServerClient(
            address, ssl=encrypted, root_certificates=ca, certificate_chain=certificate, private_key=key
        )
        with client:
            try:
                yield client
            except InferenceServerException as error:
                kind = _ERRORS.get(error.status() or "", ServerError)
                raise kind(f"Triton at {self}: {error.message()}") from error


def _readable(file: Path | None) -> str | None:
    """A PEM file's name, once it has been read."""
    try:
        if file is not None:
            file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: expected a PEM file for TLS: {error.strerror}") from error
    return None if file is None else str(file)


def _headers() -> dict[str, str] | None:
    """What opens the restricted protocols of an exposed server."""
    key = os.environ.get(ADMIN_KEY_VARIABLE)
    return {f"triton-grpc-protocol-{ADMIN_KEY_HEADER}": key} if key else None


_ERRORS: dict[str, type[ServerError]] = {
    "StatusCode.UNAVAILABLE": ServerUnavailable,
    "StatusCode.DEADLINE_EXCEEDED": InferenceTimeout,
}
