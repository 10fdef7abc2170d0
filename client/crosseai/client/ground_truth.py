"""Boxes drawn by radiologists, for pictures and the report of a run."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

from crosseai.client.evaluation import read_boxes_csv
from crosseai.client.sources.discovery import image_name
from crosseai.contract import NIH_BOX_SIDE_PX, ImageResult

Edges: TypeAlias = tuple[float, float, float, float]
"""``(x0, y0, x1, y1)``, half-open."""


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """A list of boxes.

    Parameters
    ----------
    path, sha256
        The file that it was read from, and the hash of its content.
    boxes
        Edges by :func:`~crosseai.client.sources.discovery.image_name` and disease, as shares of the image's width and
        height.
    """

    path: Path
    sha256: str
    boxes: Mapping[tuple[str, str], Sequence[Edges]]

    def of(self, result: ImageResult, disease: str) -> list[Edges]:
        """The boxes of a disease in pixels of the original image."""
        width, height = result.width, result.height
        return [
            (x0 * width, y0 * height, x1 * width, y1 * height)
            for x0, y0, x1, y1 in self.boxes.get((image_name(result.path), disease), ())
        ]


def read_ground_truth(path: Path) -> GroundTruth:
    """Read a file like NIH's ``BBox_List_2017.csv``.

    Raises
    ------
    InputError
        If the file cannot be read, or a row is malformed.
    """
    boxes: dict[tuple[str, str], list[Edges]] = defaultdict(list)
    for name, disease, x, y, w, h in read_boxes_csv(path):
        x0, y0, x1, y1 = (edge / NIH_BOX_SIDE_PX for edge in (x, y, x + w, y + h))
        boxes[image_name(name), disease].append((x0, y0, x1, y1))
    return GroundTruth(path, sha256(path.read_bytes()).hexdigest(), dict(boxes))
