"""A comparison as tables of text."""

import numpy as np

from crosseai.client.evaluation import MEAN, THRESHOLDS
from crosseai.comparison import published
from crosseai.comparison.compare import EXPLANATION_SCORES, SANITY_FINDINGS, Comparison, Result
from crosseai.comparison.grid import Grid, cell
from crosseai.comparison.methods import REFERENCE
from crosseai.comparison.proposals import COLUMNS
from crosseai.comparison.scores import MEAN_OF_PAPER, Resampled, paired_test
from crosseai.training.bootstrap import Estimate
from crosseai.training.judge import SCALP_MEAN_AUC, WANG_2017_AUC

NONE = "-"


def grids(comparison: Comparison) -> list[Grid]:
    """All tables, the shortest first."""
    others = (explanation_grid, sanity_grid, auc_grid, proposals_grid)
    return [summary(comparison), *accuracy_grids(comparison), *(grid(comparison) for grid in others)]


def summary(comparison: Comparison) -> Grid:
    """Mean over diseases and T(IoU), and the paired test against CrossEAI."""
    reference = next((result for result in comparison.results if result.method.name == REFERENCE), None)
    rows = []
    for result in comparison.results:
        difference, p = "", ""
        if reference is not None and result is not reference:
            found, probability = paired_test(result.accuracy, reference.accuracy)
            difference, p = cell(found, sign="+"), f"{probability:.3f}"
        reported = _figure(published.mean_accuracy(result.method.name))
        means = (cell(figure) for figure in (_last(result.accuracy.average()), _last(result.mean_iou)))
        without = f"{(~result.boxes.any(1)).mean():.2f}"
        rows.append((result.method.title, *means, without, difference, p, reported))
    boxes, patients = len(comparison.truth.findings), len(set(comparison.truth.patients))
    header = (
        f"{boxes} boxes of {patients} patients",
        "accuracy",
        "mean IoU",
        "without a box",
        "accuracy less CrossEAI's",
        "p",
        "published",
    )
    return Grid("Mean over diseases and T(IoU) 0.1 to 0.7", header, rows)


def accuracy_grids(comparison: Comparison) -> list[Grid]:
    """Table 1: share of boxes with IoU >= T, one grid a disease, each method above what is published of it."""
    tables = [(result, result.accuracy.estimates()) for result in comparison.results]
    grids = []
    for r, (row, count) in enumerate(comparison.truth.counts().items()):
        lines: list[tuple[str, ...]] = []
        for result, table in tables:
            lines.append((result.method.title, *map(cell, table[r])))
            if reported := reported_accuracy(result, row):
                lines.append(("  published", *map(_figure, reported)))
        header = ("", *(f"T={t}" for t in THRESHOLDS))
        grids.append(Grid(f"{row} ({count} boxes): share with IoU >= T", header, lines))
    return grids


def auc_grid(comparison: Comparison) -> Grid:
    """AUC of each classifier by disease, on all images of the test part; methods may share one."""
    judged = {result.method.training: result.classification for result in comparison.results}
    first = comparison.results[0].classification
    rows = [
        (
            f"{disease} ({judgement.positives})",
            *(cell(one.diseases[disease].auc) for one in judged.values()),
            _figure(WANG_2017_AUC.get(disease, np.nan)),
        )
        for disease, judgement in first.diseases.items()
    ]
    same = set(first.diseases) == set(WANG_2017_AUC)
    means = f"{np.mean(list(WANG_2017_AUC.values())):.2f}; SCALP {SCALP_MEAN_AUC:.2f}" if same else NONE
    rows.append((MEAN, *(cell(one.mean_auc) for one in judged.values()), means))
    title = f"AUC by classifier ({first.images} images of {first.patients} patients)"
    return Grid(title, ("", *judged, "published: Wang 2017"), rows)


def explanation_grid(comparison: Comparison) -> Grid:
    """Scores of the maps behind the boxes, means over diseases."""
    rows = [(result.method.title, *map(cell, result.explanation.estimates()[-1])) for result in comparison.results]
    return Grid(
        f"Maps (insertion and deletion of {comparison.results[0].replaced} findings)", ("", *EXPLANATION_SCORES), rows
    )


def sanity_grid(comparison: Comparison) -> Grid:
    """Rank correlation of the maps with those of a network with random weights from the logits down to each module."""
    checks = [(result.method.title, result.sanity) for result in comparison.results if result.sanity is not None]
    stages = checks[0][1].stages if checks else ()
    rows = [(title, *(_figure(mean) for mean in check.rank_correlations.mean(1))) for title, check in checks]
    return Grid(
        f"Sanity check: rank correlation of maps, {SANITY_FINDINGS} findings", ("random down to", *stages), rows
    )


def proposals_grid(comparison: Comparison) -> Grid:
    """Mean accuracy if any proposal counts, and false positives a finding, as Wang et al. 2017 report them."""
    rows = []
    for result in comparison.results:
        pairs = zip(result.found_by_any.values[-1], result.false_positives.values[-1], strict=True)
        rows.append((result.method.title, *(f"{hit:.2f}; {wrong:.1f}" for hit, wrong in pairs)))
    return Grid("Any proposed box counts: mean accuracy; false positives a finding", ("", *COLUMNS), rows)


def paper_layout(comparison: Comparison) -> Grid:
    """Table 1 as printed in the paper: T(IoU) and disease down, methods across, published figures in brackets."""
    rows = []
    for t, threshold in enumerate(THRESHOLDS):
        for r, row in enumerate(comparison.truth.counts()):
            cells = []
            for result in comparison.results:
                reported = reported_accuracy(result, row)
                cells.append(_figure(result.accuracy.values[r, t]) + (f" ({reported[t]:.2f})" if reported else ""))
            rows.append((f"{threshold}", row, *cells))
    titles = (result.method.title for result in comparison.results)
    return Grid("Table 1 (published figures in brackets)", ("T(IoU)", "Label", *titles), rows)


def reported_accuracy(result: Result, row: str) -> tuple[float, ...] | None:
    """What Table 1 of the paper reports of a method in a row; its mean is of six diseases."""
    name = MEAN if row == MEAN_OF_PAPER else row
    return published.TABLE_1.get(result.method.name, {}).get(name)


def _last(figures: Resampled) -> Estimate:
    return figures.estimates()[-1][0]


def _figure(value: float) -> str:
    return NONE if np.isnan(value) else f"{value:.2f}"
