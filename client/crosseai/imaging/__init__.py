"""Radiographs: reading them, preparing them for the model, and drawing findings on them.

Panels are in ``crosseai.imaging.panel``, which imports Matplotlib: half a second that most runs can do without.
"""

from crosseai.imaging.overlay import draw_overlay
from crosseai.imaging.policy import DEFAULT_POLICY, ReadPolicy
from crosseai.imaging.preprocess import box_to_image_px, preprocess, to_display
from crosseai.imaging.radiograph import Radiograph, RadiographMetadata
from crosseai.imaging.read import decode_radiograph, naming, read_content, read_radiograph

__all__ = [
    "DEFAULT_POLICY",
    "Radiograph",
    "RadiographMetadata",
    "ReadPolicy",
    "box_to_image_px",
    "decode_radiograph",
    "draw_overlay",
    "naming",
    "preprocess",
    "read_content",
    "read_radiograph",
    "to_display",
]
