"""Train, validation and test parts that never share a patient."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from crosseai.contract import InputError

Part: TypeAlias = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
SHARES: tuple[float, ...] = (0.7, 0.1, 0.2)
"""Expected share of the patients in each part (arXiv 2310.19835, section 4.2)."""


@dataclass(frozen=True, slots=True)
class Split:
    """Positions of each part's images in the listing, int64, ascending."""

    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]

    def rows(self, part: Part) -> npt.NDArray[np.int64]:
        """The positions of a part by its name."""
        rows: npt.NDArray[np.int64] = getattr(self, part)
        return rows

    def image_ids(self, image_ids: Sequence[str]) -> dict[Part, list[str]]:
        """The images of each part by name."""
        return {part: [image_ids[i] for i in self.rows(part)] for part in PARTS}

    def without(self, positions: Collection[int]) -> "Split":
        """The same division of fewer images.

        Raises
        ------
        InputError
            If a part is left without an image.
        """
        return _checked(Split(*(rows[~np.isin(rows, list(positions))] for rows in map(self.rows, PARTS))))

    def digest(self, image_ids: Sequence[str]) -> str:
        """SHA-256 of which image is in which part, whatever the order of the listing."""
        lines = sorted(f"{name}\t{part}\n" for part, names in self.image_ids(image_ids).items() for name in names)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def part_of(patient: str, seed: int, held_out: bool | None = None) -> Part:
    """The part that a patient belongs to: a function of patient and seed, and of the official split where there is one.

    New images and new patients therefore never move anybody from one part to another, and a later evaluation on
    a grown data set with the same seed cannot meet a patient that was trained on. The price is that parts have
    the shares of ``SHARES`` in expectation, not exactly.

    Parameters
    ----------
    held_out
        Whether the data set's authors keep the patient for testing. The others are then divided 7 : 1.
    """
    if held_out:
        return "test"
    digest = hashlib.sha256(f"{seed}:{patient}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64  # uniform in 0..1
    if held_out is not None:
        position *= SHARES[0] + SHARES[1]
    if position < SHARES[0]:
        return "train"
    return "validation" if held_out is not None or position < SHARES[0] + SHARES[1] else "test"


def parts_of(patients: Sequence[str], seed: int, held_out: Sequence[bool] | None = None) -> npt.NDArray[np.str_]:
    """The part of every image, given its patient; arguments as in :func:`split_by_patient`."""
    official: Sequence[bool | None] = [None] * len(patients) if held_out is None else held_out
    return np.array([part_of(patient, seed, held) for patient, held in zip(patients, official, strict=True)])


def split_by_patient(patients: Sequence[str], seed: int, held_out: Sequence[bool] | None = None) -> Split:
    """Divide a listing by patient.

    Parameters
    ----------
    patients
        Patient of each image.
    seed
        Seed of the division.
    held_out
        Whether the data set's authors keep each image for testing, the same for all images of a patient. None where
        they do not say.

    Raises
    ------
    InputError
        If a part is left without an image.
    """
    parts = parts_of(patients, seed, held_out)
    return _checked(Split(*(np.flatnonzero(parts == part) for part in PARTS)))


def _checked(split: Split) -> Split:
    for part in PARTS:
        if not len(split.rows(part)):
            raise InputError(
                f"split: expected images in every part, found none in {part}; use more patients or another seed"
            )
    return split
