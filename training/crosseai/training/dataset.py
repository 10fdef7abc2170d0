"""Labelled radiographs in the layout of NIH ChestX-ray, which the phantoms share, and their decoded cache.

::

    DIR/Data_Entry_2017_v2020.csv or DIR/Data_Entry_2017.csv
    DIR/images/*.png, DIR/images_001/images/*.png ... (as NIH's archives unpack), or DIR/dicom/*.dcm
"""

import csv
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crosseai.contract import CHESTXRAY8, NO_FINDING, InputError, ModelSpec, canonical_label
from crosseai.imaging import preprocess, read_radiograph

LISTINGS = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
IMAGE_COLUMN, LABEL_COLUMN, PATIENT_COLUMN = "Image Index", "Finding Labels", "Patient ID"
CACHE_FOLDER = ".crosseai-cache"

_OTHER_LABELS = {NO_FINDING, "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"}
"""What NIH's listing also says: nothing found, or one of the six diseases that ChestX-ray14 added."""


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
        uint8 ``[n, C]`` in {0, 1}.
    classes
        Disease of each column of ``labels``.
    """

    image_ids: tuple[str, ...]
    paths: tuple[Path, ...]
    patients: tuple[str, ...]
    labels: npt.NDArray[np.uint8]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.image_ids)


def read_labelled_radiographs(folder: Path, classes: Sequence[str] = CHESTXRAY8) -> LabelledRadiographs:
    """Read a data set's listing and find its images; no image is opened.

    Parameters
    ----------
    folder
        The data set.
    classes
        Diseases to learn. Others that the NIH listing knows are no finding here.

    Raises
    ------
    InputError
        If the listing is missing, lacks a column, has an unknown label or an image twice, or an image is absent.
    """
    listing = _find_listing(folder)
    rows = _read_rows(listing)
    known = _OTHER_LABELS | set(CHESTXRAY8) | set(classes)
    labels = np.zeros((len(rows), len(classes)), np.uint8)
    for i, row in enumerate(rows):
        for label in map(canonical_label, row[LABEL_COLUMN].split("|")):
            if label in classes:
                labels[i, classes.index(label)] = 1
            elif label not in known:
                raise InputError(f"{listing}: unknown label {label!r} of {row[IMAGE_COLUMN]}; known: {sorted(known)}")
    image_ids = tuple(row[IMAGE_COLUMN] for row in rows)
    if len(set(image_ids)) != len(image_ids):
        twice = next(name for i, name in enumerate(image_ids) if name in image_ids[:i])
        raise InputError(f"{listing}: expected every image once, found {twice} again")
    paths = _find_images(folder, listing, image_ids)
    return LabelledRadiographs(image_ids, paths, tuple(row[PATIENT_COLUMN] for row in rows), labels, tuple(classes))


def decoded_images(radiographs: LabelledRadiographs, spec: ModelSpec, cache: Path) -> npt.NDArray[np.uint8]:
    """Every image as scoring preprocesses it, decoded once and memory-mapped from then on.

    The cache file is named by what it was made from: names, sizes and times of the images, and the spec's
    preprocessing. A few of its images are decoded again at every opening, so that a cache of other preprocessing
    code is noticed and rebuilt.

    Parameters
    ----------
    cache
        Folder for cache files; made if absent.

    Returns
    -------
    ndarray
        uint8 ``[n, 1, S, S]``; writing to it does not change the file.

    Raises
    ------
    InputError
        If an image cannot be read, or the cache cannot be written.
    """
    file = cache / f"{_cache_key(radiographs, spec)}.npy"
    if not file.is_file() or not _holds(file, radiographs, spec):
        try:
            cache.mkdir(parents=True, exist_ok=True)
            _decode_all(radiographs, spec, file)
        except OSError as error:
            raise InputError(f"cache of decoded images: cannot write {file}: {error.strerror}") from error
    images: npt.NDArray[np.uint8] = np.load(file, mmap_mode="c")
    return images


def _find_listing(folder: Path) -> Path:
    for name in LISTINGS:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"data set {folder}: expected {' or '.join(LISTINGS)}, found neither")


def _read_rows(listing: Path) -> list[dict[str, str]]:
    with listing.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or ()
        missing = [name for name in (IMAGE_COLUMN, LABEL_COLUMN, PATIENT_COLUMN) if name not in columns]
        if missing:
            raise InputError(f"{listing}: expected the columns {missing}, found {list(columns)}")
        rows = list(reader)
    if not rows:
        raise InputError(f"{listing}: expected at least one image, found none")
    for number, row in enumerate(rows, start=2):
        if not (row[IMAGE_COLUMN] and row[LABEL_COLUMN] and row[PATIENT_COLUMN]):
            raise InputError(f"{listing}, line {number}: expected an image, its labels and a patient, found a gap")
    return rows


def _find_images(folder: Path, listing: Path, image_ids: Sequence[str]) -> tuple[Path, ...]:
    files: Mapping[str, Path] = {
        path.name: path for pattern in ("dicom/*", "images_*/images/*", "images/*") for path in folder.glob(pattern)
    }
    found = [files.get(name) or files.get(Path(name).with_suffix(".dcm").name) for name in image_ids]
    absent = [name for name, path in zip(image_ids, found, strict=True) if path is None]
    if absent:
        raise InputError(
            f"{listing}: {len(absent)} of {len(image_ids)} listed images are not in {folder}/images, "
            f"for example {', '.join(absent[:3])}"
        )
    return tuple(path for path in found if path is not None)


def _cache_key(radiographs: LabelledRadiographs, spec: ModelSpec) -> str:
    sources: list[tuple[Any, ...]] = [
        (name, (status := path.stat()).st_size, status.st_mtime_ns)
        for name, path in zip(radiographs.image_ids, radiographs.paths, strict=True)
    ]
    made_from = json.dumps([spec.resize, spec.input_size, sources])
    return hashlib.sha256(made_from.encode()).hexdigest()[:16]


def _holds(file: Path, radiographs: LabelledRadiographs, spec: ModelSpec) -> bool:
    """Whether a cache file is whole and its first, middle and last image are what decoding gives now."""
    try:
        images = np.load(file, mmap_mode="r")
    except (ValueError, OSError):
        return False
    n = len(radiographs)
    return images.shape == (n, 1, spec.input_size, spec.input_size) and all(
        np.array_equal(images[i], preprocess(read_radiograph(radiographs.paths[i]), spec)) for i in {0, n // 2, n - 1}
    )


def _decode_all(radiographs: LabelledRadiographs, spec: ModelSpec, file: Path) -> None:
    shape = (len(radiographs), 1, spec.input_size, spec.input_size)
    partial = file.with_suffix(f".{os.getpid()}.partial")
    images = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)

    def decode(i: int) -> InputError | None:
        try:
            images[i] = preprocess(read_radiograph(radiographs.paths[i]), spec)
        except InputError as error:
            return error
        return None

    try:
        with partial.open("rb+") as stream:  # a full disk is an error here, and a crash once the file is mapped
            os.posix_fallocate(stream.fileno(), 0, partial.stat().st_size)
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoders release the GIL
            errors = [error for error in pool.map(decode, range(len(radiographs))) if error is not None]
        if errors:
            examples = "; ".join(map(str, errors[:3]))
            raise InputError(f"{len(errors)} of {len(radiographs)} images cannot be read: {examples}")
        images.flush()
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
