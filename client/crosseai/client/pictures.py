"""Pictures of scored images: overlays and panels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from crosseai.client.findings import ExplanationMaps, ScoredImage
from crosseai.client.ground_truth import GroundTruth
from crosseai.client.records.files import atomic_path
from crosseai.contract import Box, BoxParameters, OutputError, box_preset
from crosseai.imaging import Radiograph, box_to_image_px, draw_overlay
from crosseai.postproc import fuse, localize

Picture: TypeAlias = Literal["overlay", "panel", "panel-pdf"]

_PANELS: Mapping[Picture, Literal["png", "pdf"]] = {"panel": "png", "panel-pdf": "pdf"}


def write_pictures(
    image: ScoredImage,
    radiograph: Radiograph,
    folder: Path,
    pictures: tuple[Picture, ...],
    boxes: BoxParameters,
    truth: GroundTruth | None,
) -> None:
    """Write ``overlays/ID.png`` and one ``panels/ID_DISEASE.png`` or ``.pdf`` a finding; ID is the image's id.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    if "overlay" in pictures:
        _write_overlay(image, radiograph, _subfolder(folder, "overlays"))
    panels = [suffix for name, suffix in _PANELS.items() if name in pictures]
    if panels:
        _write_panels(image, radiograph, _subfolder(folder, "panels"), panels, boxes, truth)


def fused_maps(image: ScoredImage, boxes: BoxParameters) -> list[npt.NDArray[np.float32]]:
    """The fused map of each finding, float32 ``[S, S]``, 0..255."""
    return [fuse(maps.heatmap, maps.gradient_map, **boxes.fusion_keywords()) for maps in image.maps]


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


def _write_panels(
    image: ScoredImage,
    radiograph: Radiograph,
    folder: Path,
    suffixes: list[Literal["png", "pdf"]],
    boxes: BoxParameters,
    truth: GroundTruth | None,
) -> None:
    from crosseai.imaging.panel import draw_panel, encode_panel  # imports Matplotlib, which most runs do not need

    result = image.result
    for finding, maps, fused in zip(result.findings, image.maps, fused_maps(image, boxes), strict=True):
        panel = draw_panel(
            radiograph,
            maps.heatmap,
            maps.gradient_map,
            fused,
            finding,
            model_version=result.model_version,
            parameters=boxes,
            ground_truth=() if truth is None else truth.of(result, finding.disease),
            heatmap_box=_heatmap_box(image, maps),
        )
        for suffix in suffixes:
            name = f"{result.image_id}_{finding.disease.replace('/', '-')}.{suffix}"
            with atomic_path(folder / name) as partial:
                partial.write_bytes(encode_panel(panel, suffix))


def _heatmap_box(image: ScoredImage, maps: ExplanationMaps) -> Box:
    """The box that the heat map alone would give, for comparison."""
    heatmap: npt.NDArray[np.float32] = maps.heatmap[np.newaxis]
    boxes, _ = localize(heatmap, maps.gradient_map[np.newaxis], **box_preset("scalp").keywords(), threads=1)
    side = maps.gradient_map.shape[-1]
    return box_to_image_px(tuple(boxes[0].tolist()), side, image.result.height, image.result.width)
