"""Bones, as mm of water that would absorb what they absorb beyond soft tissue."""

from collections.abc import Sequence

import numpy as np

from crosseai.training.phantoms.anatomy import LEFT, RIGHT, Anatomy
from crosseai.training.phantoms.geometry import Frame, Map, Points, ellipse, ribbon, spline
from crosseai.training.phantoms.thorax import profile

RIBS = 11

_COSTAL_END = np.concatenate([np.linspace(0.95, 1.2, 12), (1.15, 1.0, 0.7, 0.3)])
"""Width of a rib's front part, relative to its back part: it ends where the cartilage begins."""


def bone_thickness(frame: Frame, anatomy: Anatomy, *, scapula_mm: float) -> Map:
    """All bones in mm of water.

    Parameters
    ----------
    scapula_mm
        How far the shoulder blades are turned out of the lungs: much in a PA radiograph, little in an AP one.
    """
    ribs = np.float32(anatomy.rib_density) * _ribs(frame, anatomy)
    spine = np.float32(anatomy.spine_density) * _spine(frame, anatomy)
    return frame.blur(ribs + spine + _shoulders(frame, anatomy, scapula_mm), 0.7)


def _bones(frame: Frame, shapes: Sequence[tuple[Points, Points]], *, marrow: float, cortex: float) -> Map:
    """Flat bones given by their two edges: a faint body between two sharp dense lines, in mm of water."""
    body = frame.fill(*(np.concatenate([a, b[::-1]]) for a, b in shapes))
    edges = frame.stroke(((edge, 1.5) for pair in shapes for edge in pair), full_mm=1.5)
    bones: Map = np.float32(marrow) * body + np.float32(cortex) * edges
    return bones


def rib_course(anatomy: Anatomy, index: int, side: int) -> Points:
    """Centre line of a rib from the spine, round the flank, to its cartilage in front; ``[33, 2]`` in mm."""
    angle = np.linspace(0.0, 0.84 - 0.02 * index, 33) * np.pi
    neck = anatomy.apex + 6 + anatomy.rib_spacing * index
    drop = anatomy.rib_drop * min(1.0, 0.45 + 0.14 * index)
    forwards = np.maximum(angle - np.pi / 2, 0)
    y = neck + drop * (1 - np.cos(angle)) / 2 - 7 * np.sin(2 * angle) * (forwards == 0) + 9 * forwards**2
    height = sum(anatomy.domes) / 2 - anatomy.apex
    at_flank = (neck + drop / 2 - anatomy.apex) / height
    lateral = anatomy.half_width * np.interp(
        at_flank, (0.0, 0.1, 0.22, 0.36, 0.55, 0.8), (0.5, 0.68, 0.81, 0.9, 0.96, 1)
    )
    inner = np.where(angle < np.pi / 2, 16, 34)
    x = inner + (lateral + 2 - inner) * np.sin(angle)
    return np.stack([side * x, y], axis=1)


def _ribs(frame: Frame, anatomy: Anatomy) -> Map:
    """Posterior and anterior parts add up where they cross."""
    behind, before = [], []
    for index in range(RIBS):
        for side in (RIGHT, LEFT):
            course = rib_course(anatomy, index, side)
            behind.append(ribbon(course[:19], anatomy.rib_width * np.linspace(0.85, 1.0, 19)))
            before.append(ribbon(course[17:], anatomy.rib_width * _COSTAL_END))
    y = frame.grid[1]
    fade = profile(y, (0, max(anatomy.domes) + 20, max(anatomy.domes) + 60), (1, 1, 0.3))
    return fade * (_bones(frame, behind, marrow=7.5, cortex=4) + _bones(frame, before, marrow=4.5, cortex=3))


def _spine(frame: Frame, anatomy: Anatomy) -> Map:
    """Vertebral bodies with end plates, pedicles and spinous processes."""
    bodies, plates, pedicles, processes = [], [], [], []
    y = -15.0
    while y < 460:
        pitch = 19 + 9 * y / 430
        centre = anatomy.scoliosis * np.sin(y / 90)
        half, top, bottom = 14 + 7 * y / 430, y + 1.6, y + pitch - 1.6
        waist = half - 2.5
        left = spline([(centre + half, top), (centre + waist, y + pitch / 2), (centre + half, bottom)], steps=4)
        right = left * (-1, 1) + (2 * centre, 0)
        bodies.append((right, left))
        plates += [(np.array([right[i], left[i]]), 1.6) for i in (0, -1)]
        pedicles += [ellipse((centre + s * 0.62 * half, y + 0.34 * pitch), (2.4, 3.6), points=12) for s in (-1, 1)]
        processes.append(ellipse((centre, y + 0.8 * pitch), (2.2, 5.5), points=12))
        y += pitch
    body = _bones(frame, bodies, marrow=10, cortex=2.5)
    details = 3.5 * frame.stroke(plates, full_mm=1.6) + 6 * frame.fill(*pedicles) + 7 * frame.fill(*processes)
    spine: Map = body + details
    return spine


def _shoulders(frame: Frame, anatomy: Anatomy, scapula_mm: float) -> Map:
    """Clavicles, shoulder blades and upper arms."""
    apex, half = anatomy.apex, anatomy.half_width
    clavicles, blades, arms, heads = [], [], [], []
    for side in (RIGHT, LEFT):
        medial = apex + 34
        lateral = medial - anatomy.clavicle_tilt - 6
        knots = [
            (15, medial + 3),
            (40, medial - 2),
            (85, (medial + lateral) / 2 - 7),
            (128, lateral - 2),
            (162, lateral),
        ]
        course = spline(np.array(knots) * (side, 1))
        clavicles.append(ribbon(course, np.interp(np.linspace(0, 1, len(course)), (0, 0.15, 0.6, 1), (15, 11, 10, 13))))
        border = half - 14 + scapula_mm
        lateral_edge = np.array(
            [(half + 26 + scapula_mm / 3, apex + 42), (half + 12 + scapula_mm / 2, apex + 95), (border + 8, apex + 158)]
        )
        medial_edge = np.array([(border - 6, apex + 22), (border - 8, apex + 90), (border + 4, apex + 160)])
        blades.append((spline(lateral_edge * (side, 1)), spline(medial_edge * (side, 1))))
        shaft = np.array([(half + 58, apex + 30), (half + 78, apex + 120), (half + 100, apex + 250)])
        arms.append(ribbon(spline(shaft * (side, 1)), 23.0))
        heads.append(ellipse((side * (half + 50), apex + 38), (23, 24)))
    return (
        _bones(frame, clavicles, marrow=11, cortex=6)
        + _bones(frame, blades, marrow=5, cortex=4)
        + _bones(frame, arms, marrow=14, cortex=14)
        + 14 * frame.fill(*heads)
    )
