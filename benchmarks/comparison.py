"""The methods of the paper's Table 1 on phantoms, and how much the boxes depend on t and threshold.

    python -m benchmarks.comparison

Writes ``comparison.md`` and its pictures. What all methods share is in ``comparison.toml``. Every network starts from
weights that were trained on other phantoms with cross-entropy alone, where the papers start from ImageNet's. What is
trained already in ``build/benchmarks/comparison`` is not trained again, so that the run may be interrupted.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from crosseai import postproc
from crosseai.comparison.cohort import Cohort, read_cohort
from crosseai.comparison.compare import TRAINED_FOLDER, Comparison, compare, truth_of
from crosseai.comparison.figures import accuracy_curves
from crosseai.comparison.gradcam import CrossEAI
from crosseai.comparison.grid import Grid
from crosseai.comparison.methods import all_methods
from crosseai.comparison.overlap import overlaps
from crosseai.comparison.scores import Truth, by_row, hits
from crosseai.comparison.tables import grids
from crosseai.contract import BoxParameters, box_preset
from crosseai.training.config import FitConfig
from crosseai.training.fit import fit
from crosseai.training.phantoms import write_phantoms
from crosseai.training.progress import Epoch

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "benchmarks" / "comparison"

PHANTOMS = {"first-weights": 32, "cohort": 31}
"""Seeds of two sets of a thousand; other seeds draw other patients. None of them chose the tuned preset."""

FIRST_WEIGHTS = {"epochs": 18, "learning_rate": 3e-3, "cross_entropy_weight": 1.0}

T_SWEEP = tuple(np.linspace(0, 1, 11).round(1).tolist())
THRESHOLD_SWEEP = tuple(np.linspace(0.1, 0.9, 9).round(2).tolist())


def phantoms(name: str) -> Path:
    """A thousand of them."""
    folder = BUILD / name
    if not folder.exists():
        write_phantoms(folder, count=1000, seed=PHANTOMS[name])
    return folder


def first_weights(config: FitConfig) -> Path:
    """Weights that every network starts from."""
    checkpoint = BUILD / "first-run" / "checkpoint"
    if not (checkpoint / "training.json").is_file():
        settings, output = config.changed(FIRST_WEIGHTS), checkpoint.parent
        fit(phantoms("first-weights"), settings, output=output, on_epoch=partial(_show, "first weights"))
    return checkpoint / "model.safetensors"


def on_phantoms(config: FitConfig) -> Comparison:
    """Every method trained, and judged on the test part."""
    cohort, methods = read_cohort(phantoms("cohort"), config), list(all_methods().values())
    return compare(cohort, methods, config, BUILD, weights=first_weights(config), on_epoch=_show)


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Mean accuracy over diseases and T(IoU) of the box algorithm, ``[t, threshold]``."""

    title: str
    accuracy: npt.NDArray[np.float64]


