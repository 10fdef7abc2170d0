"""Disease names and their spelling variants."""

from collections.abc import Sequence

from crosseai.contract.errors import InputError

CHESTXRAY8: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
)
"""The eight diseases of ChestX-ray8 (Wang et al., CVPR 2017), in the order of the model's outputs."""

NO_FINDING = "No Finding"

UNCERTAIN = 255
"""In uint8 label matrices, beside 0 and 1: not known, neither learnt from nor evaluated."""

_ALIASES = {"Infiltrate": "Infiltration", "Pleural Effusion": "Effusion"}
"""``BBox_List_2017.csv`` says Infiltrate where ``Data_Entry_2017.csv`` says Infiltration; CheXpert says Pleural
Effusion where NIH says Effusion."""


def canonical_label(label: str) -> str:
    """The one spelling of a disease name used in this project."""
    stripped = label.strip()
    return _ALIASES.get(stripped, stripped)


def class_index(label: str, classes: Sequence[str]) -> int:
    """Position of a disease among a model's classes.

    Raises
    ------
    InputError
        If the model does not know the disease.
    """
    name = canonical_label(label)
    if name not in classes:
        raise InputError(f"unknown disease {label!r}; the model knows {', '.join(classes)}")
    return classes.index(name)
