"""How a client proves to a server who it is, and the other way round."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import grpc

from crosseai.contract import InputError, reason

TOKEN_VARIABLE = "CROSSEAI_TOKEN"  # noqa: S105 - the name of a variable, not a token


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """TLS and a bearer token for gRPC.

    Parameters
    ----------
    ca, certificate, key
        PEM files: the certificate authorities to trust instead of gRPC's own list, and this client's certificate
        chain and private key.
    token
        Sent as ``authorization: Bearer TOKEN``; never over an unencrypted connection to another machine.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    token: str | None = None

    def __repr__(self) -> str:
        return f"Credentials(ca={self.ca}, certificate={self.certificate})"

    @property
    def headers(self) -> Mapping[str, str] | None:
        """Metadata of every call."""
        return None if self.token is None else {"authorization": f"Bearer {self.token}"}

    def check(self) -> None:
        """Raise an InputError if certificate and key are not given together."""
        if (self.certificate is None) != (self.key is None):
            raise InputError("TLS: expected a client certificate together with its key, found only one of them")

    def channel(self, address: str, *, encrypted: bool) -> grpc.ChannelCredentials | None:
        """Credentials of a channel to ``HOST:PORT``; None for an unencrypted one.

        Raises
        ------
        InputError
            If a file cannot be read, certificate and key are not given together, TLS files are given for an
            unencrypted connection, or the token would travel unencrypted.
        """
        if not encrypted:
            if self.has_files:
                raise InputError(f"server {address}: expected grpcs://HOST:PORT together with TLS files, found grpc://")
            if self.token is not None and not is_loopback(address.rpartition(":")[0].strip("[]")):
                raise InputError(
                    f"server {address}: expected grpcs://HOST:PORT, as a token is never sent unencrypted; found grpc://"
                )
            return None
        self.check()
        return grpc.ssl_channel_credentials(
            _pem(self.ca, "CERTIFICATE"), _pem(self.key, "PRIVATE KEY"), _pem(self.certificate, "CERTIFICATE")
        )

    @property
    def has_files(self) -> bool:
        """Whether there are files for TLS."""
        return any(file is not None for file in (self.ca, self.certificate, self.key))


NO_CREDENTIALS = Credentials()


def read_token(file: Path | None) -> str | None:
    """The bearer token: from a file, else from the variable ``CROSSEAI_TOKEN``, else None.

    Raises
    ------
    InputError
        If the file cannot be read, or the token is not one word of printable ASCII.
    """
    try:
        token = os.environ.get(TOKEN_VARIABLE) if file is None else file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: expected a bearer token: {reason(error)}") from error
    if token is not None and not (token.isascii() and token.isprintable() and len(token.split()) == 1):
        source = TOKEN_VARIABLE if file is None else file
        raise InputError(f"{source}: expected a bearer token, one word of printable ASCII")
    return token


def _pem(file: Path | None, kind: str) -> bytes | None:
    if file is None:
        return None
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    if f"{kind}-----".encode() not in content:
        raise InputError(f"{file}: expected a PEM file with a {kind}, found none")
    return content


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
