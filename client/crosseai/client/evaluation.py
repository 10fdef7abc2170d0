"""Localisation accuracy: predicted boxes against boxes drawn by radiologists."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from crosseai.client.records.tables import BOXES, PREDICTIONS
from crosseai.client.sources.discovery import image_name
from crosseai.contract import NIH_BOX_SIDE_PX, InputError, canonical_label, reason

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""T(IoU) of the paper's Table 1."""

MEAN = "Mean"
_EDGES = ("x0", "y0", "x1", "y1")


@dataclass(frozen=True, slots=True)
class LocalisationTable:
    """Share of ground-truth boxes found, T(IoU) by disease (the paper's Table 1).

    Parameters
    ----------
    thresholds
        T(IoU), one a column.
    diseases
        Diseases that have ground-truth boxes, then ``Mean``: the unweighted mean over diseases.
    boxes
        Ground-truth boxes of each row of ``diseases``.
    mean_iou
        Mean IoU of each row.
    accuracy
        float64 ``[rows, thresholds]``, share of boxes with IoU >= T.
    low, high
        95 % percentile bootstrap interval of ``accuracy``, resampling images, same shape.
    """

    thresholds: tuple[float, ...]
    diseases: tuple[str, ...]
    boxes: tuple[int, ...]
    mean_iou: tuple[float, ...]
    accuracy: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]


