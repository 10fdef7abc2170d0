"""``crosseai-train``: phantoms, training and evaluation from the command line."""

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click

from crosseai.contract import RESEARCH_NOTICE
from crosseai.training.cache import Progress
from crosseai.training.commands import Function, Group, setting_options
from crosseai.training.config import RECIPES, FitConfig, usual_recipe
from crosseai.training.evaluation import mean_auc
from crosseai.training.judge import SCALP_MEAN_AUC, WANG_2017_AUC, Evaluation
from crosseai.training.layouts import LAYOUTS, Layout
from crosseai.training.progress import Epoch
from crosseai.training.split import PARTS, Part

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


def data_options(command: Function) -> Function:
    """What is asked of every command that reads a data set."""
    for option in (
        click.option("--cache", type=click.Path(path_type=Path), help="Decoded images.  [default: inside --data]"),
        click.option("--layout", type=click.Choice(LAYOUTS), help="Layout of --data.  [default: told by its files]"),
        click.option("--data", type=_FOLDER, required=True, help="Data set: NIH, CheXpert, or labels.csv with images."),
    ):
        command = option(command)
    return command


@click.group(
    cls=Group,
    extensions="crosseai.train",
    help=f"Train the classifier of CrossEAI. {RESEARCH_NOTICE}",
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.version_option(package_name="crosseai")
def main() -> None:
    """Hold the commands."""


@main.command()
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder to write, in the NIH layout.")
@click.option("--count", type=click.IntRange(min=1), default=1000, help="Number of images.")
@click.option("--seed", type=int, default=0, help="The same seed draws the same images.")
@click.option(
    "--format", "image_format", type=click.Choice(["png", "dicom", "both"]), default="png", help="File format."
)
def phantoms(output: Path, count: int, seed: int, image_format: Literal["png", "dicom", "both"]) -> None:
    """Draw chest-like radiographs with planted findings of the eight ChestX-ray8 diseases."""
    from crosseai.training.phantoms import write_phantoms

    write_phantoms(output, count=count, seed=seed, image_format=image_format)
    click.echo(f"{count} phantoms in {output}")


@main.command()
@data_options
@click.option(
    "--config",
    "recipe",
    metavar="NAME|FILE",
    help=f"Settings: {', '.join(RECIPES)}, or a TOML file of them; those not in it are the paper's.  "
    "[default: paper; for phantoms, phantoms]",
)
@setting_options
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Start from this state dict (safetensors, or a torch file of tensors only).",
)
@click.option("--output", type=click.Path(path_type=Path), help="Also keep checkpoint/ and the report here.")
@click.option("--resume", is_flag=True, help="Go on with the run that was ended in --output.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="What trains: this process, or the workers of a Ray cluster (pip install 'crosseai[ray]'), each of which must "
    "see the data, --cache, --output and the working folder by the same names.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Workers of --engine ray, a GPU each where there are any.")
