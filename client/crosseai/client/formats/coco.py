"""COCO detection files, which pycocotools, CVAT and FiftyOne read."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from crosseai.client.formats.json_array import write_array
from crosseai.client.records.files import atomic_path
from crosseai.contract import RESEARCH_NOTICE, ImageResult


def write_coco(path: Path, results: Iterable[ImageResult], classes: Sequence[str], model_version: str) -> None:
    """Write boxes as a COCO detection data set with scores.

    A box is ``[x, y, width, height]`` in pixels of the original image, from the outer edges of its pixels, as COCO has
    it: ``x0, y0`` and the half-open box's sides. ``score`` is the disease's probability and ``box_score`` the box
    algorithm's criterion; ``loadRes`` of pycocotools takes the annotations as they are. Image and category ids count
    from 1, in the order of ``results`` and ``classes``; ``file_name`` is relative to the scored directory.

    Parameters
    ----------
    path
        The file to write.
    results
        Scored images; iterated twice.
    classes
        The categories.
    model_version
        Named in ``info``.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    info = {"description": f"CrossEAI. {RESEARCH_NOTICE}", "version": model_version}
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(f'{{"info": {json.dumps(info)},\n"categories": {json.dumps(categories)},\n"images": ')
        write_array(file, _images(results))
        file.write(',\n"annotations": ')
        write_array(file, _annotations(results, {name: number for number, name in enumerate(classes, 1)}))
        file.write("}\n")


def _images(results: Iterable[ImageResult]) -> Iterator[dict[str, Any]]:
    for number, result in enumerate(results, 1):
        yield {
            "id": number,
            "file_name": result.path,
            "width": result.width,
            "height": result.height,
            "image_id": result.image_id,
            "model_version": result.model_version,
        }


def _annotations(results: Iterable[ImageResult], categories: dict[str, int]) -> Iterator[dict[str, Any]]:
    number = 0
    for image, result in enumerate(results, 1):
        for finding in result.localized:
            number += 1
            x0, y0, x1, y1 = finding.box_image_px
            yield {
                "id": number,
                "image_id": image,
                "category_id": categories[finding.disease],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": 0,
                "score": finding.probability,
                "box_score": finding.score,
            }
