"""Command-line options that say which servers to ask, and how."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from crosseai.client.credentials import TOKEN_VARIABLE, Credentials, read_token

_FILE = click.Path(path_type=Path)

_OPTIONS = (
    click.option(
        "--server",
        help="grpc://HOST:PORT of a Triton server, grpcs:// for TLS; several separated by commas.  "
        "[default: an embedded one]",
    ),
    click.option("--model-version", help="Version to ask of --server.  [default: the newest that it has loaded]"),
    click.option(
        "--tls-ca",
        type=_FILE,
        help="PEM file of the authorities that may vouch for --server.  [default: those of gRPC]",
    ),
    click.option("--tls-cert", type=_FILE, help="PEM file with this client's certificate chain.  [default: none]"),
    click.option("--tls-key", type=_FILE, help="PEM file with the key of --tls-cert.  [default: none]"),
    click.option(
        "--token-file",
        type=_FILE,
        help="File with a bearer token, sent over TLS or to this machine only.  "
        f"[default: the variable {TOKEN_VARIABLE}]",
    ),
    click.option("--timeout", "timeout_s", default=120.0, show_default=True, help="Deadline of a call, in seconds."),
)


def server_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options; the command gets ``server``, ``model_version``, ``timeout_s`` and ``credentials``.

    ``credentials`` is a function, so that its errors are the command's.
    """

    @wraps(command)
    def wrapper(
        *, tls_ca: Path | None, tls_cert: Path | None, tls_key: Path | None, token_file: Path | None, **arguments: Any
    ) -> None:
        def credentials() -> Credentials:
            return Credentials(ca=tls_ca, certificate=tls_cert, key=tls_key, token=read_token(token_file))

        command(credentials=credentials, **arguments)

    for option in reversed(_OPTIONS):
        wrapper = option(wrapper)
    return wrapper
