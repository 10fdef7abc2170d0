"""Command-line options for TLS."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from crosseai.serve.control import Tls

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def tls_options(ca: str, certificate: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options for TLS, PEM files all; the command gets ``tls``."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def wrapper(*, tls_ca: Path | None, tls_cert: Path | None, tls_key: Path | None, **arguments: Any) -> None:
            if (tls_cert is None) != (tls_key is None):
                raise click.UsageError("--tls-cert and --tls-key need each other")
            command(tls=Tls(tls_ca, tls_cert, tls_key), **arguments)

        options = {"--tls-ca": ca, "--tls-cert": certificate, "--tls-key": "PEM file with the key of --tls-cert."}
        for name, text in reversed(options.items()):
            wrapper = click.option(name, type=_FILE, help=text)(wrapper)
        return wrapper

    return decorate


client_tls_options = tls_options(
    "PEM file of the authorities that may vouch for --server.", "PEM file with the certificate to show to --server."
)
