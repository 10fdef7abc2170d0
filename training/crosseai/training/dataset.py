"""Labelled radiographs: a listing, checked, with the diseases to learn as columns of labels."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crosseai.contract import UNCERTAIN, InputError
from crosseai.training.layouts import Layout, ListedImage, Listing, read_listing

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LabelledRadiographs:
    """A data set's listing, in the order of its file.

    Parameters
    ----------
    image_ids
        Name of each image in the listing.
    paths
        File of each image.
    patients
        Patient of each image.
    labels
        uint8 ``[n, C]`` in {0, 1, UNCERTAIN}.
    classes
        Disease of each column of ``labels``.
    held_out
        Whether the data set's authors keep each image for testing, the same for all images of a patient; None where
        they do not say.
    """

    image_ids: tuple[str, ...]
    paths: tuple[Path, ...]
    patients: tuple[str, ...]
    labels: npt.NDArray[np.uint8]
    classes: tuple[str, ...]
    held_out: tuple[bool, ...] | None = None

    def __len__(self) -> int:
        return len(self.image_ids)


def read_labelled_radiographs(
    folder: Path, classes: Sequence[str] | None = None, *, layout: Layout | None = None
) -> LabelledRadiographs:
    """Read a data set's listing and find its images; no image is opened.

    Parameters
    ----------
    folder
        The data set, in a layout of :mod:`crosseai.training.layouts`.
    classes
        Diseases to learn; None for those usual in the layout. Others that the layout knows are no finding here. One
        that the layout does not know and no image has is uncertain in all.
    layout
        How the folder is laid out; None recognises it by its files.

    Raises
    ------
    InputError
        If the listing is missing, lacks a column, has an unknown label or an image twice, an image is absent, or the
        official lists divide a patient.
    """
    listing = read_listing(folder, layout)
    columns = tuple(classes) if classes is not None else listing.usual_classes
    _check_names(listing, columns)
    labels = np.array([[_label(image, name) for name in columns] for image in listing.images], np.uint8)
    found = frozenset().union(*(image.findings for image in listing.images))
    labels[:, [name not in listing.known | found for name in columns]] = UNCERTAIN
    return LabelledRadiographs(
        tuple(image.image_id for image in listing.images),
        _paths(folder, listing),
        tuple(image.patient for image in listing.images),
        labels,
        columns,
        _held_out(listing),
    )


def warn_of_empty_classes(radiographs: LabelledRadiographs, rows: npt.NDArray[np.int64], part: str) -> None:
    """Name the diseases that can be neither learnt nor judged, because no image of a part is labelled with them."""
    positive = (radiographs.labels[rows] == 1).any(0)
    if not positive.all():
        empty = [name for name, found in zip(radiographs.classes, positive, strict=True) if not found]
        _log.warning("%s part: no image is labelled with %s", part, ", ".join(empty))


def _label(image: ListedImage, disease: str) -> int:
    return UNCERTAIN if disease in image.uncertain else int(disease in image.findings)


def _check_names(listing: Listing, classes: Sequence[str]) -> None:
    known = listing.known | set(classes)
    seen: set[str] = set()
    for image in listing.images:
        if unknown := image.findings - known:
            raise InputError(
                f"{listing.file}: unknown label {min(unknown)!r} of {image.image_id}; known: {sorted(known)}"
            )
        if image.image_id in seen:
            raise InputError(f"{listing.file}: expected every image once, found {image.image_id} again")
        seen.add(image.image_id)


def _paths(folder: Path, listing: Listing) -> tuple[Path, ...]:
    absent = [image.image_id for image in listing.images if image.path is None]
    if absent:
        raise InputError(
            f"{listing.file}: {len(absent)} of {len(listing.images)} listed images are not in {folder}, "
            f"for example {', '.join(absent[:3])}"
        )
    return tuple(image.path for image in listing.images if image.path is not None)


def _held_out(listing: Listing) -> tuple[bool, ...] | None:
    sides: defaultdict[str, set[bool | None]] = defaultdict(set)
    for image in listing.images:
        sides[image.patient].add(image.held_out)
    if any(None in side for side in sides.values()):
        return None
    divided = [image.image_id for image in listing.images if len(sides[image.patient]) > 1]
    if divided:
        raise InputError(
            f"{listing.file}: expected every patient on one side of the official split, "
            f"found images of one patient on both, for example {divided[0]}"
        )
    return tuple(bool(image.held_out) for image in listing.images)
