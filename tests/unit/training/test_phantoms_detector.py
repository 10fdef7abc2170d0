"""The imaging chain against the formulas it stands on."""

from dataclasses import replace

import numpy as np
import pytest

from crosseai.training.phantoms.detector import (
    WATER_PER_MM,
    Exposure,
    collimate,
    develop,
    draw_exposure,
    expose,
)
from crosseai.training.phantoms.geometry import Frame

IDEAL = Exposure(dose=1e7, scatter=0, sharpness_mm=0.3, compression=0, enhancement=0, dark=0, bright=0, slope=1.0)
FRAME = Frame(128)


def slab(thickness_mm: float) -> np.ndarray:
    return np.full((FRAME.size, FRAME.size), thickness_mm, np.float32)


@pytest.mark.parametrize(("thin", "thick"), [(0, 50), (80, 200), (150, 151)])
def test_beer_lambert_without_scatter(thin: float, thick: float) -> None:
    rng = np.random.default_rng(0)
    difference = expose(FRAME, slab(thick), IDEAL, rng).mean() - expose(FRAME, slab(thin), IDEAL, rng).mean()
    assert difference == pytest.approx(WATER_PER_MM * (thick - thin), abs=2e-3)


def test_noise_is_poisson_and_grows_with_thickness() -> None:
    exposure = replace(IDEAL, dose=2e4)
    deviations = [expose(FRAME, slab(t), exposure, np.random.default_rng(1)).std() for t in (50, 150)]
    assert deviations[1] / deviations[0] == pytest.approx(np.exp(WATER_PER_MM * 100 / 2), rel=0.05)
    photons = exposure.dose * FRAME.pixel_mm**2 * np.exp(-WATER_PER_MM * 50)
    # The blur of the detector averages neighbours, so the noise is somewhat below one over the root of N.
    assert 0.4 < deviations[0] * np.sqrt(photons) < 1


def test_scatter_lowers_contrast() -> None:
    water = slab(150)
    water[:, 64:] = 170
    contrasts = []
    for scatter in (0.0, 0.4, 0.8):
        density = expose(FRAME, water, replace(IDEAL, scatter=scatter), np.random.default_rng(2))
        contrasts.append(density[:, 70:].mean() - density[:, :58].mean())
    assert contrasts[0] > contrasts[1] > contrasts[2] > 0


@pytest.mark.parametrize("seed", range(5))
def test_developing_keeps_the_order_and_the_range(seed: int) -> None:
    exposure = replace(draw_exposure(np.random.default_rng(seed), portable=seed % 2 == 0), compression=0, enhancement=0)
    density = np.broadcast_to(np.linspace(0, 4, FRAME.size, dtype=np.float32), (FRAME.size, FRAME.size))
    shown = develop(FRAME, density, exposure)
    assert shown.dtype == np.float32
    assert shown.min() >= 0
    assert shown.max() <= 1
    assert (np.diff(shown, axis=1) >= 0).all()
    assert shown[0, -1] > 0.8
    assert shown[0, 0] < 0.2


def test_developing_hides_the_dose() -> None:
    """As in a clinic: twice the dose gives the same picture, because the window follows the histogram."""
    density = np.random.default_rng(0).normal(2, 1, (FRAME.size, FRAME.size)).astype(np.float32)
    exposure = draw_exposure(np.random.default_rng(0), portable=False)
    once, twice = develop(FRAME, density, exposure), develop(FRAME, density - np.float32(np.log(2)), exposure)
    np.testing.assert_allclose(once, twice, atol=1e-4)


def test_collimation_only_darkens() -> None:
    shown = slab(0.7)
    fields = [collimate(FRAME, shown, np.random.default_rng(seed)) for seed in range(20)]
    assert all((field <= shown + 1e-6).all() for field in fields)
    assert any((field[0] < 0.1).all() or (field[:, 0] < 0.1).all() for field in fields)
    assert any((field == shown).all() for field in fields)
