"""Which patients come, how often, and with what."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count as counting

import numpy as np

from crosseai.contract import CHESTXRAY8
from crosseai.training.phantoms.anatomy import Anatomy, draw_anatomy

NORMAL_SHARE = 0.35
"""Share of images without any finding; in NIH it is 0.54."""

SECOND_SHARE = 0.30
"""Share of the images with a finding that show a second one."""

MAX_VISITS = 5


@dataclass(frozen=True, slots=True)
class Visit:
    """One image to be drawn.

    Parameters
    ----------
    patient
        Number of the patient, from 1.
    follow_up
        Number of the image among the patient's, from 0.
    anatomy
        The patient.
    diseases
        Findings to plant, in the order of ChestX-ray8.
    """

    patient: int
    follow_up: int
    anatomy: Anatomy
    diseases: tuple[str, ...]

    @property
    def stem(self) -> str:
        """File name without suffix, as in NIH: ``PPPPPPPP_NNN``."""
        return f"{self.patient:08d}_{self.follow_up:03d}"

    def rng(self, seed: int) -> np.random.Generator:
        """Random numbers of this image alone: no other image's drawing can change it."""
        return np.random.default_rng([seed, self.patient, self.follow_up + 1])


def visits(seed: int) -> Iterator[Visit]:
    """An endless cohort; a longer set of one seed begins with the shorter one.

    Every patient has one main disease, taken in turn so that all are equally frequent, and perhaps another.
    """
    for patient in counting(1):
        rng = np.random.default_rng([seed, patient, 0])
        anatomy = draw_anatomy(rng)
        main = (patient - 1) % len(CHESTXRAY8)
        other = (main + int(rng.integers(1, len(CHESTXRAY8)))) % len(CHESTXRAY8)
        for follow_up in range(rng.integers(1, MAX_VISITS + 1)):
            present: tuple[int, ...] = ()
            if rng.random() >= NORMAL_SHARE:
                present = (main, other) if rng.random() < SECOND_SHARE else (main,)
            yield Visit(patient, follow_up, anatomy, tuple(CHESTXRAY8[i] for i in sorted(present)))