@click.option(
    "--ray-address",
    help="HOST:PORT of a Ray cluster, or auto for the one that this machine is part of.  "
    "[default: one on this machine, for the time of the run]",
)
def fit(
    data: Path,
    layout: Layout | None,
    cache: Path | None,
    recipe: str | None,
    weights: Path | None,
    output: Path | None,
    resume: bool,
    engine: Literal["local", "ray"],
    workers: int | None,
    ray_address: str | None,
    **settings: Any,
) -> None:
    """Train a classifier and record the run in MLflow.

    Patients are divided 70/10/20 into train, validation and test; the epoch with the best mean validation AUC is kept.
    The run goes to MLFLOW_TRACKING_URI, by default sqlite:///mlflow.db in the working folder. Settings given as options
    go before those of --config. On several GPUs: torchrun --nproc-per-node=N --no-python crosseai-train fit ...

    The last line on stdout is the run's URI, runs:/ID, which crosseai-export takes.
    """
    from crosseai.training.fit import fit as fit_classifier

    if resume and output is None:
        raise click.UsageError("--resume needs the --output of the run to go on with")
    if (engine == "ray") != (workers is not None) or (engine == "local" and ray_address is not None):
        raise click.UsageError("--engine ray needs --workers, and they and --ray-address need --engine ray")
    # As Ctrl-C: the run is recorded as killed, but for that of Ray's workers, which are ended before they can.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    given = {name: value for name, value in settings.items() if value is not None}
    run = partial(
        fit_classifier,
        data,
        FitConfig.load(recipe or usual_recipe(data)).changed(given),
        layout=layout,
        weights=weights,
        cache=cache,
        output=output,
        resume=resume,
        on_weights=_show_weights,
        on_epoch=_show_epoch,
    )
    if workers is not None:
        from crosseai.training.cluster import fit_on_ray

        report = fit_on_ray(run, workers, ray_address)
    else:
        with decoding_bar() as on_decoded:
            report = run(on_decoded=on_decoded)
    if report is not None:
        click.echo(f"test AUC (weights of epoch {report.best_epoch.number})")
        _show_evaluation(report.test)
        click.echo(report.run_uri)


@main.command()
@click.option("--model", required=True, help="Checkpoint folder, runs:/ID, models:/NAME/VERSION or models:/NAME@ALIAS.")
@data_options
@click.option(
    "--part",
    type=click.Choice([*PARTS, "all"]),
    default="test",
    help="Patients to evaluate, divided as in training; all is for data that the model never saw.",
)
def evaluate(model: str, data: Path, layout: Layout | None, cache: Path | None, part: Part | Literal["all"]) -> None:
    """Print the AUC of every disease beside the figures of the papers."""
    from crosseai.training.fit import evaluate as evaluate_classifier
    from crosseai.training.tracking import resolve_checkpoint

    chosen = None if part == "all" else part
    with decoding_bar() as on_decoded:
        evaluation = evaluate_classifier(
            resolve_checkpoint(model), data, layout=layout, part=chosen, cache=cache, on_decoded=on_decoded
        )
    click.echo(f"{part} AUC ({evaluation.images} images of {evaluation.patients} patients)")
    _show_evaluation(evaluation)


def _show_weights(matched: object) -> None:
    click.echo(f"weights: {matched}", err=True)


def _show_epoch(epoch: Epoch) -> None:
    click.echo(
        f"epoch {epoch.number:3d}  loss {epoch.loss:.4f}  validation AUC {mean_auc(epoch.validation_auc):.3f}", err=True
    )


def _show_evaluation(evaluation: Evaluation) -> None:
    click.echo(f"  {'':<20}{'positive':>8}  {'AUC':<21}  Wang 2017")
    for disease, judgement in evaluation.diseases.items():
        reference = f"{WANG_2017_AUC[disease]:.3f}" if disease in WANG_2017_AUC else ""
        click.echo(f"  {disease:<20}{judgement.positives:>8}  {judgement.auc!s:<21}  {reference}".rstrip())
    same = set(evaluation.diseases) == set(WANG_2017_AUC)
    means = f"{sum(WANG_2017_AUC.values()) / len(WANG_2017_AUC):.3f}; SCALP {SCALP_MEAN_AUC}" if same else ""
    click.echo(f"  {'mean':<20}{'':>8}  {evaluation.mean_auc!s:<21}  {means}".rstrip())
    click.echo("  95 % intervals by bootstrap over patients; the references are comparable on NIH's test images alone")


@contextmanager
def decoding_bar() -> Iterator[Progress]:
    """A progress bar for the images that are decoded; none where all are in the cache already."""
    with ExitStack() as shown:
        bars: list[Any] = []

        def advance(done: int, total: int) -> None:
            if not bars:
                bar = click.progressbar(length=total, label="decoding images", file=sys.stderr, show_pos=True)
                bars.append(shown.enter_context(bar))
            bars[0].length = total  # fewer when other processes have done some
            bars[0].update(1)
            if done == total:
                shown.close()
                bars.clear()

        yield advance
