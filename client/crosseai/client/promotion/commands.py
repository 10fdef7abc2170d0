"""The commands ``promote``, ``rollback`` and ``models`` of ``crosseai-client``."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from crosseai.client.promotion.gates import USUAL_GATES, read_gates
from crosseai.client.promotion.promote import Site, promote, rollback
from crosseai.client.promotion.registry import Registry
from crosseai.client.promotion.servers import is_served
from crosseai.contract import CHAMPION, ContractError, CrossEAIError, InputError, ServerError

MODEL = "crosseai"
EXIT_FAILED, EXIT_USAGE, EXIT_SERVER = 1, 2, 3


def _site_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options that say where to promote."""
    for option in (
        click.option("--reason", default="", help="Why, for the audit record."),
        click.option(
            "--audit-log",
            "log",
            type=click.Path(dir_okay=False, path_type=Path),
            default=Path("promotions.jsonl"),
            show_default=True,
            help="File that every step is appended to; the version's tags in MLflow get the same.",
        ),
        click.option(
            "--timeout", "timeout_s", default=300.0, show_default=True, help="Seconds a server may take for a change."
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
            "--repository",
            type=click.Path(file_okay=False, path_type=Path),
            help="Model repository of the only server, to be changed from here. [default: `crosseai-serve deploy "
            "--watch` runs beside each server]",
        ),
        click.option("--server", "servers", multiple=True, help="grpc://HOST:PORT of a server; may be repeated."),
    ):
        command = option(command)
    return command


@click.command("promote")
@click.argument("version")
@click.option("--to", "alias", type=click.Choice([CHAMPION]), required=True, help="What it shall become.")
@click.option("--gate", "gate_file", type=click.Path(path_type=Path), help="Gates in YAML. [default: the usual ones]")
@click.option("--dry-run", is_flag=True, help="Only fetch it, and evaluate the gates that need no server.")
@_site_options
def promote_command(version: str, alias: str, gate_file: Path | None, dry_run: bool, **site: Any) -> None:
    """Make VERSION (crosseai/7) the champion, without losing a request.

    It is fetched and verified, passes the gates, is loaded beside the running version, and must answer recorded images
    as PyTorch did; then the alias moves, and the old version is unloaded once its clients have left. Whatever fails,
    the old version goes on serving. Exit status: 0 done, 1 or 2 refused, 3 a server failed.
    """
    del alias  # there is one; the option says aloud what happens
    with _exit_codes():
        name, number = _parse(version)
        gates = USUAL_GATES if gate_file is None else read_gates(gate_file)
        promote(name, number, Site(**site), gates=gates, dry_run=dry_run, tell=_tell)
        click.echo(f"{version} would pass so far" if dry_run else f"{version} is the {CHAMPION}")


@click.command("rollback")
@click.argument("model", default=MODEL)
@_site_options
def rollback_command(model: str, **site: Any) -> None:
    """Make the previous champion of MODEL the champion again, without losing a request."""
    with _exit_codes():
        number = rollback(model, Site(**site), tell=_tell)
        click.echo(f"{model}/{number} is the {CHAMPION}")


@click.command("models")
@click.argument("model", default=MODEL)
@click.option("--server", "servers", multiple=True, help="grpc://HOST:PORT of a server to ask; may be repeated.")
def models_command(model: str, servers: tuple[str, ...]) -> None:
    """List the registered versions of MODEL: aliases, metrics, and which servers have loaded them."""
    with _exit_codes():
        registry = Registry(model)
        aliases = registry.aliases()
        table = Table("version", "aliases", "metrics", "SHA-256", *(["loaded on"] if servers else []))
        for listed in registry.versions():
            names = ", ".join(alias for alias, version in aliases.items() if version == listed.version)
            metrics = ", ".join(
                f"{name} {value:.4f}" for name, value in sorted(listed.metrics.items()) if "mean" in name
            )
            loaded = [s for s in servers if is_served(s, model, listed.version)]
            cells = [", ".join(loaded)] if servers else []
            table.add_row(str(listed.version), names, metrics, listed.sha256[:12], *cells)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _parse(version: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:models:/)?([^/@]+)/(\d+)", version)
    if match is None:
        raise InputError(f"expected NAME/VERSION, for example {MODEL}/7, found {version!r}")
    return match[1], int(match[2])


def _tell(line: str) -> None:
    click.echo(line, err=True)


@contextmanager
def _exit_codes() -> Iterator[None]:
    """One message and a status for each kind of error."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("interrupted; the old version goes on serving", err=True)
        sys.exit(130)
    except ServerError as error:
        click.echo(f"server: {error}", err=True)
        sys.exit(EXIT_SERVER)
    except (InputError, ContractError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_USAGE)
    except CrossEAIError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_FAILED)
