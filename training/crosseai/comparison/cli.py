"""``crosseai-train compare``: the methods of the paper's Table 1 with one command."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from crosseai.training.cli import data_options, decoding_bar
from crosseai.training.commands import Command, setting_options
from crosseai.training.config import RECIPES, FitConfig, usual_recipe
from crosseai.training.evaluation import mean_auc
from crosseai.training.layouts import Layout
from crosseai.training.progress import Epoch


@click.command(cls=Command)
@data_options
@click.option("--methods", default="all", metavar="all|NAME,...", help="Rows of the table.")
@click.option(
    "--boxes",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Boxes of radiologists, as x, y, w, h in 1024 px.  [default: BBox_List_2017.csv in --data]",
)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder for models, tables and plots.")
@click.option(
    "--config",
    "recipe",
    metavar="NAME|FILE",
    help=f"Settings that all methods share: {', '.join(RECIPES)}, or a TOML file; those not in it are the paper's.  "
    "[default: paper; for phantoms, phantoms]",
)
@setting_options
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Start every network from this state dict (safetensors, or a torch file of tensors only).",
)
@click.option(
    "--heatmap", default="gradcam++", help="Source of CrossEAI's heat map: gradcam++, gradcam, layercam, cam."
)
@click.option(
    "--gradient",
    default="guided",
    help="Source of CrossEAI's gradient map: guided, deconvnet, plain, smoothgrad, integrated.",
)
@click.option("--resamples", type=click.IntRange(min=100), default=1000, help="Of the bootstrap over patients.")
@click.option(
    "--replaced", type=click.IntRange(min=0), default=100, help="Findings that insertion and deletion are computed of."
)
def compare(
    data: Path,
    layout: Layout | None,
    cache: Path | None,
    methods: str,
    boxes: Path | None,
    output: Path,
    recipe: str | None,
    weights: Path | None,
    heatmap: Any,
    gradient: Any,
    resamples: int,
    replaced: int,
    **settings: Any,
) -> None:
    """Train the methods of the paper's Table 1 on a data set, and print that table.

    Judged are the boxes of test patients, each by a model that never saw the patient; the official test list of NIH is
    honoured. What --output holds already is not trained again, so that an interrupted comparison goes on, and rows can
    be added later.
    """
    from crosseai.comparison.cohort import read_cohort
    from crosseai.comparison.compare import compare as compare_methods
    from crosseai.comparison.methods import methods_named
    from crosseai.comparison.report import write_report
    from crosseai.comparison.tables import grids

    chosen = methods_named(methods, heatmap, gradient)
    given = {name: value for name, value in settings.items() if value is not None}
    config = FitConfig.load(recipe or usual_recipe(data)).changed(given)
    with decoding_bar() as on_decoded:
        cohort = read_cohort(data, config, boxes=boxes, layout=layout, cache=cache, on_decoded=on_decoded)
    comparison = compare_methods(
        cohort, chosen, config, output, weights=weights, resamples=resamples, replaced=replaced, on_epoch=_show_epoch
    )
    click.echo("\n\n".join(grid.text() for grid in grids(comparison)))
    names = [method.name for method in chosen]
    asked = {"methods": names, "heatmap": heatmap, "gradient": gradient, "resamples": resamples, "replaced": replaced}
    configuration = {**asked, "weights": weights and weights.name, **asdict(config)}
    written = write_report(comparison, output, configuration)
    click.echo(f"\nwritten to {output}: {', '.join(file.name for file in written)}")


def _show_epoch(name: str, epoch: Epoch) -> None:
    auc = mean_auc(epoch.validation_auc)
    click.echo(f"{name}: epoch {epoch.number:3d}  loss {epoch.loss:.4f}  validation AUC {auc:.3f}", err=True)
