"""``crosseai-client index``."""

import sys
import time
from pathlib import Path

import click

from crosseai.client.display import LINE_EVERY_S
from crosseai.client.exit_codes import EXIT_FAILED, exit_codes
from crosseai.client.sources.index import write_index


@click.command(name="index")
@click.argument("directory")
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="The manifest to write, a file named *.parquet."
)
def index_command(directory: str, output: Path) -> None:
    """List and hash every file below DIRECTORY, or a URL such as s3://BUCKET/FOLDER, into a manifest for `run`.

    The same command goes on where it was interrupted, and later reads only files whose size or time changed.

    Exit status: 0 all is well, 1 some files could not be read, 2 wrong usage.
    """
    shown_at = time.monotonic()

    def progress(files: int) -> None:
        nonlocal shown_at
        if time.monotonic() - shown_at >= LINE_EVERY_S:
            shown_at = time.monotonic()
            click.echo(f"{files} files", err=True)

    with exit_codes(lambda: "; the same command continues"):
        summary = write_index(directory, output, progress=progress)
    click.echo(f"{summary.files} files in {summary.manifest}, {summary.hashed} of them read now")
    if summary.unreadable:
        click.echo(f"{summary.unreadable} files cannot be read, and will fail in a run", err=True)
        sys.exit(EXIT_FAILED)
