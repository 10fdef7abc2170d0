"""``crosseai-train``: phantoms, training and evaluation from the command line."""

import math
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import click

from crosseai.contract import RESEARCH_NOTICE, Architecture
from crosseai.training.commands import Group
from crosseai.training.evaluation import mean_auc
from crosseai.training.loop import Epoch, FitConfig
from crosseai.training.model import ARCHITECTURES
from crosseai.training.split import PARTS, Part

_DEFAULTS = FitConfig()
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group(
    cls=Group,
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
@click.option("--data", type=_FOLDER, required=True, help="Data set in the NIH layout.")
@click.option(
    "--architecture",
    type=click.Choice(list(ARCHITECTURES)),
    default=_DEFAULTS.architecture.name,
    help="ResNet of bottleneck blocks.",
)
@click.option(
    "--width",
    type=click.IntRange(min=1),
    default=_DEFAULTS.architecture.width,
    help="Channels of the stem; the published network has 64.",
)
@click.option("--triplet-attention/--no-triplet-attention", default=True, help="Triplet attention in every block.")
@click.option("--input-size", type=click.IntRange(min=32), default=_DEFAULTS.input_size, help="Side, in pixels.")
@click.option("--epochs", type=click.IntRange(min=1), default=_DEFAULTS.epochs, help="Passes over the training part.")
@click.option("--batch", type=click.IntRange(min=2), default=_DEFAULTS.batch_size, help="Images a step.")
@click.option("--lr", type=float, default=_DEFAULTS.learning_rate, help="Peak learning rate of AdamW.")
@click.option("--weight-decay", type=float, default=_DEFAULTS.weight_decay, help="Decoupled weight decay.")
@click.option("--seed", type=int, default=_DEFAULTS.seed, help="Decides split, fresh weights, order, augmentation.")
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Start from this state dict (safetensors, or a torch file of tensors only).",
)
@click.option("--cache", type=click.Path(path_type=Path), help="Folder for decoded images.  [default: inside --data]")
@click.option(
    "--output", type=click.Path(path_type=Path), help="Also write checkpoint/, metrics.json and split.csv here."
)
def fit(
    data: Path,
    architecture: str,
    width: int,
    triplet_attention: bool,
    input_size: int,
    epochs: int,
    batch: int,
    lr: float,
    weight_decay: float,
    seed: int,
    weights: Path | None,
    cache: Path | None,
    output: Path | None,
) -> None:
    """Train a classifier and record the run in MLflow.

    Patients are divided 70/10/20 into train, validation and test; the epoch with the best mean validation AUC is kept.
    The run goes to MLFLOW_TRACKING_URI, by default sqlite:///mlflow.db in the working folder.

    The last line on stdout is the run's URI, runs:/ID, which crosseai-export takes.
    """
    from crosseai.training.fit import fit as fit_classifier

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the run is recorded as killed
    network = Architecture(architecture, triplet_attention, width)
    config = FitConfig(network, input_size, epochs, batch, lr, weight_decay, seed)
    report = fit_classifier(data, config, weights=weights, cache=cache, output=output, on_epoch=_show_epoch)
    click.echo(f"test AUC (weights of epoch {report.best_epoch.number})")
    _show_auc(report.test_auc)
    click.echo(report.run_uri)


@main.command()
@click.option("--model", required=True, help="Checkpoint folder, runs:/ID, models:/NAME/VERSION or models:/NAME@ALIAS.")
@click.option("--data", type=_FOLDER, required=True, help="Data set in the NIH layout.")
@click.option(
    "--part",
    type=click.Choice([*PARTS, "all"]),
    default="test",
    help="Patients to evaluate, divided as in training; all is for data that the model never saw.",
)
@click.option("--cache", type=click.Path(path_type=Path), help="Folder for decoded images.  [default: inside --data]")
def evaluate(model: str, data: Path, part: Part | Literal["all"], cache: Path | None) -> None:
    """Print the AUC of every disease."""
    from crosseai.training.fit import evaluate as evaluate_classifier
    from crosseai.training.tracking import resolve_checkpoint

    chosen = None if part == "all" else part
    evaluation = evaluate_classifier(resolve_checkpoint(model), data, part=chosen, cache=cache)
    click.echo(f"{part} AUC ({evaluation.images} images)")
    _show_auc(evaluation.auc, evaluation.positives)


def _show_epoch(epoch: Epoch) -> None:
    click.echo(
        f"epoch {epoch.number:3d}  loss {epoch.loss:.4f}  validation AUC {mean_auc(epoch.validation_auc):.3f}", err=True
    )


def _show_auc(auc: Mapping[str, float], positives: Mapping[str, int] | None = None) -> None:
    for disease, value in auc.items():
        count = f"  {positives[disease]} positive" if positives is not None else ""
        click.echo(f"  {disease:<14}{'  -  ' if math.isnan(value) else f'{value:.3f}'}{count}")
    click.echo(f"  {'mean':<14}{mean_auc(auc):.3f}")
