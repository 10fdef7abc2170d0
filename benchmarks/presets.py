"""Which keywords of ``localize`` make good boxes? Writes ``benchmarks/presets.md``.

    python -m benchmarks.presets

Every combination of a grid is scored by mean IoU on validation phantoms. The winner is the best one that does not lose
to the heat map alone on the few real radiographs at hand: the phantoms' classifier is a good one, so that on phantoms
alone the gradient map wins, which a weak classifier's does not deserve.

It is compared with the rows that any claim must beat: the heat map alone, the gradient map alone, the paper as written,
and one constant box. Test phantoms are of other patients and take no part in the choice. On real radiographs, each
patient is scored by the choice made without that patient.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from benchmarks.explanations import Explanations, nih_explanations, phantom_explanations
from crosseai import postproc
from crosseai.contract import BoxParameters

Scores = npt.NDArray[np.float64]
Predict = Callable[[Explanations], npt.NDArray[np.float64]]

IOU_THRESHOLDS = (0.1, 0.3, 0.5)

Grid = Mapping[str, Sequence[Any]]
MASK_AND_CANDIDATES: Grid = {
    "threshold": (0.5, 0.6, 0.7),
    "closing": (0.0, 0.05),
    "candidates": ("greedy", "components"),
    "area_power": (0.25, 1.0),
}
GRADIENT: Grid = {
    "gradient_percentile": (99.0, 95.0),
    "gradient_power": (1.0, 0.5),
    "gradient_sigma": (0.0, 0.03, 0.06),
}
BOTH_MAPS: Grid = {"t": (0.3, 0.5, 0.7), **GRADIENT, **MASK_AND_CANDIDATES}
HEAT_MAP: Grid = {"t": (1.0,), **MASK_AND_CANDIDATES}
GRADIENT_MAP: Grid = {"t": (0.0,), **GRADIENT, **MASK_AND_CANDIDATES}


def combinations(grid: Grid) -> list[BoxParameters]:
    """Every combination of a grid's values."""
    return [BoxParameters("", **dict(zip(grid, values, strict=True))) for values in product(*grid.values())]


def iou(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> Scores:
    """Intersection over union of boxes, row by row."""
    sides = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None)
    areas = [(box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) for box in (a, b)]
    shared = sides[:, 0] * sides[:, 1]
    return shared / (areas[0] + areas[1] - shared)


def by(parameters: BoxParameters) -> Predict:
    """Boxes by ``localize``."""

    def predict(maps: Explanations) -> npt.NDArray[np.float64]:
        boxes, _ = postproc.localize(maps.heatmaps, maps.gradient_maps, **parameters.keywords())
        return boxes.astype(np.float64)

    return predict


@dataclass(frozen=True, slots=True)
class Search:
    """IoU ``[combinations, boxes]`` of every combination of a grid, on validation phantoms and on real radiographs."""

    grid: Sequence[BoxParameters]
    on_phantoms: Scores
    on_real: Scores

    @classmethod
    def over(cls, grid: Grid, phantoms: Explanations, real: Explanations) -> "Search":
        """Try every combination."""
        tried = combinations(grid)
        scores = [
            np.array([iou(by(parameters)(maps), maps.boxes) for parameters in tried]) for maps in (phantoms, real)
        ]
        return cls(tried, *scores)

    def best(self) -> BoxParameters:
        """The highest mean IoU on phantoms."""
        return self.grid[int(self.on_phantoms.mean(1).argmax())]

    def best_at_least(self, least: Scores, counted: npt.NDArray[np.bool_]) -> int:
        """The same among those that do not lose to other scores on the real boxes that count."""
        allowed = self.on_real[:, counted].mean(1) >= least[counted].mean()
        return int(np.where(allowed, self.on_phantoms.mean(1), -1).argmax())


def without_each_patient(search: Search, least: Scores, patients: npt.NDArray[np.str_]) -> Scores:
    """IoU of real boxes, each by the choice made without its patient."""
    scores = np.empty(len(patients))
    for patient in np.unique(patients):
        held_out = patients == patient
        scores[held_out] = search.on_real[search.best_at_least(least, ~held_out)][held_out]
    return scores


def constant(maps: Explanations) -> Predict:
    """The one box of the highest mean IoU, edges in steps of a sixteenth of the side."""
    edges = np.linspace(0, 1, 17)
    boxes = [np.array([x0, y0, x1, y1]) for x0, x1, y0, y1 in product(edges, repeat=4) if x0 < x1 and y0 < y1]
    unit = maps.boxes / maps.gradient_maps.shape[-1]
    best = max(boxes, key=lambda box: iou(np.broadcast_to(box, unit.shape), unit).mean())
    return lambda other: np.broadcast_to(best * other.gradient_maps.shape[-1], other.boxes.shape)


def paired_interval(difference: Scores, patients: npt.NDArray[np.str_]) -> tuple[float, float]:
    """95 % bootstrap interval of a mean difference, resampling patients."""
    random = np.random.default_rng(0)
    _, group = np.unique(patients, return_inverse=True)
    totals, counts = np.bincount(group, difference), np.bincount(group)
    draws = random.integers(0, len(counts), (10_000, len(counts)))
    low, high = np.percentile(totals[draws].sum(1) / counts[draws].sum(1), [2.5, 97.5])
    return float(low), float(high)


