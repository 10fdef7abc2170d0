"""What the report shows of one image: its picture, and the maps behind its boxes."""

import base64
import json
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from crosseai.client.findings import ScoredImage
from crosseai.client.records.files import atomic_path
from crosseai.contract import OutputError
from crosseai.imaging import Radiograph, to_display

LAYERS = "report"
"""Folder of the layers, beside the page."""

_PICTURE_PX, _THUMBNAIL_PX = 1024, 192
_JPEG_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 90]


def write_layers(image: ScoredImage, radiograph: Radiograph, output: Path) -> None:
    """Write ``report/ID.js`` and ``report/ID.jpg``, which the page loads when they come into view.

    The first is a script that hands over the layers, because a page opened from a disk may load scripts, but read no
    files: the radiograph as displayed, at most 1024 px, as JPEG, and for each finding the heat map as little-endian
    float32 and the gradient map as PNG. The second is a thumbnail.

    Parameters
    ----------
    image, radiograph
        The result with its maps, and the original pixels.
    output
        Folder of the run.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    folder = output / LAYERS
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}") from error
    gray = to_display(radiograph)
    layers = {
        "picture": "data:image/jpeg;base64," + _base64(_encoded(_at_most(gray, _PICTURE_PX), ".jpg")),
        "findings": {
            finding.disease: {
                "heatmap": _base64(maps.heatmap.astype("<f4").tobytes()),
                "shape": maps.heatmap.shape,
                "gradient": "data:image/png;base64," + _base64(_encoded(maps.gradient_map, ".png")),
            }
            for finding, maps in zip(image.result.findings, image.maps, strict=True)
        },
    }
    identity = image.result.image_id
    with atomic_path(folder / f"{identity}.js") as partial:
        partial.write_text(f"receiveLayers({json.dumps(identity)}, {json.dumps(layers)});\n", encoding="ascii")
    with atomic_path(folder / f"{identity}.jpg") as partial:
        partial.write_bytes(_encoded(_at_most(gray, _THUMBNAIL_PX), ".jpg"))


def _at_most(gray: npt.NDArray[np.uint8], side_px: int) -> npt.NDArray[np.uint8]:
    """The image shrunk, where it is larger than that."""
    height, width = gray.shape
    scale = side_px / max(height, width)
    if scale >= 1:
        return gray
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA), np.uint8)


def _encoded(gray: npt.NDArray[np.uint8], suffix: str) -> bytes:
    written, encoded = cv2.imencode(suffix, gray, _JPEG_QUALITY if suffix == ".jpg" else [])
    if not written:
        raise OutputError(f"report: expected a picture that can be written as {suffix}, found shape {gray.shape}")
    return encoded.tobytes()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
