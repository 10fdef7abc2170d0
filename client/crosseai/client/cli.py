"""``crosseai-client``: score radiographs, evaluate boxes."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from crosseai.client.doctor import diagnose
from crosseai.client.evaluation import LocalisationTable, evaluate_boxes, read_scored_boxes
from crosseai.client.exit_codes import EXIT_FAILED, EXIT_SERVER, exit_codes
from crosseai.client.index_command import index_command
from crosseai.client.memory import keep_freed_memory
from crosseai.client.options import server_options
from crosseai.client.promotion.commands import models_command, promote_command, rollback_command
from crosseai.client.records.manifest import read_configuration
from crosseai.client.report import write_report
from crosseai.client.run_command import run_command
from crosseai.client.servers.credentials import Credentials
from crosseai.client.servers.fleet import Fleet
from crosseai.contract import RESEARCH_NOTICE


@click.group(
    help=f"Score chest radiographs on a Triton server.\n\n{RESEARCH_NOTICE}",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="crosseai")
def main() -> None:
    """Entry point of ``crosseai-client``."""
    keep_freed_memory()
    # A shell starts background jobs with SIGINT ignored; both signals must end a run in order.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


@main.command()
@server_options
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Folder where results are to be written.  [default: the working folder]",
)
def doctor(
    output: Path,
    server: str | None,
    model_version: str | None,
    timeout_s: float,
    credentials: Callable[[], Credentials],
) -> None:
    """Check software, disk and servers, and say what to do.

    Exit status: 0 all is well, 1 something is not, 3 a server does not answer.
    """

    def fleet() -> Fleet | None:
        return Fleet(servers=server, credentials=credentials(), timeout_s=timeout_s) if server else None

    checks = diagnose(fleet, model_version, output)
    for check in checks:
        click.echo(f"{'FAIL' if check.advice else 'ok  '} {check.name}: {check.found}")
        if check.advice:
            click.echo(f"     {check.advice}")
    if any(check.advice for check in checks):
        sys.exit(EXIT_SERVER if any(check.unreachable for check in checks) else EXIT_FAILED)


@main.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--boxes", required=True, type=click.Path(path_type=Path), help="Ground truth in the layout of BBox_List_2017.csv."
)
def evaluate(output: Path, boxes: Path) -> None:
    """Compare the boxes in OUTPUT with ground truth: the share found at T(IoU) 0.1 to 0.7.

    Score with --explain BOXES first, so that the labelled diseases are the explained ones.
    """
    with exit_codes():
        predicted, ground_truth, left_out = read_scored_boxes(output, boxes)
        table = evaluate_boxes(predicted, ground_truth)
        explain = read_configuration(output)["explain"]
    _print_localisation(table)
    if explain != "all" and not explain.endswith(".csv"):
        click.echo(f"The run explained {explain}: a labelled disease that it did not explain counts as missed.")
    if left_out:
        click.echo(f"{left_out} ground-truth boxes were left out: the run did not score their images.")


@main.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--boxes", type=click.Path(path_type=Path), help="Ground truth in the layout of BBox_List_2017.csv.")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="Labels of whole images in the layout of Data_Entry_2017.csv, for ROC curves.",
)
def report(output: Path, boxes: Path | None, labels: Path | None) -> None:
    """Write OUTPUT/report.html: summary, gallery and viewer, to be opened in a browser without a network.

    Score with --write html first to see radiographs and maps in it.
    """
    with exit_codes():
        page = write_report(output, boxes, labels)
    click.echo(f"{page}, {page.stat().st_size / 1e6:.1f} MB")


def _print_localisation(table: LocalisationTable) -> None:
    grid = Table("disease", "boxes", "mean IoU", *(f"T={t:g}" for t in table.thresholds))
    for row, disease in enumerate(table.diseases):
        cells = (
            f"{table.accuracy[row, k]:.2f} [{table.low[row, k]:.2f}, {table.high[row, k]:.2f}]"
            for k in range(len(table.thresholds))
        )
        grid.add_row(disease, str(table.boxes[row]), f"{table.mean_iou[row]:.3f}", *cells)
    Console(width=None if sys.stdout.isatty() else 200).print(grid)


for _command in (run_command, index_command, promote_command, rollback_command, models_command):
    main.add_command(_command)

if __name__ == "__main__":
    main()
