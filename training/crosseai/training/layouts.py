"""How data sets name their images, patients and findings: NIH ChestX-ray, CheXpert, and a plain table.

::

    nih       DIR/Data_Entry_2017_v2020.csv or DIR/Data_Entry_2017.csv, with train_val_list.txt and test_list.txt
              if the official split is wanted; DIR/images/*.png, DIR/images_001/images/*.png ... (as NIH's archives
              unpack), or DIR/dicom/*.dcm
    chexpert  DIR/train.csv and DIR/valid.csv with the columns Path, Frontal/Lateral and one a disease
    table     DIR/labels.csv with the columns image, patient, labels; images in DIR or DIR/images
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias, get_args

from crosseai.contract import CHESTXRAY8, NO_FINDING, InputError, canonical_label

Layout: TypeAlias = Literal["nih", "chexpert", "table"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

CHESTXRAY14 = (
    *CHESTXRAY8,
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
)
"""Every disease that NIH's listing names."""

CHEXPERT_COMPETITION = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion")
"""The five diseases that CheXpert is judged by (Irvin et al. 2019, section 5)."""

_OFFICIAL_LISTS = ("train_val_list.txt", "test_list.txt")
_CHEXPERT_CODES = {"": 0, "0": 0, "0.0": 0, "1": 1, "1.0": 1, "-1": -1, "-1.0": -1}
"""Not mentioned, absent, present, uncertain."""

_OTHER_COLUMNS = {"Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", NO_FINDING}


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One row of a listing.

    Parameters
    ----------
    image_id
        Name of the image in the listing.
    path
        Its file; None when it is absent.
    patient
        Whose image it is.
    findings
        What it is labelled with, in canonical spelling.
    uncertain
        Diseases of which the listing says that they may or may not be there.
    held_out
        Whether the data set's authors keep the image for testing; None where they do not say.
    """

    image_id: str
    path: Path | None
    patient: str
    findings: frozenset[str]
    uncertain: frozenset[str] = frozenset()
    held_out: bool | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """What a layout reader finds.

    Parameters
    ----------
    file
        The listing, for messages.
    images
        Its rows, in the order of the file.
    known
        Every disease that the listing may name.
    usual_classes
        Diseases to learn unless others are asked for.
    """

    file: Path
    images: tuple[ListedImage, ...]
    known: frozenset[str]
    usual_classes: tuple[str, ...]


def read_listing(folder: Path, layout: Layout | None = None) -> Listing:
    """Read a data set's listing; no image is opened.

    Parameters
    ----------
    folder
        The data set.
    layout
        How it is laid out; None recognises it by the files in the folder.

    Raises
    ------
    InputError
        If the layout cannot be told, or a listing is missing, empty, not UTF-8, lacks a column or has a gap in a row.
    """
    try:
        return _READERS[layout or _recognise(folder)](folder)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"data set {folder}: expected listings in UTF-8 that can be read: {error}") from error


def _recognise(folder: Path) -> Layout:
    found = [layout for layout, names in _LISTINGS.items() if any((folder / name).is_file() for name in names)]
    if len(found) == 1:
        return found[0]
    wanted = ", ".join(f"{' or '.join(names)} ({layout})" for layout, names in _LISTINGS.items())
    raise InputError(f"data set {folder}: expected the listing of one layout: {wanted}; found {found or 'none'}")


def _read_nih(folder: Path) -> Listing:
    listing = _first_file(folder, "nih")
    held_out = _official_test(folder)
    files = {path.name: path for glob in ("dicom/*", "images_*/images/*", "images/*") for path in folder.glob(glob)}
    images = []
    for row in _read_rows(listing, ("Image Index", "Finding Labels", "Patient ID")):
        name = row["Image Index"]
        if held_out is not None and name not in held_out:
            raise InputError(
                f"{listing}: expected every image in {' or '.join(_OFFICIAL_LISTS)}, found {name} in neither"
            )
        images.append(
            ListedImage(
                name,
                files.get(name) or files.get(Path(name).with_suffix(".dcm").name),
                row["Patient ID"],
                _split_findings(row["Finding Labels"]),
                held_out=None if held_out is None else held_out[name],
            )
        )
    return Listing(listing, tuple(images), frozenset(CHESTXRAY14), CHESTXRAY8)


def _official_test(folder: Path) -> dict[str, bool] | None:
    """Whether each image is in NIH's official test list; None without official lists."""
    present = [name for name in _OFFICIAL_LISTS if (folder / name).is_file()]
    if not present:
        return None
    if len(present) != len(_OFFICIAL_LISTS):
        raise InputError(
            f"data set {folder}: expected both of {' and '.join(_OFFICIAL_LISTS)}, found only {present[0]}"
        )
    train, test = (set((folder / name).read_text(encoding="utf-8").split()) for name in _OFFICIAL_LISTS)
    if both := train & test:
        raise InputError(f"data set {folder}: expected no image in both official lists, found {min(both)}")
    return {name: name in test for name in train | test}


