"""The eight diseases of ChestX-ray8, planted where and as they look (Wang et al., CVPR 2017; radiology textbooks).

A finding acts twice: it may change the patient's shape before the chest is built (``ADAPT``: a wide heart, a raised
diaphragm), and it changes air and water of the chest afterwards (``PLANT``), returning the map of what it put there.
Its box is the box around that map.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from crosseai.training.phantoms.anatomy import LEFT, RIGHT, Anatomy
from crosseai.training.phantoms.geometry import Map, Points, ellipse, ribbon, rounded, spline
from crosseai.training.phantoms.thorax import Chest, cavity_depth, diaphragm_y, heart_outline

Adapt: TypeAlias = Callable[[Anatomy, int, np.random.Generator], Anatomy]
Plant: TypeAlias = Callable[[Chest, int, np.random.Generator], Map]

LUNG_FIELD_MM = 36.0
"""Room for lung that a ray must meet to count as lung field: less of it, behind heart and spine, hides a finding."""


def draw_side(rng: np.random.Generator) -> int:
    """The patient's side of a finding."""
    return RIGHT if rng.random() < 0.5 else LEFT


# --- changes of shape -------------------------------------------------------------------------------------------


def enlarge_heart(anatomy: Anatomy, side: int, rng: np.random.Generator) -> Anatomy:  # noqa: ARG001
    """Cardiomegaly: a cardiothoracic ratio well above one half."""
    return replace(anatomy, heart_ratio=rng.uniform(0.57, 0.70), heart_height=rng.uniform(0.74, 0.88))


def lose_volume(anatomy: Anatomy, side: int, rng: np.random.Generator) -> Anatomy:
    """Atelectasis: the diaphragm of that side rises and the mediastinum is drawn towards it."""
    rise = rng.uniform(5, 20)
    right, left = anatomy.domes
    domes = (right - rise, left) if side == RIGHT else (right, left - rise)
    return replace(anatomy, domes=domes, mediastinum_shift=anatomy.mediastinum_shift + side * rng.uniform(1, 7))


ADAPT: Mapping[str, Adapt] = {"Cardiomegaly": enlarge_heart, "Atelectasis": lose_volume}


# --- what a ray meets -------------------------------------------------------------------------------------------


def plant_cardiomegaly(chest: Chest, side: int, rng: np.random.Generator) -> Map:  # noqa: ARG001
    """The heart itself, already enlarged."""
    return chest.frame.fill(heart_outline(chest.anatomy))


def plant_nodule(chest: Chest, side: int, rng: np.random.Generator) -> Map:
    """A round opacity of at most 3 cm with a fairly sharp edge, partly calcified, anywhere in the lung."""
    centre, radius = lung_position(chest, side, rng, margin=18), rng.uniform(8, 14)
    cover = chest.frame.fill(ellipse(centre, (radius, radius * rng.uniform(0.85, 1.15))))
    sphere = rounded(chest.frame.depth_mm(cover, radius) / np.float32(radius))
    chest.grow(chest.frame.blur(np.float32(4 * radius) * sphere, 0.8))
    return cover


