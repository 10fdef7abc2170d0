"""One patient: the sizes and shapes that stay the same in all of the patient's images."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from crosseai.training.phantoms.geometry import Points

Sex = Literal["M", "F"]
Vessel = tuple[Points, float]
"""Course in mm of the patient frame, and width in mm."""

RIGHT, LEFT = -1, 1
"""Sides of the PATIENT; the right lung is at the image's left, at negative x."""


@dataclass(frozen=True, slots=True)
class Anatomy:
    """A chest. Lengths in mm of the patient frame; pairs are (right, left).

    Parameters
    ----------
    sex, age
        As in the data set's table; age in years.
    half_width
        Inner half-width of the thoracic cage at its widest.
    apex
        y of the lungs' apices.
    domes
        y of the tops of the diaphragm at mean inspiration.
    depth
        Greatest front-to-back depth of the thoracic cavity.
    wall
        Thickness of the chest wall at the flank, with fat.
    heart_ratio
        Cardiothoracic ratio: heart width over cage width.
    heart_height
        Height of the heart over its width.
    knob
        Radius of the aortic knob.
    rib_spacing, rib_width, rib_drop
        Distance of neighbouring ribs, their width, and how far they descend from spine to front.
    rib_density, spine_density
        Bone mineral relative to the mean.
    clavicle_tilt
        How much the lateral end of the clavicles is above the medial one.
    scoliosis
        Amplitude of the spine's sideways curve.
    breast
        Thickness of the breasts; 0 for none.
    mediastinum_shift
        Sideways displacement of heart and mediastinum.
    vessels
        Pulmonary vessels.
    """

    sex: Sex
    age: int
    half_width: float
    apex: float
    domes: tuple[float, float]
    depth: float
    wall: float
    heart_ratio: float
    heart_height: float
    knob: float
    rib_spacing: float
    rib_width: float
    rib_drop: float
    rib_density: float
    spine_density: float
    clavicle_tilt: float
    scoliosis: float
    breast: float
    mediastinum_shift: float
    vessels: tuple[Vessel, ...]

    @property
    def hilum(self) -> float:
        """Height of the lung roots: y in mm."""
        return self.apex + 0.46 * (sum(self.domes) / 2 - self.apex)

    def dome(self, side: int) -> float:
        """Height of one side's diaphragm: y in mm."""
        return self.domes[0 if side == RIGHT else 1]


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """A random adult."""
    sex: Sex = "F" if rng.random() < 0.5 else "M"
    small = 0.94 if sex == "F" else 1.0
    half_width = small * rng.normal(143, 7)
    apex = rng.normal(62, 5)
    dome = apex + small * rng.normal(232, 10)
    domes = (dome, dome + rng.uniform(4, 16))
    hilum = apex + 0.46 * (sum(domes) / 2 - apex)
    return Anatomy(
        sex=sex,
        age=int(rng.integers(19, 88)),
        half_width=half_width,
        apex=apex,
        domes=domes,
        depth=small * rng.normal(162, 10),
        wall=rng.uniform(18, 46),
        heart_ratio=rng.uniform(0.42, 0.49),
        heart_height=rng.uniform(0.80, 0.95),
        knob=rng.uniform(12, 20),
        rib_spacing=(dome - apex) / rng.uniform(9.3, 10.4),
        rib_width=rng.uniform(9, 12.5),
        rib_drop=rng.uniform(78, 110),
        rib_density=rng.uniform(0.55, 1.05),
        spine_density=rng.uniform(0.8, 1.2),
        clavicle_tilt=rng.uniform(5, 32),
        scoliosis=rng.normal(0, 3),
        breast=rng.uniform(10, 45) if sex == "F" else 0.0,
        mediastinum_shift=rng.normal(0, 2),
        vessels=tuple(_vessels(rng, hilum, apex, dome, half_width)),
    )


def _vessels(rng: np.random.Generator, hilum: float, apex: float, dome: float, half_width: float) -> list[Vessel]:
    """Pulmonary arteries and veins: trees that fan out of both lung roots, thicker towards the base."""
    vessels: list[Vessel] = []
    for side in (RIGHT, LEFT):
        for angle in np.linspace(-1.25, 1.45, 13) + rng.normal(0, 0.07, 13):
            reach = np.hypot(0.8 * half_width * np.cos(angle), (dome - hilum if angle > 0 else hilum - apex))
            root = np.array([side * 0.21 * half_width, hilum + 16 * angle])
            width = rng.uniform(3.2, 5.2) * (1.12 if angle > 0.3 else 0.88)
            _grow(rng, vessels, root, angle, side, width, length=0.42 * reach)
    return vessels


def _grow(
    rng: np.random.Generator,
    vessels: list[Vessel],
    root: Points,
    angle: float,
    side: int,
    width: float,
    length: float,
) -> None:
    """Append one branch in four tapering pieces, then its children, until they are too thin to be seen."""
    bends = angle + np.cumsum(rng.normal(0, 0.17, 4))
    steps = np.stack([side * np.cos(bends), np.sin(bends)], axis=1) * length / 4
    course = root + np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    thinner = width * np.linspace(1, 0.72, 4)
    vessels.extend((course[i : i + 2], float(thinner[i])) for i in range(4))
    if width < 1.1:
        return
    for turn in (-1, 1):
        _grow(
            rng,
            vessels,
            course[-1] if turn > 0 else course[int(rng.integers(2, 5))],
            bends[-1] + turn * rng.uniform(0.15, 0.55),
            side,
            width * rng.uniform(0.52, 0.72),
            length * rng.uniform(0.62, 0.9),
        )