def sensitivities(config: FitConfig, cohort: Cohort) -> list[Sensitivity]:
    """The paper's steps and the tuned ones over a grid of t and threshold, on the test part of the phantoms."""
    method = CrossEAI("crosseai", "CrossEAI", "crosseai")
    localiser = method.load(config, BUILD / TRAINED_FOLDER / method.training)
    truth = truth_of(cohort, cohort.data.split.test)
    pairs = [
        localiser.explain(cohort.data.images[truth.findings.rows[chosen]], truth.findings.classes[chosen])
        for chosen in np.array_split(np.arange(len(truth.findings)), -(-len(truth.findings) // 32))
    ]
    heatmaps, gradients = (np.concatenate(maps) for maps in zip(*pairs, strict=True))
    found = []
    for title, preset in (("the paper's steps", box_preset("crosseai")), ("the tuned steps", box_preset("tuned"))):
        tried = [replace(preset, t=t, threshold=threshold) for t, threshold in product(T_SWEEP, THRESHOLD_SWEEP)]
        accuracy = np.array([mean_accuracy(heatmaps, gradients, truth, parameters) for parameters in tried])
        found.append(Sensitivity(title, accuracy.reshape(len(T_SWEEP), len(THRESHOLD_SWEEP))))
    return found


def mean_accuracy(
    heatmaps: npt.NDArray[np.float32], gradients: npt.NDArray[np.uint8], truth: Truth, parameters: BoxParameters
) -> float:
    """Mean over diseases and T(IoU) of one set of parameters."""
    boxes, _ = postproc.localize(heatmaps, gradients, **parameters.keywords())
    iou, _ = overlaps(boxes, truth.findings.boxes)
    return float(by_row(hits(iou), truth, resamples=1).values[-1].mean())


def sensitivity_picture(found: Sequence[Sensitivity]) -> Figure:
    """Two maps of accuracy over t and threshold, on one scale."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    highest = max(one.accuracy.max() for one in found)
    axes = figure.subplots(1, len(found), sharey=True)
    for axis, one in zip(axes, found, strict=True):
        drawn = axis.pcolormesh(THRESHOLD_SWEEP, T_SWEEP, one.accuracy, vmin=0, vmax=highest, cmap="viridis")
        axis.set_title(one.title, fontsize="medium")
        axis.set_xlabel("threshold")
        axis.plot(0.35, 0.3, "x", color="white")
    axes[0].set_ylabel("t, the share of the heat map")
    figure.colorbar(drawn, ax=axes, label="mean accuracy")
    return figure


def sensitivity_grid(one: Sensitivity) -> Grid:
    """The same in figures."""
    rows = [(f"{t}", *(f"{value:.3f}" for value in line)) for t, line in zip(T_SWEEP, one.accuracy, strict=True)]
    return Grid(f"Mean accuracy with {one.title}: t down, threshold across", ("t", *map(str, THRESHOLD_SWEEP)), rows)


def report(comparison: Comparison, swept: Sequence[Sensitivity], config: FitConfig) -> Iterator[str]:
    """Lines of the Markdown file."""
    split = comparison.cohort.data.split
    yield "# The methods of the paper's table, side by side"
    yield ""
    yield (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} CPU cores, by `python -m benchmarks.comparison`."
        f" {config.architecture} of width {config.width} at {config.input_size} px, settings in `comparison.toml`;"
        f" {len(split.train)} phantoms to train on, {len(split.validation)} to choose the epoch, {len(split.test)} to"
        " judge, divided by patient. Accuracy is the share of boxes with IoU >= T; brackets are 95 % intervals of a"
        " bootstrap over patients, p is of the paired one."
    )
    yield ""
    yield (
        "Phantoms are no patients: their findings have their places, which is why a constant box does so well, and heat"
        f" maps of {config.input_size // 32} pixels a side are coarse. Published figures are of"
        " NIH's images and stand beside these for orientation alone. The weights that every network starts from were"
        " trained on the same diseases of other phantoms; the papers start from ImageNet's."
    )
    for grid in grids(comparison):
        yield from ("", grid.markdown())
    yield from ("", "![accuracy over T(IoU)](comparison_accuracy.png)", "")
    yield from ("## Sensitivity to t and threshold (test phantoms)", "", "![accuracy](comparison_sensitivity.png)", "")
    yield "The cross is the paper's choice. The choice of t and threshold is not made from these maps."
    for one in swept:
        yield from ("", sensitivity_grid(one).markdown(3))


def _show(name: str, epoch: Epoch) -> None:
    click.echo(f"{datetime.now(UTC):%H:%M:%S} {name}: epoch {epoch.number}, loss {epoch.loss:.3f}", err=True)


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=HERE, help="Folder for the file and its pictures.")
def main(output: Path) -> None:
    """Train, judge, write."""
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{BUILD}/mlflow.db")
    BUILD.mkdir(parents=True, exist_ok=True)
    config = FitConfig.load(HERE / "comparison.toml")
    comparison = on_phantoms(config)
    swept = sensitivities(config, comparison.cohort)
    accuracy_curves(comparison).savefig(output / "comparison_accuracy.png", dpi=90)
    sensitivity_picture(swept).savefig(output / "comparison_sensitivity.png", dpi=90)
    text = "\n".join(report(comparison, swept, config))
    (output / "comparison.md").write_text(f"{text.rstrip()}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
