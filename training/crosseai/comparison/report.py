"""A comparison as files."""

import csv
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from crosseai.client.evaluation import MEAN, THRESHOLDS
from crosseai.comparison.compare import Comparison
from crosseai.comparison.figures import accuracy_curves
from crosseai.comparison.tables import grids, paper_layout, reported_accuracy
from crosseai.contract import RESEARCH_NOTICE
from crosseai.training.bootstrap import Estimate
from crosseai.training.tracking import code_version

PACKAGES = ("crosseai", "numpy", "opencv-python-headless", "torch")


def write_report(comparison: Comparison, folder: Path, configuration: Mapping[str, Any]) -> list[Path]:
    """Write everything into a folder.

    ``table.csv`` (a line for each method, disease and T), ``auc.csv``, ``boxes.csv`` (every predicted box, in model
    pixels), ``table.md`` (all tables), ``table.tex`` (Table 1 as the paper has it), ``accuracy.png`` and ``.svg``,
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
    texts = {
        "table.md": f"# Methods side by side\n\n{tables}\n",
        "table.tex": f"{paper_layout(comparison).latex()}\n",
        "manifest.json": json.dumps(_manifest(comparison, configuration), indent=2) + "\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    lines = {"table.csv": _accuracy_lines, "auc.csv": _auc_lines, "boxes.csv": _box_lines}
    for name, of in lines.items():
        with (folder / name).open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows(of(comparison))
    figure, pictures = accuracy_curves(comparison), ("accuracy.png", "accuracy.svg")
    for name in pictures:
        figure.savefig(folder / name, dpi=120)
    return [folder / name for name in (*texts, *lines, *pictures)]


def _manifest(comparison: Comparison, configuration: Mapping[str, Any]) -> dict[str, Any]:
    data = comparison.cohort.data
    return {
        "notice": RESEARCH_NOTICE,
        "configuration": configuration,
        "boxes": comparison.truth.counts(),
        "patients": len(set(comparison.truth.patients)),
        "split_sha256": data.split.digest(data.radiographs.image_ids),
        "software": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
            **code_version(),
        },
    }


def _accuracy_lines(comparison: Comparison) -> Iterable[Sequence[object]]:
    yield ("method", "disease", "boxes", "t_iou", "accuracy", "low", "high", "published")
    for result in comparison.results:
        rows = zip(comparison.truth.counts().items(), result.accuracy.estimates(), strict=True)
        for (row, count), found in rows:
            reported = reported_accuracy(result, row) or ("",) * len(THRESHOLDS)
            for t, figure, paper in zip(THRESHOLDS, found, reported, strict=True):
                yield (result.method.name, row, count, t, *_numbers(figure), paper)


def _auc_lines(comparison: Comparison) -> Iterable[Sequence[object]]:
    yield ("method", "disease", "auc", "low", "high")
    for result in comparison.results:
        by_disease = {name: one.auc for name, one in result.classification.diseases.items()}
        for row, auc in (by_disease | {MEAN: result.classification.mean_auc}).items():
            yield (result.method.name, row, *_numbers(auc))


def _box_lines(comparison: Comparison) -> Iterable[Sequence[object]]:
    yield ("method", "image_id", "disease", "x0", "y0", "x1", "y1", "iou")
    radiographs, findings = comparison.cohort.data.radiographs, comparison.truth.findings
    for result in comparison.results:
        rows = zip(findings.rows, findings.classes, result.boxes, result.iou, strict=True)
        for row, c, box, iou in rows:
            yield (result.method.name, radiographs.image_ids[row], radiographs.classes[c], *box, f"{iou:.4f}")


def _numbers(figure: Estimate) -> tuple[str, str, str]:
    return f"{figure.value:.4f}", f"{figure.low:.4f}", f"{figure.high:.4f}"
