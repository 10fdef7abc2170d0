"""Figures of a comparison; no pyplot, so no global state."""

import math

from matplotlib.figure import Figure

from crosseai.client.evaluation import THRESHOLDS
from crosseai.comparison.compare import Comparison
from crosseai.comparison.tables import reported_accuracy

COLOURS = ("0.6", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#CC79A7", "#D55E00", "#000000")
"""Gray and Okabe and Ito's, which most colour-blind people tell apart."""

_COLUMNS = 5
_SIDE = 2.6  # inches


def accuracy_curves(comparison: Comparison) -> Figure:
    """Accuracy over T(IoU), one picture a row of the table: lines with 95 % intervals, published figures dotted."""
    counts = comparison.truth.counts()
    rows = math.ceil(len(counts) / _COLUMNS)
    figure = Figure(figsize=(_SIDE * _COLUMNS, _SIDE * rows + 0.8), layout="constrained")
    axes = list(figure.subplots(rows, _COLUMNS, squeeze=False, sharex=True, sharey=True).flat)
    tables = [(result, result.accuracy.estimates()) for result in comparison.results]
    for r, (axis, (row, count)) in enumerate(zip(axes, counts.items(), strict=False)):
        axis.set_title(f"{row} ({count})", fontsize="small")
        axis.set_ylim(0, 1)
        axis.tick_params(labelbottom=True)
        for i, (result, table) in enumerate(tables):
            colour = COLOURS[i % len(COLOURS)]
            values, lows, highs = zip(*((one.value, one.low, one.high) for one in table[r]), strict=True)
            axis.plot(
                THRESHOLDS, values, "o-", color=colour, markersize=3, label=result.method.title if r == 0 else None
            )
            axis.fill_between(THRESHOLDS, lows, highs, color=colour, alpha=0.12, linewidth=0)
            if reported := reported_accuracy(result, row):
                axis.plot(THRESHOLDS, reported, ":", color=colour, linewidth=1)
    for axis in axes[len(counts) :]:
        axis.set_axis_off()
    figure.supxlabel("T(IoU)", fontsize="medium")
    figure.supylabel("share of boxes with IoU >= T; dotted: published", fontsize="medium")
    figure.legend(loc="outside upper center", ncols=5, fontsize="small")
    return figure