def table(found: Mapping[str, Scores], maps: Explanations) -> Iterator[str]:
    """Markdown: mean IoU, share of boxes found, and the first row's paired advantage over each other row."""
    best = next(iter(found.values()))
    yield (
        f"| {len(maps.boxes)} boxes, {len(set(maps.patients.tolist()))} patients | mean IoU | "
        + " | ".join(f"IoU >= {threshold}" for threshold in IOU_THRESHOLDS)
        + " | advantage of the first row, 95 % |"
    )
    yield "|---" * (3 + len(IOU_THRESHOLDS)) + "|"
    for name, scores in found.items():
        shares = " | ".join(f"{(scores >= threshold).mean():.2f}" for threshold in IOU_THRESHOLDS)
        low, high = paired_interval(best - scores, maps.patients)
        advantage = "" if scores is best else f"{(best - scores).mean():+.3f} ({low:+.3f} to {high:+.3f})"
        yield f"| {name} | {scores.mean():.3f} | {shares} | {advantage} |"


def disease_rows(found: Mapping[str, Scores], maps: Explanations) -> Iterator[str]:
    """Markdown: mean IoU by disease."""
    diseases = sorted(set(maps.diseases.tolist()))
    yield "| mean IoU | " + " | ".join(f"{disease} ({(maps.diseases == disease).sum()})" for disease in diseases) + " |"
    yield "|---" * (1 + len(diseases)) + "|"
    for name, scores in found.items():
        yield f"| {name} | " + " | ".join(f"{scores[maps.diseases == d].mean():.3f}" for d in diseases) + " |"


def rule_rows(search: Search) -> Iterator[str]:
    """Markdown: the best on validation phantoms by candidate rule and share of the heat map."""
    yield "| candidates | t | validation phantoms | real radiographs | its other keywords |"
    yield "|---|---|---|---|---|"
    for rule, t in product(MASK_AND_CANDIDATES["candidates"], BOTH_MAPS["t"]):
        of_kind = np.array([one.candidates == rule and one.t == t for one in search.grid])
        best = int(np.where(of_kind, search.on_phantoms.mean(1), -1).argmax())
        other = described(replace(search.grid[best], candidates="greedy", t=0.3))
        yield f"| {rule} | {t} | {search.on_phantoms[best].mean():.3f} | {search.on_real[best].mean():.3f} | {other} |"


def described(parameters: BoxParameters) -> str:
    """Keywords that differ from the paper's."""
    return ", ".join(f"{key} {value}" for key, value in parameters.departures().items()) or "the paper's"


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path(__file__).with_suffix(".md"))
def main(output: Path) -> None:
    """Search, compare, write the tables."""
    validation, test, real = phantom_explanations("validation"), phantom_explanations("test"), nih_explanations()
    if real is None:
        raise click.ClickException("expected the real radiographs and weights beside the checkout")
    search, heat, gradient = (Search.over(grid, validation, real) for grid in (BOTH_MAPS, HEAT_MAP, GRADIENT_MAP))
    heat_only = BoxParameters(t=1.0)
    least = iou(by(heat_only)(real), real.boxes)
    winner = search.grid[search.best_at_least(least, np.ones(len(least), bool))]
    rows = {
        f"**the winner**: {described(winner)}": by(winner),
        "the paper as written": by(BoxParameters()),
        "heat map only": by(heat_only),
        f"heat map only, tuned on phantoms: {described(heat.best())}": by(heat.best()),
        "gradient map only": by(BoxParameters(t=0.0)),
        f"gradient map only, tuned on phantoms: {described(gradient.best())}": by(gradient.best()),
        "best constant box of the validation phantoms": constant(validation),
        f"best on validation phantoms alone: {described(search.best())}": by(search.best()),
    }
    on_test = {name: iou(predict(test), test.boxes) for name, predict in rows.items()}
    on_real = {
        "**the choice made without the patient**": without_each_patient(search, least, real.patients),
        **{name: iou(predict(real), real.boxes) for name, predict in rows.items()},
        "best constant box of these very boxes": iou(constant(real)(real), real.boxes),
    }
    lines = [
        "# Choice of the `tuned` preset",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, made by `benchmarks/presets.py`, which says how:"
        f" {len(search.grid)} combinations, {len(validation.boxes)} boxes of validation phantoms. The classifier is"
        " that of `benchmarks/explanations.py`. Columns `IoU >=` are shares of boxes.",
        "",
        "The grid is what was left of earlier searches, which had seen the real radiographs. The last of them chose on"
        " phantoms alone and lost to the heat map on real radiographs (0.046 against 0.078); the rule about the heat"
        " map is its lesson. No search has seen these test phantoms before.",
        "",
        "## Test phantoms",
        "",
        *table(on_test, test),
        "",
        *disease_rows(on_test, test),
        "",
        "## Real radiographs (NIH), a weak classifier (AUC 0.74 on these images)",
        "",
        *table(on_real, real),
        "",
        "## Candidate rules, the best on validation phantoms of each kind",
        "",
        *rule_rows(search),
    ]
    output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    click.echo("\n".join(lines))


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[1])
    main()
