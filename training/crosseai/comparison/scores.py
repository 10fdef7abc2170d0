"""Localisation accuracy by disease and T(IoU), with intervals, and the paired test between methods."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crosseai.client.evaluation import MEAN, THRESHOLDS
from crosseai.comparison import published
from crosseai.comparison.cohort import BoxedFindings
from crosseai.training.bootstrap import Estimate, resampled, with_interval

MEAN_OF_PAPER = "Mean of six"
"""Mean over the diseases of the paper's Table 1, where there are others beside them."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Truth:
    """What boxes are compared with.

    Parameters
    ----------
    findings
        Boxes drawn by radiologists.
    patients
        Patient of each.
    classes
        Names of the diseases.
    """

    findings: BoxedFindings
    patients: tuple[str, ...]
    classes: tuple[str, ...]

    def groups(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Rows of the table and the classes whose unweighted mean each is, bool ``[C]``: diseases with boxes, means."""
        boxed = np.isin(np.arange(len(self.classes)), self.findings.classes)
        one = np.eye(len(self.classes), dtype=bool)
        rows = {self.classes[c]: one[c] for c in np.flatnonzero(boxed)}
        of_paper = np.isin(self.classes, published.DISEASES)
        if (boxed >= of_paper).all() and (boxed & ~of_paper).any():
            rows[MEAN_OF_PAPER] = of_paper
        return rows | {MEAN: boxed}

    def counts(self) -> dict[str, int]:
        """Boxes in each row of the table."""
        return {name: int(members[self.findings.classes].sum()) for name, members in self.groups().items()}


@dataclass(frozen=True, slots=True)
class Resampled:
    """Figures of one method, by row of the table.

    Parameters
    ----------
    values
        float64 ``[rows, k]``.
    drawn
        Their resamples, float64 ``[resamples, rows, k]``; the same draws of patients for every method.
    """

    values: Values
    drawn: Values

    def estimates(self) -> list[list[Estimate]]:
        """Each figure with its interval."""
        rows, columns = self.values.shape
        return [[with_interval(self.values[r, k], self.drawn[:, r, k]) for k in range(columns)] for r in range(rows)]

    def average(self) -> "Resampled":
        """The mean over the figures of each row."""
        return Resampled(self.values.mean(1, keepdims=True), self.drawn.mean(2, keepdims=True))


def by_row(figures: Values, truth: Truth, *, resamples: int = 1000) -> Resampled:
    """Mean of figures of single boxes in every row of the table, resampling patients.

    Parameters
    ----------
    figures
        float64 ``[boxes, k]``: hits, IoU, whatever has a mean; NaN does not count.
    truth
        Gives disease and patient of each box.
    """
    of_class = truth.findings.classes[:, None] == np.arange(len(truth.classes))
    groups = np.stack(list(truth.groups().values())).astype(np.float64)
    shape, defined = (len(figures), -1), ~np.isnan(figures)
    totals = (of_class[:, :, None] * np.where(defined, figures, 0)[:, None]).reshape(shape)  # [boxes, C * k]
    counted = (of_class[:, :, None] & defined[:, None]).reshape(shape).astype(np.float64)

    def statistics(weights: Values) -> Values:
        with np.errstate(invalid="ignore"):
            means = ((weights @ totals) / (weights @ counted)).reshape(len(weights), len(truth.classes), -1)
            present = ~np.isnan(means)
            table = groups @ np.where(present, means, 0) / (groups @ present.astype(np.float64))  # [b, rows, k]
        return np.asarray(table.reshape(len(weights), -1))

    values, drawn = resampled(statistics, truth.patients, resamples=resamples)
    return Resampled(values.reshape(len(groups), -1), drawn.reshape(len(drawn), len(groups), -1))


def hits(iou: Values, thresholds: Sequence[float] = THRESHOLDS) -> Values:
    """Whether each box is found, IoU >= T, float64 ``[boxes, thresholds]``."""
    return (iou[:, None] >= np.array(thresholds)).astype(np.float64)


def paired_test(method: Resampled, reference: Resampled) -> tuple[Estimate, float]:
    """Difference of two methods' mean accuracy and its p-value, by the paired bootstrap over patients.

    Both figures are of the row ``Mean``, averaged over the thresholds. The p-value is two-sided: twice the share of
    resamples on the rarer side of zero, with one more counted there (Davison & Hinkley 1997, section 4.2), so that it
    is never zero.

    Returns
    -------
    tuple
        Method minus reference with its 95 % interval, and p.
    """
    value = float((method.average().values - reference.average().values)[-1, 0])
    drawn = (method.average().drawn - reference.average().drawn)[:, -1, 0]
    drawn = drawn[~np.isnan(drawn)]
    side = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return with_interval(value, drawn), float(min(1.0, 2 * (side + 1) / (len(drawn) + 1)))