def plant_mass(chest: Chest, side: int, rng: np.random.Generator) -> Map:
    """A lobulated opacity of more than 3 cm with spicules."""
    centre, radius = lung_position(chest, side, rng, margin=28), rng.uniform(19, 36)
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    waves = sum(rng.normal(0, 0.22 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in range(2, 7))
    reach = radius * np.clip(1 + waves, 0.6, 1.5)
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    cover = chest.frame.fill(centre + reach[:, None] * direction)
    spicules = [
        (centre + np.outer((0.9 * reach[i], reach[i] + rng.uniform(3, 12)), direction[i]), rng.uniform(0.5, 1.4))
        for i in rng.choice(48, 14, replace=False)
    ]
    body = rounded(chest.frame.depth_mm(cover, 0.8 * radius) / np.float32(0.8 * radius))
    body = body * (1 + 0.12 * chest.frame.texture(rng, 14))
    fringe = 6 * chest.frame.stroke(spicules, full_mm=1.4)
    chest.grow(chest.frame.blur(np.maximum(np.float32(1.7 * radius) * body, fringe), 1.0))
    return cover


def plant_effusion(chest: Chest, side: int, rng: np.random.Generator) -> Map:
    """Fluid that fills the costophrenic angle and climbs along the chest wall (meniscus)."""
    x, y = chest.frame.grid
    anatomy = chest.anatomy
    level = anatomy.dome(side) + rng.uniform(-80, 22)
    from_wall = np.maximum(anatomy.half_width - side * x, 0)
    climb = rng.uniform(30, 60) * np.exp(-from_wall / rng.uniform(18, 34)) + 12 * np.exp(-side * x / 30)
    depth_below = (y - level - 8 + climb) / rng.uniform(5, 13)
    fluid = _on_side(x, side) * (1 - np.exp(-np.maximum(depth_below, 0)))
    planted: Map = fluid * ((chest.room > LUNG_FIELD_MM) & (y < diaphragm_y(anatomy, x)))
    chest.consolidate(0.95 * fluid)
    return planted


def plant_pneumothorax(chest: Chest, side: int, rng: np.random.Generator) -> Map:
    """Air without vessels between the chest wall and the visceral pleura of the shrunken lung, most at the apex."""
    x, y = chest.frame.grid
    anatomy = chest.anatomy
    lowest = rng.uniform(anatomy.hilum + 10, anatomy.dome(side) + 30)
    height = np.clip((lowest - y) / (lowest - anatomy.apex), 0, 1)
    collapse = rng.uniform(0.14, 0.34) * np.sqrt(height)
    sunken = rng.uniform(14, 40) * height
    lung = (cavity_depth(anatomy, x / (1 - collapse), y - sunken) > 0).astype(np.float32)
    lung = chest.frame.blur(lung, 0.8)
    free = (1 - lung) * _on_side(x, side) * (chest.room > 10)
    pleura = 4 * lung * (1 - lung) * _on_side(x, side) * np.clip(chest.room / 40, 0, 1) * (height > 0)
    chest.lung_tissue = chest.lung_tissue * (1 - free) * (1 + 0.2 * _on_side(x, side) * lung)
    # The rim has no vessels: all the room there is air.
    vessels = free * (chest.room - chest.air)
    chest.air = chest.air + vessels
    chest.water = chest.water - vessels + 8 * pleura
    planted: Map = free * (chest.room > LUNG_FIELD_MM)
    return planted


def plant_atelectasis(chest: Chest, side: int, rng: np.random.Generator) -> Map:
    """Plates low in the lung, or a collapsed wedge behind the heart's border; both in the lung that lost volume."""
    plant = _plant_plates if rng.random() < 0.6 else _plant_wedge
    return plant(chest, side, rng) * (chest.room > 12)


def _plant_plates(chest: Chest, side: int, rng: np.random.Generator) -> Map:
    plates, y = [], chest.anatomy.dome(side) - rng.uniform(12, 50)
    for _ in range(rng.integers(1, 4)):
        inner, outer = rng.uniform(30, 50), rng.uniform(0.65, 0.92) * chest.anatomy.half_width
        tilt, bow = rng.normal(0, 9), rng.normal(0, 4)
        course = spline([(side * inner, y), (side * (inner + outer) / 2, y + tilt / 2 + bow), (side * outer, y + tilt)])
        thickness = rng.uniform(5, 10) * np.interp(np.linspace(0, 1, len(course)), (0, 0.5, 1), (1, 0.8, 0.3))
        edge, other = ribbon(course, thickness)
        plates.append(np.concatenate([edge, other[::-1]]))
        y -= rng.uniform(12, 24)
    cover = chest.frame.fill(*plates)
    chest.grow(34 * chest.frame.blur(cover, 1.2))
    return cover


def _plant_wedge(chest: Chest, side: int, rng: np.random.Generator) -> Map:
    top, floor = chest.anatomy.hilum + rng.uniform(0, 20), chest.anatomy.dome(side) + 14
    reach = rng.uniform(0.5, 0.78) * chest.anatomy.half_width
    edge = spline([(side * 24, top), (side * rng.uniform(0.5, 0.62) * reach, (top + floor) / 2), (side * reach, floor)])
    cover = chest.frame.fill(np.concatenate([edge, [(side * 20.0, floor)]]))
    texture = 1 + 0.15 * chest.frame.texture(rng, 16)
    chest.consolidate(0.75 * chest.frame.blur(cover, 2.5) * texture)
    return cover


def plant_infiltration(chest: Chest, side: int, rng: np.random.Generator) -> Map:
    """Ill-defined patches and reticular lines over a wide area, dense nowhere."""
    frame = chest.frame
    x, y = frame.grid
    centre = lung_position(chest, side, rng, margin=25)
    radii = rng.uniform(30, 50), rng.uniform(38, 70)
    area = np.exp(-(((x - centre[0]) / radii[0]) ** 4 + ((y - centre[1]) / radii[1]) ** 4)) * _on_side(x, side)
    patches = np.clip(0.5 + 0.8 * frame.texture(rng, 22), 0, 1.6)
    reticle = np.exp(-((frame.texture(rng, 9) / 0.35) ** 2))
    chest.consolidate(area * (0.30 * patches + 0.08 * reticle))
    return area * (chest.room > LUNG_FIELD_MM)


def plant_pneumonia(chest: Chest, side: int, rng: np.random.Generator) -> Map:
    """A consolidated lobe: dense, sharp at the fissure, cloudy elsewhere, with air left in the bronchi."""
    frame, anatomy = chest.frame, chest.anatomy
    x, y = frame.grid
    upper = rng.random() < 0.4
    fissure = anatomy.hilum + rng.uniform(-12, 22) + rng.normal(0, 0.12) * side * x
    from_fissure = (fissure - y) if upper else (y - fissure)
    middle = rng.uniform(0.4, 0.68) * anatomy.half_width * side
    sideways = np.abs(x - middle) / rng.uniform(34, 56)
    cloud = 0.30 * frame.texture(rng, 30) + 0.12 * frame.texture(rng, 11)
    inside = 1.1 - np.maximum(sideways, from_fissure / rng.uniform(45, 80)) ** 3 + cloud
    lobe = np.clip(1.1 * inside, 0, 1) * np.clip(0.5 + from_fissure / 4, 0, 1) * _on_side(x, side)
    bronchi = frame.blur(frame.stroke(_bronchi(anatomy, side, rng, upper=upper), full_mm=3.2), 1.0)
    chest.consolidate(rng.uniform(0.5, 0.7) * lobe * (1 - 0.45 * bronchi))
    planted: Map = lobe * (chest.room > LUNG_FIELD_MM)
    return planted


def _bronchi(anatomy: Anatomy, side: int, rng: np.random.Generator, *, upper: bool) -> list[tuple[Points, float]]:
    """Courses of some segmental bronchi from the lung root into a lobe."""
    root = np.array([side * 0.27 * anatomy.half_width, anatomy.hilum])
    bronchi = []
    for angle in np.linspace(0.15, 1.2, 6) + rng.normal(0, 0.08, 6):
        bends = (-angle if upper else angle) + np.cumsum(rng.normal(0, 0.15, 4))
        steps = np.stack([side * np.cos(bends), np.sin(bends)], axis=1) * rng.uniform(17, 24)
        course = spline(root + np.cumsum(np.concatenate([np.zeros((1, 2)), steps]), axis=0))
        bronchi += [(course[:18], 3.2), (course[17:], 2.0)]
    return bronchi


PLANT: Mapping[str, Plant] = {
    "Atelectasis": plant_atelectasis,
    "Cardiomegaly": plant_cardiomegaly,
    "Effusion": plant_effusion,
    "Infiltration": plant_infiltration,
    "Mass": plant_mass,
    "Nodule": plant_nodule,
    "Pneumonia": plant_pneumonia,
    "Pneumothorax": plant_pneumothorax,
}


def box_image_px(planted: Map) -> tuple[float, float, float, float]:
    """Box ``(x0, y0, x1, y1)`` in pixels, half-open, around all that is at least half as dense as the densest."""
    dense = planted >= 0.5 * planted.max()
    columns, rows = np.flatnonzero(dense.any(axis=0)), np.flatnonzero(dense.any(axis=1))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def lung_position(chest: Chest, side: int, rng: np.random.Generator, *, margin: float) -> tuple[float, float]:
    """A random point (x, y) in mm, in well aerated lung of one side, at least ``margin`` mm inside it."""
    step = max(1, round(4 / chest.frame.pixel_mm))
    x, y = (g[::step, ::step] for g in chest.frame.grid)
    lung = ((chest.air > 45) & (_on_side(chest.frame.grid[0], side) > 0)).astype(np.float32)
    deep = chest.frame.depth_mm(lung, margin + 1)[::step, ::step] >= margin
    if not deep.any():
        deep = lung[::step, ::step] > 0
    index = rng.choice(np.flatnonzero(deep))
    return float(x.flat[index]), float(y.flat[index])


def _on_side(x: Map, side: int) -> Map:
    """1 on one side of the midline."""
    half: Map = (side * x > 0).astype(np.float32)
    return half
