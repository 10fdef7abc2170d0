"""From lengths in tissue to the picture a reader sees: attenuation, scatter, noise, processing, window."""

import math
from dataclasses import dataclass

import numpy as np

from crosseai.training.phantoms.geometry import FIELD_MM, Frame, Map

WATER_PER_MM = 0.019
"""Linear attenuation of water at about 70 keV, the mean energy of a 120 kV chest exposure (NIST XCOM: 0.193 / cm)."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """How one image was taken and processed.

    Parameters
    ----------
    dose
        Photons a square millimetre that reach the detector outside the body.
    scatter
        Scattered over primary radiation behind the grid.
    sharpness_mm
        Standard deviation of the detector's point spread.
    compression
        Share of the coarse (15 mm and more) contrast that the processing takes away.
    enhancement
        Gain added to fine detail.
    dark, bright
        Shift of the window's ends, relative to its width.
    slope
        Steepness of the sigmoid look-up curve.
    """

    dose: float
    scatter: float
    sharpness_mm: float
    compression: float
    enhancement: float
    dark: float
    bright: float
    slope: float


def draw_exposure(rng: np.random.Generator, *, portable: bool) -> Exposure:
    """A random technique; portable (AP) images have less dose and more scatter."""
    return Exposure(
        dose=float(np.exp(rng.normal(np.log(1e5 if portable else 2.5e5), 0.35))),
        scatter=rng.uniform(0.4, 0.8) if portable else rng.uniform(0.2, 0.5),
        sharpness_mm=rng.uniform(0.3, 0.6),
        compression=rng.uniform(0.25, 0.6),
        enhancement=rng.uniform(0.1, 0.7),
        dark=rng.normal(0, 0.12),
        bright=rng.normal(0, 0.12),
        slope=rng.uniform(0.8, 3.0),
    )


def expose(frame: Frame, water: Map, exposure: Exposure, rng: np.random.Generator) -> Map:
    """Optical density that the detector records: minus the logarithm of the dose it gets (Beer-Lambert)."""
    primary = np.exp(-np.float32(WATER_PER_MM) * np.maximum(water, 0))
    behind_body = frame.blur(np.minimum(primary, np.float32(0.2)), 28)
    dose = frame.blur(primary, exposure.sharpness_mm) + np.float32(exposure.scatter) * behind_body
    photons = dose * np.float32(exposure.dose * frame.pixel_mm**2)
    # Poisson noise is Gaussian at these counts.
    noise = rng.standard_normal(photons.shape, dtype=np.float32) * np.sqrt(photons)
    counted = np.maximum(photons + frame.blur(noise, 0.35 * frame.pixel_mm), 1)
    density: Map = -np.log(counted)
    return density


def develop(frame: Frame, density: Map, exposure: Exposure) -> Map:
    """Displayed gray values 0..1: contrast processing, a window fitted to the chest, a sigmoid curve."""
    coarse, fine = frame.blur(density, 16), frame.blur(density, 2.5)
    density = density - np.float32(exposure.compression) * coarse + np.float32(exposure.enhancement) * (density - fine)
    margin = frame.size // 6
    centre = density[margin:-margin:4, margin:-margin:4]
    lung, bone = (float(level) for level in np.quantile(centre, (0.03, 0.97)))
    width = bone - lung
    black = lung - width * (0.42 + exposure.dark)
    white = bone + width * (0.20 + exposure.bright)
    linear = (density - black) / (white - black)
    curve = 1 / (1 + np.exp(-np.float32(exposure.slope) * (linear - 0.5)))
    low = 1 / (1 + math.exp(exposure.slope / 2))
    high = 1 - low
    shown: Map = np.clip((curve - low) / (high - low), 0, 1)
    return shown


def collimate(frame: Frame, shown: Map, rng: np.random.Generator) -> Map:
    """Blades that leave a dark border at some sides of some images."""
    if rng.random() < 0.55:
        return shown
    left, right, top, bottom = (np.maximum(rng.normal(4, 6, 4), 0) / FIELD_MM * frame.size).astype(int)
    open_field = np.zeros_like(shown)
    open_field[top : frame.size - bottom, left : frame.size - right] = 1
    return shown * np.maximum(frame.blur(open_field, 0.8), 0.02)
