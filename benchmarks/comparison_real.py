"""The methods of the paper's Table 1 that explain a given classifier, on real radiographs with real weights.

    python -m benchmarks.comparison_real

Writes ``comparison_real.md``. The weights are one plain classifier: the methods that train a network of their own have
none here.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import numpy.typing as npt

from benchmarks.explanations import CACHE, SHARED_DATA, real_classifier
from crosseai.comparison.cohort import BOXES_FILENAME, Cohort, read_boxes
from crosseai.comparison.compare import Comparison, Result, judged, truth_of
from crosseai.comparison.constant import ConstantBox
from crosseai.comparison.gradcam import ContrastiveMethod
from crosseai.comparison.methods import all_methods
from crosseai.comparison.tables import accuracy_grids, auc_grid, explanation_grid, proposals_grid, sanity_grid, summary
from crosseai.comparison.trained import trained
from crosseai.training.cache import decoded_images
from crosseai.training.config import FitConfig
from crosseai.training.dataset import read_labelled_radiographs
from crosseai.training.feed import TrainingData
from crosseai.training.split import Split

METHODS = ("scalp", "scalp-contours", "crosseai", "crosseai-tuned")


def compare_on(data: Path, weights: Path) -> Comparison:
    """Every boxed image of a data set, explained from given weights, beside the best constant box."""
    model, spec = real_classifier(weights)
    radiographs = read_labelled_radiographs(data)
    images = decoded_images(radiographs, spec, CACHE / "comparison_real")
    boxes = read_boxes(data / BOXES_FILENAME, radiographs, spec.input_size)
    rows, none = np.unique(boxes.rows), np.empty(0, np.int64)
    training_data = TrainingData(radiographs, images, Split(train=none, validation=none, test=rows))
    cohort = Cohort(data, None, CACHE, training_data, boxes)
    results = [_constant(cohort, rows, FitConfig(input_size=spec.input_size))]
    for name in METHODS:
        method = all_methods()[name]
        assert isinstance(method, ContrastiveMethod)  # noqa: S101  for the type checker
        results.append(judged(method, [(method.explain(model, spec), rows)], cohort, rows, replaced=0))
    return Comparison(cohort, truth_of(cohort, rows), tuple(results))


def _constant(cohort: Cohort, rows: npt.NDArray[np.int64], config: FitConfig) -> Result:
    method = ConstantBox()
    with TemporaryDirectory() as folder:
        parts = trained(method, cohort, config, Path(folder), weights=None, on_epoch=lambda _name, _epoch: None)
        localisers = [(method.load(config, learnt), part.data.split.test) for part, learnt in parts]
    return judged(method, localisers, cohort, rows, replaced=0)


def report(comparison: Comparison) -> Iterator[str]:
    """Lines of the Markdown file."""
    yield "# The methods that explain a given classifier, on real radiographs"
    yield ""
    yield (
        f"{datetime.now(UTC):%Y-%m-%d}, by `python -m benchmarks.comparison_real`. Images and boxes of NIH;"
        " a plain ResNet-50 of modest training, without contrastive loss, that never saw these images. Accuracy is the"
        " share of boxes with IoU >= T; brackets are 95 % intervals of a bootstrap over patients, p is of the paired"
        " one. The constant box of a disease is that of other patients (five folds), and of so few boxes a poor one:"
        " one box for all diseases has a mean IoU of 0.15 (`presets.md`). Published are the papers' own models on all"
        " boxes: they and these few cannot be compared. The classifier is called contrastive in the AUC table for its"
        " place."
    )
    *_, of_six, mean = accuracy_grids(comparison)
    others = (explanation_grid, sanity_grid, auc_grid, proposals_grid)
    for grid in (summary(comparison), of_six, mean, *(make(comparison) for make in others)):
        yield from ("", grid.markdown())


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path(__file__).with_suffix(".md"))
def main(output: Path) -> None:
    """Explain, judge, write."""
    if not SHARED_DATA.is_dir():
        raise click.ClickException("expected the real radiographs and weights beside the checkout")
    comparison = compare_on(SHARED_DATA / "nih", SHARED_DATA / "weights")
    output.write_text("\n".join(report(comparison)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
