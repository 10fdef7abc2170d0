"""Soft tissue and air of a chest, as lengths in mm that a ray passes through."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crosseai.training.phantoms.anatomy import LEFT, RIGHT, Anatomy
from crosseai.training.phantoms.geometry import Frame, Map, ellipse, ribbon, rounded, spline

LUNG_DENSITY = 0.27
"""Inflated lung relative to water."""

# Half-width of the cage, relative to the widest, by height: 0 at the apex, 1 at the dome.
_CAGE_HEIGHT = np.array([0.0, 0.04, 0.10, 0.19, 0.33, 0.52, 0.75, 1.0, 1.2, 1.6])
_CAGE_WIDTH = np.array([0.50, 0.60, 0.71, 0.82, 0.91, 0.965, 0.99, 1.0, 1.0, 0.97])

# Outline of the heart: x relative to its width (0 near the midline), y relative to its height (0 at the top).
_HEART = np.array(
    [
        *[(-0.10, -0.05), (-0.17, 0.15), (-0.26, 0.36), (-0.32, 0.58), (-0.31, 0.80), (-0.25, 0.97), (0.0, 1.04)],
        *[(0.28, 1.05), (0.50, 1.02), (0.63, 0.92), (0.68, 0.76), (0.63, 0.57), (0.52, 0.38), (0.38, 0.22)],
        *[(0.25, 0.06), (0.10, -0.06)],
    ]
)


@dataclass(slots=True)
class Chest:
    """What findings change: a chest on its way to become a radiograph. Maps are ``[S, S]``.

    Parameters
    ----------
    frame, anatomy
        Where and who.
    room
        Depth in mm of what the lung can fill: the thoracic cavity without heart, mediastinum and diaphragm.
    air
        Depth of aerated lung in mm.
    water
        Everything else that absorbs, in mm of water.
    lung_tissue
        Density of the lung relative to normal; 0 where there is only air.
    """

    frame: Frame
    anatomy: Anatomy
    room: Map
    air: Map
    water: Map
    lung_tissue: Map

    def consolidate(self, share: Map) -> None:
        """Replace a share 0..1 of the aerated lung by water."""
        replaced = self.air * np.clip(share, 0, 1)
        self.air = self.air - replaced
        self.water = self.water + replaced

    def grow(self, thickness: Map) -> None:
        """Put solid tissue of that thickness in mm into the lung, no more than there is room for."""
        self.consolidate(thickness / np.maximum(self.air, 1))


def build_chest(frame: Frame, anatomy: Anatomy, rng: np.random.Generator) -> Chest:
    """Body, lungs, heart, mediastinum and great vessels, without bones and findings."""
    x, y = frame.grid
    beside_heart = np.maximum(cavity_depth(anatomy, x, y) - heart_thickness(frame, anatomy), 0)
    lung = beside_heart * aerated_share(anatomy, x, y) * (1 - frame.enlarge(mediastinum_share(frame.coarse, anatomy)))
    soft = body_thickness(frame.coarse, anatomy, rng) - _stomach(frame.coarse, anatomy, rng)
    water = frame.enlarge(soft) - lung - _airways(frame, anatomy)
    chest = Chest(frame, anatomy, lung, lung, water, np.ones_like(lung))
    _draw_vessels(chest)
    return chest


def profile(
    y: Map, heights: Sequence[float] | npt.NDArray[np.float64], values: Sequence[float] | npt.NDArray[np.float64]
) -> Map:
    """Piecewise linear function of y, by a table of half millimetres."""
    table = np.interp(np.arange(-200, 800, 0.5), heights, values).astype(np.float32)
    index = np.clip((y + 200) * 2, 0, len(table) - 1).astype(np.int32)
    values_at_y: Map = table[index]
    return values_at_y


def cavity_depth(anatomy: Anatomy, x: Map, y: Map) -> Map:
    """Depth in mm of the thoracic cavity: an ellipse at every height, two domes at the top."""
    height = (sum(anatomy.domes) / 2 - anatomy.apex) * _CAGE_HEIGHT + anatomy.apex
    sideways = x / profile(y, height, anatomy.half_width * _CAGE_WIDTH)
    off_apex = np.abs(x) / anatomy.half_width - 0.36
    below_top = y - anatomy.apex - np.where(off_apex > 0, np.float32(55), np.float32(160)) * off_apex**2
    depth: Map = np.sqrt(np.clip(1 - sideways * sideways, 0, 1)) * rounded(np.maximum(below_top, 0) / 75)
    return np.float32(anatomy.depth) * depth


def diaphragm_y(anatomy: Anatomy, x: Map) -> Map:
    """Height of the diaphragm above every x: a dome on each side that falls steeply to the costophrenic angle."""
    outwards = np.abs(x) / np.float32(anatomy.half_width) - np.float32(0.48)
    fall = np.where(outwards > 0, np.float32(130), np.float32(60)) * outwards**2
    right, left = anatomy.domes
    curve: Map = fall + (right + left) / 2 + (left - right) / 2 * np.clip(x / 30, -1, 1)
    return curve


def aerated_share(anatomy: Anatomy, x: Map, y: Map) -> Map:
    """1 above the diaphragm; below it only the posterior recess of the lung, thinning out downwards."""
    below = y - diaphragm_y(anatomy, x)
    above_edge = np.clip(0.5 - below / 2.5, 0, 1)
    recess = 0.16 * np.exp(-np.maximum(below, 0) / 30)
    share: Map = above_edge + (1 - above_edge) * recess
    return share


def mediastinum_share(frame: Frame, anatomy: Anatomy) -> Map:
    """Share of the cavity that the mediastinum fills: great vessels, aortic knob and spine leave little lung."""
    x, y = frame.grid
    apex, hilum = anatomy.apex, anatomy.hilum
    heights = (apex - 20, apex, apex + 12, apex + 26, hilum - 25, hilum, hilum + 35)
    right = profile(y, heights, (58, 46, 37, 29, 24, 27, 22))
    left = profile(y, heights, (58, 48, 39, 31, 25, 31, 25))
    x = x - np.float32(anatomy.mediastinum_shift)
    edge = np.where(x < 0, right + x, left - x)
    solid = np.clip(0.5 + edge / 5, 0, 1)
    fringe = 0.30 * np.exp(np.minimum(edge, 0) / 16)
    centre = (15 + anatomy.mediastinum_shift, hilum - 40)
    knob = frame.fill(ellipse(centre, (anatomy.knob + 5, anatomy.knob + 6)))
    share: Map = np.maximum(0.80 * np.maximum(solid, fringe), 0.62 * frame.blur(knob, 1.5))
    return share


def heart_outline(anatomy: Anatomy) -> npt.NDArray[np.float64]:
    """Closed outline of the heart in mm."""
    width = 2 * anatomy.half_width * anatomy.heart_ratio
    height = anatomy.heart_height * min(width, 150 + 0.35 * (width - 150))
    top = min(anatomy.domes) + 8 - height
    return spline(_HEART * (width, height) + (anatomy.mediastinum_shift, top), closed=True)


def heart_thickness(frame: Frame, anatomy: Anatomy) -> Map:
    """Depth of the heart in mm."""
    round_over = 0.62 * anatomy.half_width * anatomy.heart_ratio
    inwards = frame.depth_mm(frame.fill(heart_outline(anatomy)), round_over) / np.float32(round_over)
    return frame.blur(np.float32(0.82 * anatomy.depth) * rounded(inwards), 1.0)


def body_thickness(frame: Frame, anatomy: Anatomy, rng: np.random.Generator) -> Map:
    """Depth of the whole body in mm: trunk, neck, shoulders, arms and breasts."""
    x, y = frame.grid
    apex, dome = anatomy.apex, anatomy.domes[0]
    flank = anatomy.half_width + anatomy.wall
    heights = (apex - 40, apex + 15, apex + 100, dome - 20, dome + 30, dome + 70, 430)
    half = profile(y, heights, (60, flank + 4, flank + 14, flank + 3, flank - 4, flank - 8, flank))
    front_back = np.float32(anatomy.depth + 35 + anatomy.wall)
    sideways = x / half
    flat = np.sqrt(np.clip(1 - sideways * sideways * np.abs(sideways), 0, 1))
    trunk = front_back * flat * rounded(np.maximum(y - apex + 35, 0) / 90)
    neck_height = profile(y, (apex - 60, apex - 10, apex + 60), (1, 1, 0.2))
    neck = 125 * np.sqrt(np.clip(1 - (x / 60) ** 2, 0, 1)) * neck_height
    abduction = rng.uniform(10, 75)
    shoulders = np.zeros_like(x)
    for side in (RIGHT, LEFT):
        girdle = [
            (30, apex - 70),
            (58, apex - 42),
            (85, apex - 22),
            (150, apex - 8),
            (200, apex + 18),
            (232, apex + 70),
        ]
        arm = [(250 + abduction, 330), (185 + abduction, 340), (flank + 6, apex + 150), (100, apex + 170)]
        outline = spline(np.array([*girdle, *arm, (30, apex + 80)]) * (side, 1), closed=True)
        shoulders = np.maximum(shoulders, rounded(frame.depth_mm(frame.fill(outline), 50) / 50))
    body = np.maximum(np.maximum(trunk, neck), np.float32(140 + anatomy.wall) * shoulders)
    return frame.blur(body, 2.5) + _breasts(frame, anatomy)


def _breasts(frame: Frame, anatomy: Anatomy) -> Map:
    if not anatomy.breast:
        return np.zeros_like(frame.grid[0])
    radius = 52 + 0.6 * anatomy.breast
    thickness = np.zeros_like(frame.grid[0])
    for side in (RIGHT, LEFT):
        centre = (side * 0.56 * anatomy.half_width, anatomy.domes[0] - 22 + 0.5 * anatomy.breast)
        cover = frame.fill(ellipse(centre, (1.2 * radius, radius)))
        # It hangs: thick and sharp below, fading out upwards.
        hanging = np.clip((frame.grid[1] - centre[1] + radius) / (1.7 * radius), 0, 1)
        thickness = thickness + hanging * rounded(frame.depth_mm(cover, 0.6 * radius) / np.float32(0.6 * radius))
    return np.float32(anatomy.breast) * frame.blur(thickness, 1.5)


def _airways(frame: Frame, anatomy: Anatomy) -> Map:
    """Air in mm of trachea and main bronchi."""
    shift, carina = anatomy.mediastinum_shift, anatomy.hilum - 26
    trachea = spline([(shift + 1, -20), (shift, carina - 60), (shift - 3, carina)])
    right = spline([(shift - 3, carina - 4), (shift - 12, carina + 13), (shift - 24, carina + 27)])
    left = spline([(shift - 3, carina - 4), (shift + 12, carina + 11), (shift + 27, carina + 23)])
    airways = [(trachea, 17.0), (right, 12.0), (left, 11.0)]
    polygons = [np.concatenate([a, b[::-1]]) for a, b in (ribbon(course, width) for course, width in airways)]
    return 18 * frame.blur(frame.fill(*polygons), 1.2)


def _stomach(frame: Frame, anatomy: Anatomy, rng: np.random.Generator) -> Map:
    """Gas in mm under the left dome, and some in the bowel."""
    top = anatomy.domes[1] + rng.uniform(9, 14)
    width, height = rng.uniform(16, 40), rng.uniform(9, 24)
    # A dome above a fluid level.
    arch = np.linspace(0.06, 0.94, 20) * np.pi
    stomach = np.stack([width * np.cos(arch), height * (1 - np.sin(arch) ** 0.6)], axis=1)
    loops = [stomach + np.array([rng.uniform(50, 80), top])]
    for _ in range(rng.integers(0, 4)):
        start = np.array([rng.uniform(30, 115), top + rng.uniform(55, 110)])
        loop = ribbon(spline(start + np.cumsum(rng.normal(0, 9, (4, 2)), axis=0)), rng.uniform(7, 14))
        loops.append(np.concatenate([loop[0], loop[1][::-1]]))
    gas = rounded(frame.depth_mm(frame.fill(*loops), 14) / 14)
    return np.float32(rng.uniform(12, 40)) * frame.blur(gas, 2.5)


def _draw_vessels(chest: Chest) -> None:
    """Pulmonary vessels and lung roots, where there is lung around them."""
    frame, anatomy = chest.frame, chest.anatomy
    vessels = frame.blur(frame.stroke(anatomy.vessels, full_mm=5.5), 0.5)
    root = 0.2 * anatomy.half_width + 8
    hila = [
        ellipse((-root - 4, anatomy.hilum + 8), (11, 21)),
        ellipse((root + 5, anatomy.hilum - 2), (11, 18)),
    ]
    solid = 14 * vessels + 26 * frame.blur(frame.fill(*hila), 6)
    chest.grow(np.minimum(solid, 0.4 * chest.air))