def _read_chexpert(folder: Path) -> Listing:
    """Frontal views; what radiologists labelled (``valid.csv``) is held out; a disease not mentioned is absent."""
    files = [folder / name for name in _LISTINGS["chexpert"] if (folder / name).is_file()]
    if not files:
        raise InputError(f"data set {folder}: expected train.csv or valid.csv, found neither")
    images: list[ListedImage] = []
    known: set[str] = set()
    for file in files:
        held_out = file.name == "valid.csv" if len(files) > 1 else None
        for number, row in enumerate(_read_rows(file, ("Path", "Frontal/Lateral")), start=2):
            diseases = _chexpert_codes(row, file, number)
            known |= set(diseases)
            if row["Frontal/Lateral"] != "Frontal":
                continue
            name = PurePosixPath(row["Path"])
            patient = next((part for part in name.parts if part.startswith("patient")), None)
            if patient is None:
                raise InputError(f"{file}, line {number}: expected a path with a folder patientNNNNN, found none")
            path = _first_existing(folder / name, folder / Path(*name.parts[1:]))
            findings, uncertain = (frozenset(d for d, v in diseases.items() if v == code) for code in (1, -1))
            images.append(ListedImage(str(name), path, patient, findings, uncertain, held_out))
    return Listing(files[0], tuple(images), frozenset(known), CHEXPERT_COMPETITION)


def _chexpert_codes(row: Mapping[str, str], file: Path, number: int) -> dict[str, int]:
    codes = {}
    for disease in set(row) - _OTHER_COLUMNS:
        if row[disease] not in _CHEXPERT_CODES:
            raise InputError(f"{file}, line {number}: expected 1, 0, -1 or blank for {disease}, found {row[disease]!r}")
        codes[canonical_label(disease)] = _CHEXPERT_CODES[row[disease]]
    return codes


def _read_table(folder: Path) -> Listing:
    listing = _first_file(folder, "table")
    images = tuple(
        ListedImage(
            row["image"],
            _first_existing(folder / row["image"], folder / "images" / row["image"]),
            row["patient"],
            _split_findings(row["labels"]),
        )
        for row in _read_rows(listing, ("image", "patient", "labels"))
    )
    return Listing(listing, images, frozenset(CHESTXRAY14), CHESTXRAY8)


def _split_findings(text: str) -> frozenset[str]:
    return frozenset(map(canonical_label, text.split("|"))) - {NO_FINDING}


def _first_file(folder: Path, layout: Layout) -> Path:
    found = _first_existing(*(folder / name for name in _LISTINGS[layout]))
    if found is None:
        raise InputError(f"data set {folder}: expected {' or '.join(_LISTINGS[layout])}, found neither")
    return found


def _first_existing(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _read_rows(listing: Path, required: Sequence[str]) -> list[dict[str, str]]:
    with listing.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or ()
        missing = [name for name in required if name not in columns]
        if missing:
            raise InputError(f"{listing}: expected the columns {missing}, found {list(columns)}")
        rows = list(reader)
    if not rows:
        raise InputError(f"{listing}: expected at least one image, found none")
    for number, row in enumerate(rows, start=2):
        if None in row:
            raise InputError(f"{listing}, line {number}: expected {len(columns)} values, found more")
        if gaps := [name for name in required if not row[name]]:
            raise InputError(f"{listing}, line {number}: expected a value for {', '.join(gaps)}, found a gap")
    return rows


_LISTINGS: Mapping[Layout, tuple[str, ...]] = {
    "nih": ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv"),
    "chexpert": ("train.csv", "valid.csv"),
    "table": ("labels.csv",),
}
_READERS: Mapping[Layout, Callable[[Path], Listing]] = {
    "nih": _read_nih,
    "chexpert": _read_chexpert,
    "table": _read_table,
}
