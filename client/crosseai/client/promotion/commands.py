"""The commands ``promote``, ``rollback`` and ``models`` of ``crosseai-client``."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from crosseai.client.exit_codes import exit_codes
from crosseai.client.options import credential_options, with_options
from crosseai.client.promotion.gates import USUAL_GATES, read_gates
from crosseai.client.promotion.promote import promote, rollback
from crosseai.client.promotion.registry import Registry, parse_version
from crosseai.client.promotion.servers import Server, Site
from crosseai.client.servers.credentials import Credentials
from crosseai.contract import CHAMPION

MODEL = "crosseai"

_FILE = click.Path(dir_okay=False, path_type=Path)


def _server_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options for servers; the command gets ``server`` and ``credentials``."""
    text = "grpc://HOST:PORT of a server, grpcs:// for TLS; several separated by commas."
    return click.option("--server", help=text)(credential_options(command))


_SITE = (
    _server_options,
    click.option(
        "--repository",
        type=click.Path(file_okay=False, path_type=Path),
        help="Model repository of the only server, to be changed from here. [default: `crosseai-serve deploy --watch` "
        "runs beside each server]",
    ),
    click.option(
        "--grace",
        "grace_s",
        type=click.FloatRange(0),
        default=60.0,
        show_default=True,
        help="With --repository: seconds that the old version stays after its last request.",
    ),
    click.option(
        "--timeout", "timeout_s", default=300.0, show_default=True, help="Seconds a server may take for a change."
    ),
    click.option(
        "--audit-log",
        "log",
        type=_FILE,
        default=Path("promotions.jsonl"),
        show_default=True,
        help="File that every step is appended to; the version's tags in MLflow get the same.",
    ),
    click.option("--reason", default="", help="Why, for the audit record."),
)


def _site_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that :func:`_site` takes."""
    return with_options(_SITE, command)


@click.command("promote")
@click.argument("version")
@click.option("--to", "alias", type=click.Choice([CHAMPION]), required=True, help="What it shall become.")
@click.option("--gate", "gate_file", type=click.Path(path_type=Path), help="Gates in YAML. [default: the usual ones]")
@click.option(
    "--dry-run", is_flag=True, help="Only fetch it, and evaluate the gates that need no server; nothing is recorded."
)
@_site_options
def promote_command(version: str, alias: str, gate_file: Path | None, dry_run: bool, **site: Any) -> None:
    """Make VERSION (crosseai/7) the champion, without losing a request.

    It is fetched and verified, passes the gates, is loaded beside the running version, and must answer recorded images
    as PyTorch did; then the alias moves, and the old version is unloaded once its clients have left. Whatever fails,
    the old version goes on serving. Exit status: 0 done, 1 or 2 refused, 3 a server failed.
    """
    del alias  # there is one; the option says aloud what happens
    with exit_codes(_advice):
        name, number = parse_version(version)
        gates = USUAL_GATES if gate_file is None else read_gates(gate_file)
        promote(name, number, _site(**site), gates=gates, dry_run=dry_run, tell=_tell)
        click.echo(f"{version} would pass so far" if dry_run else f"{version} is the {CHAMPION}")


@click.command("rollback")
@click.argument("model", default=MODEL)
@_site_options
def rollback_command(model: str, **site: Any) -> None:
    """Make the previous champion of MODEL the champion again, without losing a request."""
    with exit_codes(_advice):
        number = rollback(model, _site(**site), tell=_tell)
        click.echo(f"{model}/{number} is the {CHAMPION}")


@click.command("models")
@click.argument("model", default=MODEL)
@_server_options
def models_command(model: str, server: str | None, credentials: Callable[[], Credentials]) -> None:
    """List the registered versions of MODEL: aliases, metrics, and which servers have loaded them."""
    with exit_codes(_advice):
        given = credentials()
        servers = [Server(address, given) for address in _addresses(server)]
        registry = Registry(model)
        aliases = registry.aliases()
        table = Table("version", "aliases", "metrics", "SHA-256", *(["loaded on"] if servers else []))
        for listed in registry.versions():
            names = ", ".join(alias for alias, version in aliases.items() if version == listed.version)
            metrics = ", ".join(
                f"{name} {value:.4f}" for name, value in sorted(listed.metrics.items()) if "mean" in name
            )
            loaded = [str(one) for one in servers if one.has_loaded(model, listed.version)]
            cells = [", ".join(loaded)] if servers else []
            table.add_row(str(listed.version), names, metrics, listed.sha256[:12], *cells)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _addresses(server: str | None) -> list[str]:
    return [address.strip() for address in (server or "").split(",") if address.strip()]


def _site(
    *,
    server: str | None,
    credentials: Callable[[], Credentials],
    repository: Path | None,
    grace_s: float,
    timeout_s: float,
    log: Path,
    reason: str,
) -> Site:
    return Site(
        servers=_addresses(server),
        credentials=credentials(),
        repository=repository,
        grace_s=grace_s,
        timeout_s=timeout_s,
        log=log,
        reason=reason,
    )


def _advice() -> str:
    return "; `crosseai-client models` says which version is the champion"


def _tell(line: str) -> None:
    click.echo(line, err=True)
