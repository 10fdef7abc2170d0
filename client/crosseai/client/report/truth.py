"""The report's comparison with what radiologists drew and what labels say."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crosseai.client.evaluation import LocalisationTable, evaluate_boxes, intersection_over_union, read_scored_boxes
from crosseai.client.explain import read_labels
from crosseai.client.sources.discovery import image_name

_CURVE_POINTS = 101


def compare_boxes(output: Path, boxes_csv: Path, image_ids: list[str]) -> dict[str, Any]:
    """The T(IoU) table, None without a box of a scored image, and each ground-truth box with its IoU.

    Parameters
    ----------
    output
        Folder of the run.
    boxes_csv
        File like NIH's ``BBox_List_2017.csv``.
    image_ids
        Ids of the report's images, in its order.

    Raises
    ------
    InputError
        If a file is not what it must be.
    """
    predicted, truth, left_out = read_scored_boxes(output, boxes_csv)
    row_of = {identity: row for row, identity in enumerate(image_ids)}
    found = {(box["image_id"], box["disease"]): _edges(box) for box in predicted.to_pylist()}
    rows = []
    for box in truth.to_pylist():
        edges, identity, disease = _edges(box), box["image_id"], box["disease"]
        iou = intersection_over_union(found.get((identity, disease), (0, 0, 0, 0)), edges)
        rows.append([row_of[identity], disease, *(round(edge, 1) for edge in edges), round(iou, 3)])
    table = _columns(evaluate_boxes(predicted, truth)) if rows else None
    return {"boxes": rows, "left_out": left_out, "table": table}


def _columns(table: LocalisationTable) -> dict[str, Any]:
    return {
        "thresholds": table.thresholds,
        "diseases": table.diseases,
        "boxes": table.boxes,
        "mean_iou": [round(iou, 4) for iou in table.mean_iou],
        **{name: np.round(getattr(table, name), 4).tolist() for name in ("accuracy", "low", "high")},
    }


def compare_labels(
    labels_csv: Path, paths: list[str], probabilities: list[list[int]], diseases: list[str]
) -> list[dict[str, Any]]:
    """ROC curves of the diseases that some labelled images have and some have not.

    Parameters
    ----------
    labels_csv
        File like NIH's ``Data_Entry_2017.csv``. Images that it does not name are left out.
    paths, probabilities
        Columns of the report, a list of probabilities for each disease.
    diseases
        The model's diseases.

    Raises
    ------
    InputError
        If the file is not what it must be.
    """
    labels = read_labels(labels_csv, diseases)
    rows = [(row, labels[image_name(path)]) for row, path in enumerate(paths) if image_name(path) in labels]
    curves = []
    for d, disease in enumerate(diseases):
        positive = np.array([d in labelled for _, labelled in rows], bool)
        scores = np.array([probabilities[d][row] for row, _ in rows])
        if positive.any() and not positive.all():
            false_positives, true_positives = roc_curve(positive, scores)
            few = np.unique(np.linspace(0, len(false_positives) - 1, _CURVE_POINTS).round().astype(int))
            curves.append(
                {
                    "disease": disease,
                    "auc": round(float(np.trapezoid(true_positives, false_positives)), 4),
                    "positives": int(positive.sum()),
                    "images": len(positive),
                    "false_positives": np.round(false_positives[few], 4).tolist(),
                    "true_positives": np.round(true_positives[few], 4).tolist(),
                }
            )
    return curves


def roc_curve(
    positive: npt.NDArray[np.bool_], scores: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Rates of false and of true positives, from (0, 0) to (1, 1), a point for each distinct score.

    Parameters
    ----------
    positive, scores
        ``[n]``, at least one image of either kind.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=np.nan))
    true, false = np.cumsum(positive[order])[ends], np.cumsum(~positive[order])[ends]
    return np.concatenate([[0.0], false / false[-1]]), np.concatenate([[0.0], true / true[-1]])


def _edges(box: dict[str, Any]) -> tuple[float, ...]:
    return tuple(box[edge] for edge in ("x0", "y0", "x1", "y1"))
