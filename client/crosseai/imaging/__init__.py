"""Radiographs: reading them, preparing them for the model, and drawing findings on them."""

from crosseai.imaging.overlay import draw_overlay
from crosseai.imaging.panel import draw_panel, save_panel
from crosseai.imaging.preprocess import box_to_image_px, preprocess, to_display
from crosseai.imaging.radiograph import Radiograph, RadiographMetadata
from crosseai.imaging.read import decode_radiograph, read_radiograph

__all__ = [
    "Radiograph",
    "RadiographMetadata",
    "box_to_image_px",
    "decode_radiograph",
    "draw_overlay",
    "draw_panel",
    "preprocess",
    "read_radiograph",
    "save_panel",
    "to_display",
]
