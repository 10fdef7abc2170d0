"""Detections for FiftyOne, in its format ``FiftyOneImageDetectionDataset``."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from crosseai.client.records.files import atomic_path
from crosseai.contract import Finding, ImageResult


def write_fiftyone(path: Path, results: Iterable[ImageResult], classes: Sequence[str]) -> None:
    """Write the boxes of all images as one JSON file.

    A box is ``[x, y, width, height]`` as shares of the original image, from the outer edges of its pixels. FiftyOne
    names an image by its path below the data folder without the suffix: of images that differ in the suffix alone, it
    takes the last one. To import::

        fiftyone.Dataset.from_dir(
            dataset_type=fiftyone.types.FiftyOneImageDetectionDataset, data_path=DIR, labels_path="OUT/fiftyone.json"
        )

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(f'{{"classes": {json.dumps(list(classes))},\n"labels": {{')
        separator = "\n"
        for result in results:
            name = result.path.removesuffix(Path(result.path).suffix)
            file.write(f"{separator}{json.dumps(name)}: {json.dumps(list(_detections(result)))}")
            separator = ",\n"
        file.write("\n}}\n")


def _detections(result: ImageResult) -> Iterable[dict[str, Any]]:
    return (_detection(finding, result.width, result.height) for finding in result.localized)


def _detection(finding: Finding, width: int, height: int) -> dict[str, Any]:
    x0, y0, x1, y1 = finding.box_image_px
    return {
        "label": finding.disease,
        "bounding_box": [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height],
        "confidence": finding.probability,
    }
