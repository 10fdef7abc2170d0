"""The patients of a comparison: images, labels, parts, and the boxes that radiologists drew."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crosseai.client.evaluation import read_boxes_csv
from crosseai.contract import NIH_BOX_SIDE_PX, InputError, ModelSpec
from crosseai.training.cache import CACHE_FOLDER, Progress, decoded_images
from crosseai.training.config import FitConfig
from crosseai.training.dataset import LabelledRadiographs, read_labelled_radiographs
from crosseai.training.feed import TrainingData
from crosseai.training.layouts import Layout
from crosseai.training.split import Split, split_by_patient

BOXES_FILENAME = "BBox_List_2017.csv"

FOLDS = 5
"""Li et al. 2018, section 4.1: five-fold cross-validation, so that four fifths of the boxed images are learnt from."""


@dataclass(frozen=True, slots=True)
class BoxedFindings:
    """Boxes drawn by radiologists, one a row.

    Parameters
    ----------
    rows
        int64 ``[n]``, position of the image in the listing.
    classes
        int64 ``[n]``, the disease, as a column of the labels.
    boxes
        float64 ``[n, 4]``, half-open ``(x0, y0, x1, y1)`` in model pixels.
    """

    rows: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, rows: npt.NDArray[np.int64]) -> "BoxedFindings":
        """Those in some images."""
        chosen = np.isin(self.rows, rows)
        return BoxedFindings(self.rows[chosen], self.classes[chosen], self.boxes[chosen])


NO_BOXES = BoxedFindings(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 4)))


@dataclass(frozen=True, slots=True)
class Cohort:
    """What a method learns from, or is judged by.

    Parameters
    ----------
    folder, layout, cache
        The data set on disk, as :func:`crosseai.training.fit.fit` takes it.
    data
        Listing, preprocessed images and the division by patient.
    boxes
        The boxes that may be seen: all of them to judge by, none to train by, but for a method that uses boxes.
    """

    folder: Path
    layout: Layout | None
    cache: Path
    data: TrainingData
    boxes: BoxedFindings

    def without_boxes(self) -> "Cohort":
        """What a method may learn from that uses no boxes."""
        return replace(self, boxes=NO_BOXES)

    def folds(self, seed: int) -> list["Cohort"]:
        """What a method may learn from that uses boxes: it is trained once for each fold of the test patients.

        The test part of a fold is a fifth of the test patients. Boxed images of the other four fifths join the training
        part, with their boxes. Boxes of patients outside the test part are not shown: NIH has none, and the share of
        boxes would be another than in the papers.
        """
        data, boxed = self.data, np.unique(self.boxes.rows)
        patients = np.array(data.radiographs.patients)
        names = np.random.default_rng(seed).permutation(np.unique(patients[data.split.test]))
        folds = []
        for fold in range(FOLDS):
            held_out = np.isin(patients[data.split.test], names[fold::FOLDS])
            shown = np.intersect1d(data.split.test[~held_out], boxed)
            train = np.union1d(data.split.train, shown)
            split = Split(train, data.split.validation, data.split.test[held_out])
            folds.append(replace(self, data=replace(data, split=split), boxes=self.boxes.of(shown)))
        return folds


def read_cohort(
    folder: Path,
    config: FitConfig,
    *,
    boxes: Path | None = None,
    layout: Layout | None = None,
    cache: Path | None = None,
    on_decoded: Progress = lambda _done, _all: None,
) -> Cohort:
    """Read a data set and its boxes.

    Parameters
    ----------
    folder
        The data set.
    config
        Gives input size and seed of the division.
    boxes
        A file like NIH's ``BBox_List_2017.csv``; by default that file in the folder.
    layout
        Of the data set; None recognises it by its files.
    cache
        Folder for decoded images; inside the data set by default.
    on_decoded
        Called after every image that is decoded into the cache.

    Raises
    ------
    InputError
        If the data set or the boxes cannot be read, or no test image has a box.
    """
    cache, boxes = cache or folder / CACHE_FOLDER, boxes or folder / BOXES_FILENAME
    radiographs = read_labelled_radiographs(folder, layout=layout)
    split = split_by_patient(radiographs.patients, config.seed, radiographs.held_out)
    images = decoded_images(radiographs, ModelSpec(input_size=config.input_size), cache, on_decoded)
    data = TrainingData(radiographs, images, split.without(images.corrupted))
    found = read_boxes(boxes, radiographs, config.input_size)
    if not len(found.of(data.split.test)):
        raise InputError(f"{boxes}: expected boxes of test patients, found none among {len(found)} of listed images")
    return Cohort(folder, layout, cache, data, found)


def read_boxes(file: Path, radiographs: LabelledRadiographs, input_size: int) -> BoxedFindings:
    """Boxes of the listed images and diseases, in model pixels.

    Parameters
    ----------
    file
        Like NIH's ``BBox_List_2017.csv``: ``x, y, w, h`` in a frame of 1024 px, whatever the image's own size. Boxes of
        images that are not listed, and of diseases that are not learnt, are left out.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    position = {name: row for row, name in enumerate(radiographs.image_ids)}
    column = {name: c for c, name in enumerate(radiographs.classes)}
    found = [
        (position[name], column[disease], (x, y, x + w, y + h))
        for name, disease, x, y, w, h in read_boxes_csv(file)
        if name in position and disease in column
    ]
    if not found:
        return NO_BOXES
    rows, classes, edges = zip(*found, strict=True)
    scale = input_size / NIH_BOX_SIDE_PX
    return BoxedFindings(np.array(rows), np.array(classes), np.array(edges) * scale)
