"""Panels: the five pictures hold what they say, and reach the disk whole."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from crosseai.contract import NO_BOX, Box, BoxParameters, Finding
from crosseai.imaging import Radiograph, RadiographMetadata
from crosseai.imaging.panel import draw_panel, encode_panel
from crosseai.postproc import fuse

RADIOGRAPH = Radiograph(
    np.tile(np.linspace(0, 255, 120).astype(np.uint8), (160, 1)), (0.0, 255.0), RadiographMetadata("png", 8)
)


def panel(box: Box = (30, 40, 60, 80), ground_truth: Box | None = None, heatmap_box: Box | None = None) -> Figure:
    rng = np.random.default_rng(0)
    heatmap = rng.random((7, 7), np.float32)
    gradient_map = rng.integers(0, 256, (224, 224), np.uint8)
    return draw_panel(
        RADIOGRAPH,
        heatmap,
        gradient_map,
        fuse(heatmap, gradient_map),
        Finding("Mass", 0.83, box, score=120),
        model_version="7",
        parameters=BoxParameters(),
        ground_truth=ground_truth,
        heatmap_box=heatmap_box,
    )


def test_maps_share_one_scale_and_lie_over_the_whole_image() -> None:
    pictures = [axis.images[0] for axis in panel().axes[:5]]
    assert [picture.get_clim() for picture in pictures] == [(0, 255)] * 5
    assert {tuple(picture.get_extent()) for picture in pictures} == {(0, 120, 160, 0)}
    shown = pictures[1].get_array()
    assert shown is not None
    np.testing.assert_allclose([shown.min(), shown.max()], [0, 255], atol=1e-4)


def test_boxes_are_drawn_in_image_pixels_and_named() -> None:
    axis = panel(ground_truth=(1, 2, 11, 22), heatmap_box=(5, 5, 100, 100)).axes[4]
    boxes = {patch.get_label(): patch.get_bbox().extents.tolist() for patch in axis.patches}
    assert boxes == {
        "radiologist": [1, 2, 11, 22],
        "heat map only": [5, 5, 100, 100],
        "fused map": [30, 40, 60, 80],
    }


@pytest.mark.parametrize("missing", [None, NO_BOX])
def test_boxes_that_are_not_there_are_not_drawn(missing: Box | None) -> None:
    figure = panel(box=NO_BOX, heatmap_box=missing)
    assert not figure.axes[4].patches
    assert figure.axes[4].get_title(loc="left").endswith("No box")


def test_captions_tell_the_origin() -> None:
    texts = " ".join(text.get_text() for text in panel().texts)
    for part in ("Mass", "probability 0.83", "model version 7", "preset crosseai", "t = 0.3", "Research use only"):
        assert part in texts


def test_empty_maps_are_drawn() -> None:
    empty = np.zeros((224, 224), np.float32)
    figure = draw_panel(
        RADIOGRAPH,
        np.zeros((7, 7), np.float32),
        empty.astype(np.uint8),
        empty,
        Finding("Mass", 0.01),
        model_version="7",
        parameters=BoxParameters(),
    )
    assert not figure.axes[3].collections, "no contour without a mask"


def test_a_panel_is_a_png() -> None:
    picture = cv2.imdecode(np.frombuffer(encode_panel(panel()), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1] > 2000


def test_threads_draw_the_same_picture() -> None:
    with ThreadPoolExecutor(2) as pool:
        pictures = list(pool.map(lambda _: encode_panel(panel()), range(4)))
    assert len(set(pictures)) == 1