def evaluate_boxes(
    boxes: Any,
    ground_truth: Any,
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> LocalisationTable:
    """Compare predicted boxes with ground truth.

    Parameters
    ----------
    boxes, ground_truth
        Arrow tables, or anything that ``pyarrow.table`` takes (a pandas frame, a dictionary of columns), with the
        columns ``image_id, disease, x0, y0, x1, y1``; half-open pixels of the original image. At most one predicted
        box for an image and disease; a ground-truth box without one has IoU 0.
    thresholds
        T(IoU).
    resamples, seed
        Size and seed of the bootstrap.

    Raises
    ------
    InputError
        If a column is missing, a prediction is repeated, or there is no ground truth.
    """
    predicted = _boxes_by_image_and_disease(boxes)
    truth = _columns(ground_truth, "ground truth")
    if not truth["image_id"]:
        raise InputError("ground truth: expected at least one box of a scored image, found none")
    ious = np.array(
        [
            intersection_over_union(predicted.get((image, disease), (0, 0, 0, 0)), box)
            for image, disease, *box in zip(*(truth[name] for name in ("image_id", "disease", *_EDGES)), strict=True)
        ]
    )
    diseases = sorted(set(truth["disease"]))
    of_disease = np.array(truth["disease"])[:, None] == np.array(diseases)
    hits = ious[:, None] >= np.array(thresholds)
    _, image_of_box = np.unique(truth["image_id"], return_inverse=True)
    low, high = _bootstrap_interval(hits, of_disease, image_of_box, resamples, seed)
    mean_iou = [float(ious[of_disease[:, d]].mean()) for d in range(len(diseases))]
    return LocalisationTable(
        thresholds=tuple(thresholds),
        diseases=(*diseases, MEAN),
        boxes=(*of_disease.sum(axis=0).tolist(), len(ious)),
        mean_iou=(*mean_iou, float(np.mean(mean_iou))),
        accuracy=_accuracy(hits, of_disease, np.ones(len(ious))),
        low=low,
        high=high,
    )


def intersection_over_union(a: Sequence[float], b: Sequence[float]) -> float:
    """IoU of two half-open boxes ``(x0, y0, x1, y1)``; 0 when they do not meet."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def read_scored_boxes(output: Path, boxes_csv: Path) -> tuple[pa.Table, pa.Table, int]:
    """Predicted boxes of a run and the ground truth of the images it scored.

    Parameters
    ----------
    output
        Output folder of ``crosseai-client run``.
    boxes_csv
        File like NIH's ``BBox_List_2017.csv``: ``Image Index, Finding Label, x, y, w, h``, with x, y, w, h in a
        frame of 1024 px, whatever the image's own size.

    Returns
    -------
    tuple
        Predicted boxes, ground truth (both in pixels of the original image) and the number of ground-truth boxes
        left out because the run did not score their image.

    Raises
    ------
    InputError
        If a file is missing or not what it must be.
    """
    try:
        predictions = pq.read_table(output / f"{PREDICTIONS}.parquet", columns=["image_id", "path", "width", "height"])
        boxes = pq.read_table(output / f"{BOXES}.parquet")
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{output}: expected the output of crosseai-client run: {error}") from error
    scored: dict[str, dict[str, Any]] = {}
    for row in predictions.to_pylist():
        if scored.setdefault(image_name(row["path"]), row)["image_id"] != row["image_id"]:
            raise InputError(f"{output}: expected one image named {image_name(row['path'])}, found several")
    rows, left_out = [], 0
    for name, disease, x, y, w, h in read_boxes_csv(boxes_csv):
        image = scored.get(image_name(name))
        if image is None:
            left_out += 1
            continue
        sx, sy = image["width"] / NIH_BOX_SIDE_PX, image["height"] / NIH_BOX_SIDE_PX
        edges = dict(zip(_EDGES, (x * sx, y * sy, (x + w) * sx, (y + h) * sy), strict=True))
        rows.append({"image_id": image["image_id"], "disease": disease, **edges})
    schema = pa.schema(
        [("image_id", pa.string()), ("disease", pa.string()), *((edge, pa.float64()) for edge in _EDGES)]
    )
    first = {(box["image_id"], box["disease"]): box for box in reversed(boxes.to_pylist())}  # copies of a file repeat
    return pa.Table.from_pylist(list(first.values()), boxes.schema), pa.Table.from_pylist(rows, schema=schema), left_out


def read_boxes_csv(path: Path) -> list[tuple[str, str, float, float, float, float]]:
    """Rows ``(file name, disease, x, y, w, h)`` of a file like NIH's ``BBox_List_2017.csv``.

    Raises
    ------
    InputError
        If the file cannot be read, or a row is malformed.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            _, *rows = list(csv.reader(file)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a CSV file: {reason(error)}") from error
    boxes = []
    for number, row in enumerate(rows, start=2):
        try:
            name, disease, (x, y, w, h) = row[0], canonical_label(row[1]), map(float, row[2:6])
        except (ValueError, IndexError) as error:
            raise InputError(f"{path}, line {number}: expected file, disease, x, y, w, h; found {row}") from error
        if not (math.isfinite(x) and math.isfinite(y) and 0 < w < math.inf and 0 < h < math.inf):
            raise InputError(f"{path}, line {number}: expected a box with an area, found {row}")
        boxes.append((name, disease, x, y, w, h))
    return boxes


def _columns(table: Any, what: str) -> Mapping[str, list[Any]]:
    arrow = table if isinstance(table, pa.Table) else pa.table(table)
    missing = [name for name in ("image_id", "disease", *_EDGES) if name not in arrow.column_names]
    if missing:
        raise InputError(f"{what}: expected the columns {', '.join(missing)}, found {', '.join(arrow.column_names)}")
    columns: dict[str, list[Any]] = arrow.to_pydict()
    return columns


def _boxes_by_image_and_disease(boxes: Any) -> dict[tuple[str, str], tuple[float, ...]]:
    columns = _columns(boxes, "boxes")
    by_key: dict[tuple[str, str], tuple[float, ...]] = {}
    for image, disease, *box in zip(*(columns[name] for name in ("image_id", "disease", *_EDGES)), strict=True):
        if by_key.setdefault((image, disease), tuple(box)) != tuple(box):
            raise InputError(f"boxes: expected one box of {disease} for image {image}, found several")
    return by_key


def _accuracy(
    hits: npt.NDArray[np.bool_], of_disease: npt.NDArray[np.bool_], weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Weighted share of hits, ``[diseases + 1, thresholds]``; NaN where a disease has no weight."""
    counts = weights @ of_disease
    with np.errstate(invalid="ignore"):
        by_disease = (of_disease * weights[:, None]).T @ hits / counts[:, None]
    present = counts > 0
    return np.vstack([by_disease, by_disease[present].mean(axis=0)])


def _bootstrap_interval(
    hits: npt.NDArray[np.bool_],
    of_disease: npt.NDArray[np.bool_],
    image_of_box: npt.NDArray[np.intp],
    resamples: int,
    seed: int,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """95 % percentile interval; images are drawn, so that boxes of one image stay together."""
    random = np.random.default_rng(seed)
    images = int(image_of_box.max()) + 1
    draws = random.multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.float64)
    samples = np.stack([_accuracy(hits, of_disease, draw[image_of_box]) for draw in draws])
    low, high = np.nanquantile(samples, (0.025, 0.975), axis=0)
    return low, high
