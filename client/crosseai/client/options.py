"""Command-line options that belong together: which servers to ask and how, and how radiographs are read."""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypeAlias, get_args

import click

from crosseai.client.job import Engine
from crosseai.client.servers.credentials import TOKEN_VARIABLE, Credentials, read_token
from crosseai.imaging import DEFAULT_POLICY, ReadPolicy

_FILE = click.Path(path_type=Path)
_Command: TypeAlias = Callable[..., None]

_CREDENTIALS = (
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
)


def credential_options(command: _Command) -> _Command:
    """Add the options; the command gets ``credentials``, a function, so that its errors are the command's."""

    @wraps(command)
    def wrapper(
        *, tls_ca: Path | None, tls_cert: Path | None, tls_key: Path | None, token_file: Path | None, **arguments: Any
    ) -> None:
        def credentials() -> Credentials:
            return Credentials(ca=tls_ca, certificate=tls_cert, key=tls_key, token=read_token(token_file))

        command(credentials=credentials, **arguments)

    return with_options(_CREDENTIALS, wrapper)


_SERVERS = (
    click.option(
        "--server",
        help="grpc://HOST:PORT of a Triton server, grpcs:// for TLS; dns:///HOST:PORT for all servers behind a DNS "
        "name; several separated by commas.  "
        "[default: an embedded one]",
    ),
    click.option("--model-version", help="Version to ask of --server.  [default: its champion, else its newest]"),
    credential_options,
    click.option("--timeout", "timeout_s", default=120.0, show_default=True, help="Deadline of a call, in seconds."),
)


def server_options(command: _Command) -> _Command:
    """Add the options; the command gets ``server``, ``model_version``, ``timeout_s`` and ``credentials``."""
    return with_options(_SERVERS, command)


_ENGINE_OPTIONS = (
    click.option(
        "--engine",
        type=click.Choice(get_args(Engine)),
        default="local",
        show_default=True,
        help="Where files are decoded, and requests sent from: this process, or the workers of a Ray cluster "
        "(pip install 'crosseai[ray]'), each of which must reach the files and --output by the same names.",
    ),
    click.option(
        "--ray-address",
        help="HOST:PORT of a Ray cluster, or auto for the one that this machine is part of.  "
        "[default: one on this machine, for the time of the run]",
    ),
    click.option("--in-flight", type=int, help="Requests under way at a time, for each server.  [default: measured]"),
    click.option("--decoders", type=int, help="Files decoded at a time.  [default: measured]"),
)


def engine_options(command: _Command) -> _Command:
    """Add the options; the command gets ``engine``, ``ray_address``, ``in_flight`` and ``decoders``."""
    return with_options(_ENGINE_OPTIONS, command)


_READ_OPTIONS = (
    click.option(
        "--views",
        default=",".join(DEFAULT_POLICY.views),
        show_default=True,
        help="Accepted views of DICOM files, separated by commas; any: all of them. A file that states none is scored "
        "with a warning.",
    ),
    click.option(
        "--window",
        type=int,
        help="Which of a DICOM file's windows is shown, from 1; files without it fail.  "
        "[default: the VOI LUT, else the first window]",
    ),
    click.option(
        "--max-pixels",
        default=DEFAULT_POLICY.max_pixels,
        show_default=True,
        help="Greatest number of pixels that is decoded; larger images fail.",
    ),
    click.option(
        "--with-identifiers",
        is_flag=True,
        help="Name patient, study and image in errors.jsonl, and make pictures of images with text burned in. Without "
        "it nothing that is written names anybody, but DICOM objects.",
    ),
)


def read_options(command: _Command) -> _Command:
    """Add the options; the command gets ``reading``, a function that gives the :class:`ReadPolicy`."""

    @wraps(command)
    def wrapper(*, views: str, window: int | None, max_pixels: int, with_identifiers: bool, **arguments: Any) -> None:
        def reading() -> ReadPolicy:
            accepted = () if views == "any" else tuple(view.strip() for view in views.split(","))
            return ReadPolicy(accepted, window, max_pixels, with_identifiers)

        command(reading=reading, **arguments)

    return with_options(_READ_OPTIONS, wrapper)


def with_options(options: Sequence[Callable[[_Command], _Command]], command: _Command) -> _Command:
    """A command with options, which its help shows in this order."""
    for option in reversed(options):
        command = option(command)
    return command
