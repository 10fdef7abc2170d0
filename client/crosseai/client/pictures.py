"""Pictures of scored images: overlays and panels."""

from pathlib import Path
from typing import Literal, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from crosseai.client.files import atomic_path
from crosseai.client.findings import ExplanationMaps, ScoredImage
from crosseai.contract import Box, BoxParameters, Finding, OutputError, box_preset
from crosseai.imaging import Radiograph, box_to_image_px, draw_overlay
from crosseai.postproc import fuse, localize

Picture: TypeAlias = Literal["overlay", "panel"]


def write_pictures(
    image: ScoredImage, radiograph: Radiograph, folder: Path, pictures: tuple[Picture, ...], boxes: BoxParameters
) -> None:
    """Write ``overlays/ID.png`` and one ``panels/ID_DISEASE.png`` a finding; ID is the image's id.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    if "overlay" in pictures:
        _write_overlay(image, radiograph, _subfolder(folder, "overlays"))
    if "panel" in pictures:
        panels = _subfolder(folder, "panels")
        for finding, maps in zip(image.result.findings, image.maps, strict=True):
            _write_panel(image, radiograph, finding, maps, boxes, panels)


def _subfolder(folder: Path, name: str) -> Path:
    subfolder = folder / name
    try:
        subfolder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{subfolder}: cannot be made: {error.strerror}") from error
    return subfolder


def _write_overlay(image: ScoredImage, radiograph: Radiograph, folder: Path) -> None:
    rgb = draw_overlay(radiograph, image.result.findings, model_version=image.result.model_version)
    written, png = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    if not written:
        raise OutputError(f"overlay of {image.result.path}: cannot be encoded as PNG")
    with atomic_path(folder / f"{image.result.image_id}.png") as partial:
        partial.write_bytes(png.tobytes())


def _write_panel(
    image: ScoredImage,
    radiograph: Radiograph,
    finding: Finding,
    maps: ExplanationMaps,
    parameters: BoxParameters,
    folder: Path,
) -> None:
    from crosseai.imaging.panel import draw_panel, encode_panel  # imports Matplotlib, which most runs do not need

    panel = draw_panel(
        radiograph,
        maps.heatmap,
        maps.gradient_map,
        fuse(maps.heatmap, maps.gradient_map, **parameters.fusion_keywords()),
        finding,
        model_version=image.result.model_version,
        parameters=parameters,
        heatmap_box=_heatmap_box(image, maps),
    )
    with atomic_path(folder / f"{image.result.image_id}_{finding.disease}.png") as partial:
        partial.write_bytes(encode_panel(panel))


def _heatmap_box(image: ScoredImage, maps: ExplanationMaps) -> Box:
    """The box that the heat map alone would give, for comparison."""
    heatmap: npt.NDArray[np.float32] = maps.heatmap[np.newaxis]
    boxes, _ = localize(heatmap, maps.gradient_map[np.newaxis], **box_preset("scalp").keywords(), threads=1)
    side = maps.gradient_map.shape[-1]
    return box_to_image_px(tuple(boxes[0].tolist()), side, image.result.height, image.result.width)
