"""A comparison as tables, figures and files."""

import csv
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from crosseai.client.evaluation import MEAN, THRESHOLDS
from crosseai.comparison import figures, published
from crosseai.comparison.compare import Comparison, Result
from crosseai.comparison.grid import Grid, cell
from crosseai.comparison.methods import REFERENCE
from crosseai.comparison.proposals import COLUMNS
from crosseai.comparison.scores import MEAN_OF_PAPER, paired_test
from crosseai.contract import RESEARCH_NOTICE
from crosseai.training.judge import SCALP_MEAN_AUC, WANG_2017_AUC
from crosseai.training.tracking import code_version

PACKAGES = ("crosseai", "numpy", "opencv-python-headless", "torch")

_T_COLUMNS = tuple(f"T={t}" for t in THRESHOLDS)


def grids(comparison: Comparison) -> list[Grid]:
    """All tables: the whole in a line a method, Table 1 by disease, AUC, and the criterion of any proposal."""
    return [summary(comparison), *accuracy_grids(comparison), auc_grid(comparison), proposals_grid(comparison)]


def summary(comparison: Comparison) -> Grid:
    """Mean over diseases and T(IoU), and the paired test against CrossEAI."""
    by_name = {result.method.name: result for result in comparison.results}
    rows = []
    for result in comparison.results:
        difference, p = "", ""
        if REFERENCE in by_name and result.method.name != REFERENCE:
            found, probability = paired_test(result.accuracy, by_name[REFERENCE].accuracy)
            difference, p = cell(found, 3, sign="+"), f"{probability:.3f}"
        mean = result.accuracy.average().estimates()[-1][0]
        reported = published.mean_accuracy(result.method.name)
        iou = result.mean_iou.estimates()[-1][0]
        rows.append((result.method.title, cell(mean, 3), _figure(reported, 3), difference, p, cell(iou, 3)))
    boxes, patients = len(comparison.truth.findings), len(set(comparison.truth.patients))
    header = (f"{boxes} boxes of {patients} patients", "mean accuracy", "published", "less CrossEAI", "p", "mean IoU")
    return Grid("Mean over diseases and T(IoU) 0.1 to 0.7", header, rows)


def accuracy_grids(comparison: Comparison) -> list[Grid]:
    """Table 1: share of boxes with IoU >= T, one grid a disease, each method above what its paper reports."""
    counts = comparison.truth.counts()
    tables = [(result, result.accuracy.estimates()) for result in comparison.results]
    made = []
    for r, (row, count) in enumerate(counts.items()):
        lines = []
        for result, table in tables:
            lines.append((result.method.title, *map(cell, table[r])))
            if reported := _published(result, row):
                lines.append(("  published", *(f"{value:.2f}" for value in reported)))
        made.append(Grid(f"{row} ({count} boxes): share with IoU >= T", ("", *_T_COLUMNS), lines))
    return made


def auc_grid(comparison: Comparison) -> Grid:
    """AUC of each method by disease, on all images of the test part."""
    first = comparison.results[0].classification
    rows = [
        (
            f"{disease} ({judgement.positives})",
            *(cell(result.classification.diseases[disease].auc) for result in comparison.results),
            _figure(WANG_2017_AUC.get(disease, np.nan), 2),
        )
        for disease, judgement in first.diseases.items()
    ]
    same = set(first.diseases) == set(WANG_2017_AUC)
    means = f"{np.mean(list(WANG_2017_AUC.values())):.2f}; SCALP {SCALP_MEAN_AUC:.2f}" if same else "-"
    rows.append((MEAN, *(cell(result.classification.mean_auc) for result in comparison.results), means))
    titles = (result.method.title for result in comparison.results)
    return Grid(f"AUC ({first.images} images of {first.patients} patients)", ("", *titles, "Wang 2017"), rows)


def proposals_grid(comparison: Comparison) -> Grid:
    """Accuracy if any proposal counts, and false positives a finding, as Wang et al. 2017 report them."""
    rows = []
    for result in comparison.results:
        found, false = (table.estimates()[-1] for table in (result.found_by_any, result.false_positives))
        rows.append(
            (
                result.method.title,
                *(f"{hit.value:.2f}; {wrong.value:.1f}" for hit, wrong in zip(found, false, strict=True)),
            )
        )
    return Grid("Any proposed box counts: mean accuracy; false positives a finding", ("", *COLUMNS), rows)


