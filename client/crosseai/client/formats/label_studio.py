"""Pre-annotations for Label Studio."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from crosseai.client.formats.json_array import write_array
from crosseai.client.records.files import atomic_path
from crosseai.contract import Finding, ImageResult

IMAGE_ROOT = "/data/local-files/?d="
"""Label Studio's address of files in its local storage, to which the path of an image is appended."""


def write_label_studio(path: Path, results: Iterable[ImageResult]) -> None:
    """Write one task an image, its boxes as predictions of this model version.

    The labelling configuration of the project needs an ``Image`` named ``image`` with the value ``$image``, and
    ``RectangleLabels`` named ``label``. Edges are given in percent of the original image, as Label Studio has them.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
        write_array(file, map(_task, results))
        file.write("\n")


def _task(result: ImageResult) -> dict[str, Any]:
    regions = [
        _region(f"{result.image_id}-{number}", result, finding) for number, finding in enumerate(result.localized)
    ]
    prediction = {
        "model_version": result.model_version,
        "score": max((region["score"] for region in regions), default=0.0),
        "result": regions,
    }
    return {
        "data": {"image": IMAGE_ROOT + result.path, "image_id": result.image_id},
        "predictions": [prediction],
    }


def _region(identifier: str, result: ImageResult, finding: Finding) -> dict[str, Any]:
    x0, y0, x1, y1 = finding.box_image_px
    return {
        "id": identifier,
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": result.width,
        "original_height": result.height,
        "image_rotation": 0,
        "score": finding.probability,
        "value": {
            "x": 100 * x0 / result.width,
            "y": 100 * y0 / result.height,
            "width": 100 * (x1 - x0) / result.width,
            "height": 100 * (y1 - y0) / result.height,
            "rotation": 0,
            "rectanglelabels": [finding.disease],
        },
    }
