"""A set of phantoms on disk, in the layout of NIH ChestX-ray14.

``images/PPPPPPPP_NNN.png`` (8 bit) and ``dicom/PPPPPPPP_NNN.dcm`` (12 bit), ``Data_Entry_2017.csv`` and
``BBox_List_2017.csv``; ``phantoms.json`` says how they were drawn. Boxes are ``x, y, w, h`` in pixels of a 1024 x 1024
image, whatever the size that was drawn, because that is what the same file of the real data set holds.
"""

import csv
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias

import cv2
import numpy as np

from crosseai.contract import NIH_BOX_SIDE_PX, NO_FINDING, InputError
from crosseai.training.config import PHANTOMS_FILENAME
from crosseai.training.phantoms.cohort import Visit, visits
from crosseai.training.phantoms.dicom import write_dicom
from crosseai.training.phantoms.geometry import FIELD_MM
from crosseai.training.phantoms.phantom import WHITE, Phantom, draw_phantom

Row: TypeAlias = Sequence[object]
ImageFormat = Literal["png", "dicom", "both"]

_ENTRY_HEADER = (
    *("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender", "View Position"),
    *("OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]"),
)
_BOX_HEADER = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", "")
_BOX_LIST_NAMES = {"Infiltration": "Infiltrate"}


@dataclass(frozen=True, slots=True)
class PhantomSet:
    """What was written.

    Parameters
    ----------
    folder
        Where.
    images, patients, boxes
        How many.
    labels
        Images for every label, ``No Finding`` included.
    """

    folder: Path
    images: int
    patients: int
    boxes: int
    labels: dict[str, int]


def write_phantoms(
    output: Path, *, count: int, seed: int, image_format: ImageFormat = "png", size: int = 512
) -> PhantomSet:
    """Draw a set of phantoms; the same arguments give the same bytes.

    Parameters
    ----------
    output
        A new or empty folder.
    count
        Number of images.
    seed
        0 or greater.
    image_format
        What to write. The tables name the PNG files, or the DICOM files where there are no others.
    size
        Side of the images in pixels.

    Raises
    ------
    InputError
        If the folder holds anything already, or an argument is out of range.
    """
    if count < 1 or seed < 0:
        raise InputError(f"phantoms: expected count >= 1 and seed >= 0, found count {count} and seed {seed}")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"phantoms: expected a new or empty folder, found {output} in use")
    folders = {"png": ("images",), "dicom": ("dicom",), "both": ("images", "dicom")}[image_format]
    for name in folders:
        (output / name).mkdir(parents=True)

    def draw(number: int, visit: Visit) -> tuple[Row, list[Row]]:
        phantom = draw_phantom(visit.anatomy, visit.diseases, visit.rng(seed), size=size)
        if "images" in folders:
            _write_png(output / "images" / f"{visit.stem}.png", phantom)
        if "dicom" in folders:
            file = output / "dicom" / f"{visit.stem}.dcm"
            write_dicom(file, phantom, visit, seed=seed, inverted=number % 2 == 1)
        image_index = visit.stem + (".png" if "images" in folders else ".dcm")
        return _entry_row(image_index, visit, phantom), list(_box_rows(image_index, phantom))

    with ThreadPoolExecutor(os.cpu_count()) as threads:  # NumPy and OpenCV release the GIL
        rows = list(threads.map(draw, range(count), islice(visits(seed), count)))
    entries = [entry for entry, _ in rows]
    boxes = [box for _, of_image in rows for box in of_image]
    _write_table(output / "Data_Entry_2017.csv", _ENTRY_HEADER, entries)
    _write_table(output / "BBox_List_2017.csv", _BOX_HEADER, boxes)
    drawn = {"count": count, "seed": seed, "image_format": image_format, "size": size}
    (output / PHANTOMS_FILENAME).write_text(json.dumps(drawn, indent=2) + "\n", encoding="utf-8")
    labels = Counter(label for row in entries for label in str(row[1]).split("|"))
    return PhantomSet(output, count, len({row[3] for row in entries}), len(boxes), dict(sorted(labels.items())))


def _write_png(path: Path, phantom: Phantom) -> None:
    gray = np.round(phantom.pixels * (255 / WHITE)).astype(np.uint8)
    if not cv2.imwrite(str(path), gray, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
        raise InputError(f"phantoms: expected to write {path}, but could not")


def _entry_row(image_index: str, visit: Visit, phantom: Phantom) -> Row:
    height, width = phantom.pixels.shape
    labels = "|".join(visit.diseases) or NO_FINDING
    person = (visit.patient, visit.anatomy.age, visit.anatomy.sex, phantom.view)
    spacing = round(FIELD_MM / width, 3)
    return (image_index, labels, visit.follow_up, *person, width, height, spacing, spacing)


def _box_rows(image_index: str, phantom: Phantom) -> Iterable[Row]:
    scale = NIH_BOX_SIDE_PX / phantom.pixels.shape[1]
    for disease, (x0, y0, x1, y1) in phantom.boxes_image_px.items():
        xywh = (x0 * scale, y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale)
        yield (image_index, _BOX_LIST_NAMES.get(disease, disease), *xywh, "", "", "")


def _write_table(path: Path, header: Sequence[str], rows: Iterable[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        table.writerows(rows)
