"""Figures of an evaluation, one small picture a disease; no pyplot, so no global state."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crosseai.contract import UNCERTAIN, ModelSpec
from crosseai.training.evaluation import FloatArray, ImageSource, Labels

Flags = npt.NDArray[np.bool_]

_COLUMNS = 4
_SIDE = 2.6  # inches
_CURVE, _POINT, _REFERENCE = "#0072B2", "#D55E00", "0.7"  # blue and vermillion of Okabe and Ito, gray
_BINS = 10
_EXAMPLES = 4


def roc_curves(spec: ModelSpec, labels: Labels, probabilities: FloatArray) -> Figure:
    """ROC curve of each disease, with its operating point."""

    def draw(axis: Axes, positive: Flags, p: FloatArray, point: float) -> None:
        true, false = counts_at_thresholds(positive, p)
        axis.plot([0, 1], [0, 1], color=_REFERENCE, linewidth=0.8)
        axis.plot(false / false[-1], true / true[-1], color=_CURVE)
        called = p >= point
        axis.plot(called[~positive].mean(), called[positive].mean(), "o", color=_POINT)

    return _grid(spec, labels, probabilities, draw, "1 - specificity", "sensitivity")


def precision_recall_curves(spec: ModelSpec, labels: Labels, probabilities: FloatArray) -> Figure:
    """Precision over recall of each disease, with its operating point; the gray line is the prevalence."""

    def draw(axis: Axes, positive: Flags, p: FloatArray, point: float) -> None:
        true, false = (counts[1:] for counts in counts_at_thresholds(positive, p))
        axis.axhline(positive.mean(), color=_REFERENCE, linewidth=0.8)
        axis.plot(true / true[-1], true / (true + false), color=_CURVE, drawstyle="steps-pre")
        called = p >= point
        if called.any():
            axis.plot(called[positive].mean(), positive[called].mean(), "o", color=_POINT)

    return _grid(spec, labels, probabilities, draw, "recall", "precision")


def calibration_curves(spec: ModelSpec, labels: Labels, probabilities: FloatArray) -> Figure:
    """Share of positive images over the mean probability, in ten groups of equal size (a reliability diagram)."""

    def draw(axis: Axes, positive: Flags, p: FloatArray, point: float) -> None:
        groups = [rows for rows in np.array_split(np.argsort(p, kind="stable"), _BINS) if len(rows)]
        axis.plot([0, 1], [0, 1], color=_REFERENCE, linewidth=0.8)
        axis.plot([p[rows].mean() for rows in groups], [positive[rows].mean() for rows in groups], "o-", color=_CURVE)
        axis.axvline(point, color=_POINT, linewidth=0.8, linestyle=":")

    return _grid(spec, labels, probabilities, draw, "probability", "share of positives")


def confusion_matrices(spec: ModelSpec, labels: Labels, probabilities: FloatArray) -> Figure:
    """Images of each disease by label and by call at the operating point; colours are shares of the row."""

    def draw(axis: Axes, positive: Flags, p: FloatArray, point: float) -> None:
        called = p >= point
        table = np.array([[(is_so & calls).sum() for calls in (called, ~called)] for is_so in (positive, ~positive)])
        shares = table / table.sum(1, keepdims=True)
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, extent=(0, 1, 0, 1))
        for (row, column), count in np.ndenumerate(table):
            shade = "white" if shares[row, column] > 0.5 else "black"
            axis.text(0.25 + column / 2, 0.75 - row / 2, str(count), ha="center", va="center", color=shade)
        axis.set_xticks([0.25, 0.75], ["positive", "negative"])
        axis.set_yticks([0.75, 0.25], ["positive", "negative"], rotation=90, va="center")

    return _grid(spec, labels, probabilities, draw, "called", "labelled")


def example_panel(
    spec: ModelSpec,
    disease: str,
    images: ImageSource,
    rows: npt.NDArray[np.int64],
    labels: Labels,
    probabilities: FloatArray,
) -> Figure:
    """The clearest of a disease's right and wrong calls, as the network sees them: four a kind.

    Parameters
    ----------
    images
        uint8 ``[n, 1, S, S]``.
    rows
        Position of each judged image in ``images``.
    labels
        uint8 ``[rows, C]``.
    probabilities
        float32 ``[rows, C]``.
    """
    c = spec.classes.index(disease)
    p, called = probabilities[:, c], probabilities[:, c] >= spec.operating_points[c]
    kinds = (
        ("true positive", (labels[:, c] == 1) & called, -1),
        ("false negative", (labels[:, c] == 1) & ~called, 1),
        ("false positive", (labels[:, c] == 0) & called, -1),
        ("true negative", (labels[:, c] == 0) & ~called, 1),
    )
    figure = Figure(figsize=(_EXAMPLES * 1.6, len(kinds) * 1.75))
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.92, wspace=0.03, hspace=0.15)
    figure.suptitle(f"{disease}, operating point {spec.operating_points[c]:.2f}")
    grid = figure.subplots(len(kinds), _EXAMPLES, squeeze=False)
    for (kind, members, sign), axes in zip(kinds, grid, strict=True):
        chosen = np.flatnonzero(members)
        chosen = chosen[np.argsort(sign * p[chosen], kind="stable")][:_EXAMPLES]
        for axis in axes:
            axis.set_axis_off()
        axes[0].set_title(f"{kind}: none", fontsize=8, loc="left")
        for axis, i in zip(axes, chosen.tolist(), strict=False):
            axis.imshow(images[rows[[i]]][0, 0], cmap="gray", vmin=0, vmax=255)
            axis.set_title(f"{kind}: {p[i]:.2f}", fontsize=8, loc="left")
    return figure


def counts_at_thresholds(positive: Flags, scores: FloatArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """True and false positives above every threshold, from that which calls nothing to that which calls everything."""
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.flatnonzero(np.r_[np.diff(scores[order]) < 0, True])
    true, false = (np.r_[0, np.cumsum(flags[order])[last_of_ties]] for flags in (positive, ~positive))
    return true, false


def _grid(
    spec: ModelSpec,
    labels: Labels,
    probabilities: FloatArray,
    draw: Callable[[Axes, Flags, FloatArray, float], None],
    x_label: str,
    y_label: str,
) -> Figure:
    """One square for each disease; empty where it has no positive or no negative image."""
    rows = math.ceil(len(spec.classes) / _COLUMNS)
    figure = Figure(figsize=(_COLUMNS * _SIDE, rows * _SIDE))
    figure.subplots_adjust(0.06, 0.15 / rows, 0.99, 1 - 0.12 / rows, wspace=0.4, hspace=0.35)
    squares: list[Axes] = figure.subplots(rows, _COLUMNS, squeeze=False).ravel().tolist()
    for axis in squares[len(spec.classes) :]:
        axis.set_axis_off()
    for c, name in enumerate(spec.classes):
        axis, known = squares[c], labels[:, c] != UNCERTAIN
        positive = labels[known, c] == 1
        axis.set_title(f"{name}, {positive.sum()} of {len(positive)}", fontsize=9)
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axis.set_xticks([0, 0.5, 1])
        axis.set_yticks([0, 0.5, 1])
        axis.tick_params(labelsize=7)
        axis.set_xlabel(x_label, fontsize=8)
        axis.set_ylabel(y_label, fontsize=8)
        if positive.any() and not positive.all():
            draw(axis, positive, probabilities[known, c], spec.operating_points[c])
    return figure
