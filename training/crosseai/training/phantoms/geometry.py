"""The image plane of a phantom: millimetres of the patient, pixels of the image, and how shapes get drawn.

Patient frame: x in mm, 0 at the midline, positive towards the patient's left (the image's right); y in mm downwards,
0 at the top edge of the field, for a patient placed without shift, rotation or zoom.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

FIELD_MM = 430.0
"""Side of the square detector."""

Points: TypeAlias = npt.NDArray[np.float64]
"""``[n, 2]`` points (x, y) in mm of the patient frame."""

Map: TypeAlias = npt.NDArray[np.floating[Any]]
"""``float32 [S, S]`` values at the pixel centres of a frame."""

_SHIFT = 4  # OpenCV draws with fixed-point coordinates: 1/16 px


@dataclass(frozen=True)
class Frame:
    """A detector and where the patient stands before it.

    Parameters
    ----------
    size
        Side ``S`` of the square image in pixels.
    shift_mm
        Displacement (x, y) of the patient.
    rotation_deg
        Tilt in the image plane, clockwise.
    zoom
        Magnification about the centre of the field.
    """

    size: int
    shift_mm: tuple[float, float] = (0.0, 0.0)
    rotation_deg: float = 0.0
    zoom: float = 1.0

    @property
    def pixel_mm(self) -> float:
        """Side of a pixel on the detector."""
        return FIELD_MM / self.size

    @cached_property
    def _linear(self) -> npt.NDArray[np.float64]:
        """Rotation and zoom, ``[2, 2]``."""
        angle = np.deg2rad(self.rotation_deg)
        cosine, sine = np.cos(angle), np.sin(angle)
        return self.zoom * np.array([[cosine, -sine], [sine, cosine]])

    @cached_property
    def grid(self) -> tuple[Map, Map]:
        """Patient coordinates (x, y) in mm of every pixel centre."""
        centred = (np.arange(self.size, dtype=np.float32) + 0.5) * self.pixel_mm - FIELD_MM / 2
        column, row = centred[None, :] - self.shift_mm[0], centred[:, None] - self.shift_mm[1]
        inverse = np.linalg.inv(self._linear).astype(np.float32)
        x = inverse[0, 0] * column + inverse[0, 1] * row
        y = inverse[1, 0] * column + inverse[1, 1] * row + np.float32(FIELD_MM / 2)
        return x, y

    @cached_property
    def coarse(self) -> "Frame":
        """The same view with half as many pixels a side: enough for what has no sharp edges."""
        return replace(self, size=self.size // 2)

    def enlarge(self, coarse: Map) -> Map:
        """A map of the coarse frame, interpolated at this frame's pixels."""
        return _map(cv2.resize(coarse, (self.size, self.size), interpolation=cv2.INTER_LINEAR))

    def to_px(self, points: Points) -> Points:
        """Continuous pixel coordinates of patient points; the top-left pixel covers 0..1 x 0..1."""
        centred = (points - (0.0, FIELD_MM / 2)) @ self._linear.T + self.shift_mm
        pixels: Points = (centred + FIELD_MM / 2) / self.pixel_mm
        return pixels

    def _fixed_point(self, points: Points) -> npt.NDArray[np.int32]:
        # OpenCV counts from the centre of the top-left pixel.
        return np.round((self.to_px(points) - 0.5) * (1 << _SHIFT)).astype(np.int32)

    def fill(self, *outlines: Points) -> Map:
        """Cover of the pixels, 0..1, by polygons; where they overlap, the last one counts."""
        layer = np.zeros((self.size, self.size), np.uint8)
        for outline in outlines:
            cv2.fillPoly(layer, [self._fixed_point(outline)], 255, cv2.LINE_AA, _SHIFT)
        return layer * np.float32(1 / 255)

    def stroke(self, lines: Iterable[tuple[Points, float]], *, full_mm: float) -> Map:
        """Polylines given as (points, width in mm).

        Returns
        -------
        Map
            1 where a line is ``full_mm`` or more wide; less for thinner ones, so that a line thinner than a pixel
            is faint and not wide. Lines do not add up where they cross.
        """
        layer = np.zeros((self.size, self.size), np.uint8)
        by_width = sorted(lines, key=lambda line: line[1])
        if not by_width:
            return layer.astype(np.float32)
        fixed = self._fixed_point(np.concatenate([points for points, _ in by_width]))
        courses = np.split(fixed, np.cumsum([len(points) for points, _ in by_width])[:-1])
        width_mm = np.array([width for _, width in by_width])
        exact_px = width_mm * self.zoom / self.pixel_mm
        width_px = np.maximum(np.round(exact_px), 1).astype(int)
        value = 255 * np.minimum(width_mm / full_mm, 1) * np.minimum(exact_px / width_px, 1)
        pens = zip(width_px.tolist(), np.round(value / 4).astype(int).tolist(), strict=True)
        for (pen_px, quarter), group in groupby(zip(pens, courses, strict=True), key=itemgetter(0)):
            alike = [course for _, course in group]
            cv2.polylines(layer, alike, False, min(4 * quarter, 255), pen_px, cv2.LINE_AA, _SHIFT)
        return layer * np.float32(1 / 255)

    def depth_mm(self, cover: Map, limit_mm: float) -> Map:
        """Distance of every covered pixel to the edge of the shape, at most ``limit_mm``."""
        inside = (cover > 0.5).astype(np.uint8)
        distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_5)
        depth: Map = np.minimum(distance * np.float32(self.pixel_mm / self.zoom), np.float32(limit_mm))
        return depth

    def blur(self, values: Map, sigma_mm: float) -> Map:
        """Gaussian blur; a wide one is computed on a coarser grid."""
        sigma_px = sigma_mm / self.pixel_mm
        if sigma_px <= 3:
            return _map(cv2.GaussianBlur(values, (0, 0), max(sigma_px, 0.01), borderType=cv2.BORDER_REPLICATE))
        side = max(16, round(self.size * 3 / sigma_px))
        if side >= self.size:
            return _map(cv2.GaussianBlur(values, (0, 0), sigma_px, borderType=cv2.BORDER_REPLICATE))
        small = cv2.resize(values, (side, side), interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), sigma_px * side / self.size, borderType=cv2.BORDER_REPLICATE)
        return _map(cv2.resize(small, (self.size, self.size), interpolation=cv2.INTER_LINEAR))

    def texture(self, rng: np.random.Generator, grain_mm: float) -> Map:
        """Smooth noise of mean 0 and standard deviation 1 with features of about ``grain_mm``."""
        side = int(np.clip(2 * FIELD_MM / grain_mm, 8, self.size))
        noise = cv2.GaussianBlur(rng.standard_normal((side, side), dtype=np.float32), (0, 0), 1.0)
        noise = (noise - noise.mean()) / noise.std()
        return _map(cv2.resize(noise, (self.size, self.size), interpolation=cv2.INTER_CUBIC))