def paper_layout(comparison: Comparison) -> Grid:
    """Table 1 as printed in the paper: T(IoU) and disease down, methods across, published figures in brackets."""
    tables = [(result, result.accuracy.values) for result in comparison.results]
    rows = []
    for t, threshold in enumerate(THRESHOLDS):
        for r, row in enumerate(comparison.truth.counts()):
            cells = []
            for result, values in tables:
                reported = _published(result, row)
                cells.append(_figure(values[r, t], 2) + (f" ({reported[t]:.2f})" if reported else ""))
            rows.append((f"{threshold}", row, *cells))
    return Grid(
        "Table 1 (published figures in brackets)", ("T(IoU)", "Label", *(r.method.title for r, _ in tables)), rows
    )


def write_report(comparison: Comparison, folder: Path, configuration: Mapping[str, Any]) -> list[Path]:
    """Write everything into a folder.

    ``table.csv`` (one line a method, disease and T), ``auc.csv``, ``boxes.csv`` (every predicted box, model pixels),
    ``table.md`` (all tables), ``table.tex`` (Table 1 as the paper has it), ``accuracy.png`` and ``.svg``,
    ``manifest.json``.

    Parameters
    ----------
    configuration
        What the comparison was made with, for the manifest; JSON.

    Returns
    -------
    list of Path
        What was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = "\n\n".join(grid.markdown() for grid in grids(comparison))
    (folder / "table.md").write_text(f"# Methods side by side\n\n{tables}\n", encoding="utf-8")
    (folder / "table.tex").write_text(f"{paper_layout(comparison).latex()}\n", encoding="utf-8")
    _write_csv(folder / "table.csv", _ACCURACY_COLUMNS, _accuracy_lines(comparison))
    _write_csv(folder / "auc.csv", ("method", "disease", "auc", "low", "high"), _auc_lines(comparison))
    _write_csv(folder / "boxes.csv", _BOX_COLUMNS, _box_lines(comparison))
    for ending in ("png", "svg"):
        figures.accuracy_curves(comparison).savefig(folder / f"accuracy.{ending}", dpi=120)
    manifest = {
        "notice": RESEARCH_NOTICE,
        "configuration": configuration,
        "boxes": comparison.truth.counts(),
        "patients": len(set(comparison.truth.patients)),
        "split_sha256": comparison.cohort.data.split.digest(comparison.cohort.data.radiographs.image_ids),
        "software": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
            **code_version(),
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    names = (
        "table.md",
        "table.tex",
        "table.csv",
        "auc.csv",
        "boxes.csv",
        "accuracy.png",
        "accuracy.svg",
        "manifest.json",
    )
    return [folder / name for name in names]


_ACCURACY_COLUMNS = ("method", "disease", "boxes", "t_iou", "accuracy", "low", "high", "published")
_BOX_COLUMNS = ("method", "image_id", "disease", "x0", "y0", "x1", "y1", "iou")


def _accuracy_lines(comparison: Comparison) -> Iterable[Sequence[object]]:
    for result in comparison.results:
        table = result.accuracy.estimates()
        for (row, count), figures_of_row in zip(comparison.truth.counts().items(), table, strict=True):
            reported = _published(result, row) or ("",) * len(THRESHOLDS)
            for t, figure, paper in zip(THRESHOLDS, figures_of_row, reported, strict=True):
                figure_cells = (f"{x:.4f}" for x in (figure.value, figure.low, figure.high))
                yield (result.method.name, row, count, t, *figure_cells, paper)


def _auc_lines(comparison: Comparison) -> Iterable[Sequence[object]]:
    for result in comparison.results:
        found = {name: one.auc for name, one in result.classification.diseases.items()}
        for disease, auc in (found | {MEAN: result.classification.mean_auc}).items():
            yield (result.method.name, disease, *(f"{x:.4f}" for x in (auc.value, auc.low, auc.high)))


def _box_lines(comparison: Comparison) -> Iterable[Sequence[object]]:
    radiographs, findings = comparison.cohort.data.radiographs, comparison.truth.findings
    for result in comparison.results:
        for row, c, box, iou in zip(findings.rows, findings.classes, result.predictions.boxes, result.iou, strict=True):
            yield (result.method.name, radiographs.image_ids[row], radiographs.classes[c], *box, f"{iou:.4f}")


def _published(result: Result, row: str) -> tuple[float, ...] | None:
    """What the paper reports of a method in a row; its mean is of six diseases."""
    name = MEAN if row == MEAN_OF_PAPER else row
    return published.TABLE_1.get(result.method.name, {}).get(name)


def _figure(value: float, digits: int) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def _write_csv(file: Path, columns: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([columns, *lines])
