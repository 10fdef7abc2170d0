"""The image plane against closed formulas."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosseai.training.phantoms.geometry import FIELD_MM, Frame, ellipse, ribbon, rounded, spline

frames = st.builds(
    Frame,
    size=st.integers(64, 300),
    shift_mm=st.tuples(st.floats(-30, 30), st.floats(-30, 30)),
    rotation_deg=st.floats(-10, 10),
    zoom=st.floats(0.8, 1.25),
)


@given(frames)
@settings(max_examples=30, deadline=None)
def test_the_grid_is_the_inverse_of_the_projection(frame: Frame) -> None:
    x, y = frame.grid
    assert x.dtype == y.dtype == np.float32
    pixels = frame.to_px(np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64))
    centres = np.arange(frame.size) + 0.5
    np.testing.assert_allclose(pixels[:, 0].reshape(x.shape), np.broadcast_to(centres, x.shape), atol=2e-3)
    np.testing.assert_allclose(pixels[:, 1].reshape(x.shape), np.broadcast_to(centres[:, None], x.shape), atol=2e-3)


@given(frames, st.floats(20, 60), st.floats(20, 60))
@settings(max_examples=30, deadline=None)
def test_a_filled_ellipse_has_its_area_and_place(frame: Frame, a: float, b: float) -> None:
    cover = frame.fill(ellipse((5.0, 200.0), (a, b), points=96))
    area_mm2 = cover.sum() * (frame.pixel_mm / frame.zoom) ** 2
    perimeter_px = np.pi * (a + b) * frame.zoom / frame.pixel_mm
    # OpenCV's antialiased border reaches up to a pixel outside.
    assert area_mm2 == pytest.approx(np.pi * a * b, abs=perimeter_px * (frame.pixel_mm / frame.zoom) ** 2)
    x, y = frame.grid
    assert (x * cover).sum() / cover.sum() == pytest.approx(5, abs=frame.pixel_mm)
    assert (y * cover).sum() / cover.sum() == pytest.approx(200, abs=frame.pixel_mm)


def test_thicker_strokes_are_brighter() -> None:
    frame = Frame(512)
    line = np.array([[-100.0, 215.0], [100.0, 215.0]])
    totals = [frame.stroke([(line, width)], full_mm=6).sum() for width in (0.3, 0.6, 1.2, 2.4, 4.8)]
    assert all(a < b for a, b in pairwise(totals))


def test_depth_is_the_distance_to_the_edge() -> None:
    frame = Frame(400, zoom=1.1)
    x, y = frame.grid
    depth = frame.depth_mm(frame.fill(ellipse((0.0, 215.0), (60, 60), points=128)), 100)
    exact = np.maximum(60 - np.hypot(x, y - 215), 0)
    assert np.abs(depth - exact).max() < 3
    assert frame.depth_mm((exact > 0).astype(np.float32), 10).max() == 10


def test_a_wide_blur_keeps_the_mean_and_spreads() -> None:
    frame = Frame(256)
    x, y = frame.grid
    spot = np.exp(-(x**2 + (y - 215) ** 2) / (2 * 30**2)).astype(np.float32)
    blurred = frame.blur(spot, 40)
    exact = 30**2 / (30**2 + 40**2) * np.exp(-(x**2 + (y - 215) ** 2) / (2 * (30**2 + 40**2)))
    assert np.abs(blurred - exact).max() < 0.03


@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(0, 400)), min_size=3, max_size=8))
def test_a_spline_goes_through_its_knots(knots: list[tuple[float, float]]) -> None:
    points = np.array(knots)
    np.testing.assert_allclose(spline(points)[::8], points, atol=1e-9)
    np.testing.assert_allclose(spline(points, closed=True)[::8], points, atol=1e-9)


def test_the_edges_of_a_ribbon_are_its_width_apart() -> None:
    centre = spline([(0, 0), (30, 10), (60, 40)])
    upper, lower = ribbon(centre, 7.0)
    np.testing.assert_allclose(np.linalg.norm(lower - upper, axis=1), 7.0)
    np.testing.assert_allclose((lower + upper) / 2, centre)


def test_a_rounded_edge_is_a_quarter_circle() -> None:
    fraction = np.linspace(-0.5, 1.5, 41, dtype=np.float32)
    profile = rounded(fraction)
    inside = (fraction >= 0) & (fraction <= 1)
    np.testing.assert_allclose(profile[inside] ** 2 + (1 - fraction[inside]) ** 2, 1, atol=1e-6)
    assert profile[0] == 0
    assert profile[-1] == 1


def test_texture_has_the_promised_moments_and_grain() -> None:
    frame = Frame(256)
    fine, coarse = (frame.texture(np.random.default_rng(0), grain) for grain in (5, 60))
    for texture in (fine, coarse):
        assert texture.mean() == pytest.approx(0, abs=0.15)
        assert texture.std() == pytest.approx(1, abs=0.2)
    assert np.abs(np.diff(fine)).mean() > 4 * np.abs(np.diff(coarse)).mean()
    assert FIELD_MM / frame.size == frame.pixel_mm
