"""Draw one radiograph of a patient with given diseases."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from crosseai.contract import InputError, canonical_label
from crosseai.training.phantoms.anatomy import LEFT, RIGHT, Anatomy
from crosseai.training.phantoms.detector import collimate, develop, draw_exposure, expose
from crosseai.training.phantoms.findings import ADAPT, PLANT, box_image_px, draw_side
from crosseai.training.phantoms.geometry import FIELD_MM, Frame, Map
from crosseai.training.phantoms.skeleton import bone_thickness
from crosseai.training.phantoms.thorax import LUNG_DENSITY, build_chest

WHITE = 4095
"""Largest pixel value: 12 bit."""

View = Literal["PA", "AP"]
BoxPx = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Phantom:
    """A drawn radiograph.

    Parameters
    ----------
    pixels
        ``uint16 [S, S]``, 0 black to 4095 white.
    boxes_image_px
        For every planted disease ``(x0, y0, x1, y1)`` in pixels of this image, half-open.
    view
        Direction of the beam, ``PA`` or ``AP``.
    """

    pixels: npt.NDArray[np.uint16]
    boxes_image_px: dict[str, BoxPx]
    view: View


def draw_phantom(anatomy: Anatomy, diseases: Sequence[str], rng: np.random.Generator, *, size: int = 512) -> Phantom:
    """Draw a chest radiograph: thickness map, Beer-Lambert, detector, display processing.

    Parameters
    ----------
    anatomy
        The patient (:func:`draw_anatomy`).
    diseases
        Findings to plant, names of ChestX-ray8; none for a normal chest.
    rng
        Source of pose, exposure, noise, and of place and size of the findings.
    size
        Side of the image in pixels, at least 64.

    Raises
    ------
    InputError
        If a disease is unknown or the size too small.
    """
    names = [canonical_label(disease) for disease in diseases]
    if unknown := sorted(set(names) - set(PLANT)):
        raise InputError(f"phantom: expected diseases among {', '.join(PLANT)}, found {', '.join(unknown)}")
    if size < 64:
        raise InputError(f"phantom: expected a size of at least 64 px, found {size}")
    view: View = "AP" if rng.random() < 0.3 else "PA"
    frame, body = _pose(anatomy, view, rng, size)
    side = draw_side(rng)
    # A second finding is on the other side: neither hides the other.
    sides = {name: side if i % 2 == 0 else -side for i, name in enumerate(names)}
    for name in names:
        if name in ADAPT:
            body = ADAPT[name](body, sides[name], rng)
    chest = build_chest(frame, body, rng)
    boxes = {name: box_image_px(PLANT[name](chest, sides[name], rng)) for name in names}
    scapula_mm = rng.uniform(2, 14) if view == "AP" else rng.uniform(14, 34)
    lung = chest.air * LUNG_DENSITY * chest.lung_tissue * (1 + 0.05 * frame.texture(rng, 5))
    water = chest.water + lung + bone_thickness(frame, body, scapula_mm=scapula_mm)
    exposure = draw_exposure(rng, portable=view == "AP")
    shown = develop(frame, expose(frame, water, exposure, rng), exposure)
    shown = collimate(frame, _with_marker(frame, shown, view, rng), rng)
    return Phantom(np.round(shown * WHITE).astype(np.uint16), boxes, view)


def _pose(anatomy: Anatomy, view: View, rng: np.random.Generator, size: int) -> tuple[Frame, Anatomy]:
    """Where the patient stands, and how deep the breath is; an AP image enlarges the heart a little."""
    portable = view == "AP"
    frame = Frame(
        size,
        shift_mm=(rng.normal(0, 8), rng.normal(4, 8)),
        rotation_deg=rng.normal(0, 2.2 if portable else 1.1),
        zoom=rng.uniform(1.03, 1.19),
    )
    breath = rng.uniform(-22, 4) if portable else rng.uniform(-8, 12)
    right, left = anatomy.domes
    widening = 1.05 if portable else 1.0
    body = replace(anatomy, domes=(right + breath, left + breath), heart_ratio=anatomy.heart_ratio * widening)
    return frame, body


def _with_marker(frame: Frame, shown: Map, view: View, rng: np.random.Generator) -> Map:
    """Lead letters of the side, slightly turned, in an upper corner: R at the image's left, L at its right."""
    side = RIGHT if rng.random() < 0.25 else LEFT
    text = ("R" if side == RIGHT else "L") + (" AP" if view == "AP" and rng.random() < 0.5 else "")
    glyphs = np.zeros((64, 160), np.uint8)
    cv2.putText(glyphs, text, (8, 46), cv2.FONT_HERSHEY_SIMPLEX, 1.4, 255, 5, cv2.LINE_AA)
    scale = rng.uniform(0.30, 0.42) / frame.pixel_mm
    x = FIELD_MM / 2 + side * rng.uniform(160, 185) - (15 if side == LEFT else 0)
    y = rng.uniform(18, 60)
    angle = np.deg2rad(rng.normal(0, 10))
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    place = np.array([[cosine, -sine, x / frame.pixel_mm], [sine, cosine, y / frame.pixel_mm]])
    lead = cv2.warpAffine(glyphs, place, (frame.size, frame.size), flags=cv2.INTER_AREA).astype(np.float32)
    brightness = np.float32(rng.uniform(0.8, 1.0) / 255)
    marked: Map = np.maximum(shown, lead * brightness)
    return marked