def _map(array: npt.NDArray[Any]) -> Map:
    """OpenCV's stubs forget the dtype; restore it."""
    return array.astype(np.float32, copy=False)


def rounded(fraction: Map) -> Map:
    """Profile of a body with a round edge: depth 0..1 into it -> thickness 0..1 (a quarter circle)."""
    inwards = np.clip(1 - fraction, 0, 1)
    thickness: Map = np.sqrt(1 - inwards * inwards)
    return thickness


def spline(points: npt.ArrayLike, *, closed: bool = False, steps: int = 8) -> Points:
    """Catmull-Rom curve through points ``[n, 2]``."""
    knots = np.asarray(points, dtype=np.float64)
    if closed:
        padded = np.concatenate([knots[-1:], knots, knots[:2]])
    else:
        padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    p0, p1, p2, p3 = (padded[i : len(padded) - 3 + i, None, :] for i in range(4))
    t = (np.arange(steps) / steps)[None, :, None]
    curve = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * (p1 - p2) + p3 - p0) * t**3)
    flat: Points = curve.reshape(-1, 2)
    return flat if closed else np.concatenate([flat, knots[-1:]])


def ribbon(centre: Points, width_mm: float | Points) -> tuple[Points, Points]:
    """The two edges of a band of the given width (scalar or ``[n]``) along a curve."""
    tangent = np.gradient(centre, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) / np.linalg.norm(tangent, axis=1, keepdims=True)
    half = np.broadcast_to(np.asarray(width_mm) / 2, (len(centre),))[:, None]
    return centre - half * normal, centre + half * normal


def ellipse(centre: tuple[float, float], radii: tuple[float, float], *, points: int = 32) -> Points:
    """Outline of an ellipse in mm."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([centre[0] + radii[0] * np.cos(angle), centre[1] + radii[1] * np.sin(angle)], axis=1)
