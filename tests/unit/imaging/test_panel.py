"""Panels: the five pictures hold what they say, and reach the disk whole."""

import io
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.figure import Figure
from pypdf import PdfReader

from crosseai.contract import NO_BOX, Box, BoxParameters, Finding
from crosseai.imaging import Radiograph, RadiographMetadata
from crosseai.imaging.panel import draw_panel, encode_panel
from crosseai.postproc import fuse

RADIOGRAPH = Radiograph(
    np.tile(np.linspace(0, 255, 120).astype(np.uint8), (160, 1)), (0.0, 255.0), RadiographMetadata("png", 8)
)


def panel(
    box: Box = (30, 40, 60, 80), ground_truth: Sequence[tuple[float, ...]] = (), heatmap_box: Box | None = None
) -> Figure:
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
    figure = panel(ground_truth=[(1, 2, 11, 22), (3.5, 4, 9, 9)], heatmap_box=(5, 5, 100, 100))
    axis = figure.axes[4]
    assert [patch.get_bbox().extents.tolist() for patch in axis.patches if patch.get_label() == "ground truth"] == [
        [1, 2, 11, 22],
        [3.5, 4, 9, 9],
    ]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["heat map only", "fused map", "ground truth"]
    axis.patches[-1].remove()
    boxes = {patch.get_label(): patch.get_bbox().extents.tolist() for patch in axis.patches}
    assert boxes == {
        "ground truth": [1, 2, 11, 22],
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


def test_a_pdf_has_letters_and_lines_that_are_not_pixels() -> None:
    page = PdfReader(io.BytesIO(encode_panel(panel(), "pdf"))).pages[0]
    text = page.extract_text()
    for part in ("Mass", "probability 0.83", "Heat map", "model version 7", "Research use only", "fused map"):
        assert part in text
    fonts = page["/Resources"]["/Font"]
    assert {font["/Subtype"] for font in fonts.values()} <= {"/TrueType", "/Type0"}, "no Type 3"
    assert len(page.images) >= 5
    assert encode_panel(panel(), "pdf") == encode_panel(panel(), "pdf")


def lab(srgb: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """CIELAB of colours 0..1, ``[n, 3]``."""
    return np.asarray(cv2.cvtColor(srgb[np.newaxis].astype(np.float32), cv2.COLOR_RGB2LAB)[0], np.float32)


def test_more_is_always_lighter_in_even_steps() -> None:
    colours = lab(panel().axes[1].images[0].get_cmap()(np.linspace(0, 1, 33))[:, :3])
    lighter = np.diff(colours[:, 0])
    assert lighter.min() > 0
    assert lighter.max() < 1.5 * np.median(lighter)


# Machado, Oliveira and Fernandes 2009, table 1, severity 1.0: linear RGB as seen with each deficiency.
DEFICIENCIES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_boxes_differ_for_colour_blind_readers(deficiency: str) -> None:
    axis = panel(ground_truth=[(1, 2, 11, 22)], heatmap_box=(5, 5, 100, 100)).axes[4]
    srgb = np.array([patch.get_edgecolor()[:3] for patch in axis.patches])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(DEFICIENCIES[deficiency]), 0, 1)
    back = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    apart = [np.linalg.norm(a - b) for a, b in itertools.combinations(lab(back), 2)]
    assert min(apart) > 40


def test_a_panel_is_a_png() -> None:
    picture = cv2.imdecode(np.frombuffer(encode_panel(panel()), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1] > 2000


def test_threads_draw_the_same_picture() -> None:
    with ThreadPoolExecutor(2) as pool:
        pictures = list(pool.map(lambda _: encode_panel(panel()), range(4)))
    assert len(set(pictures)) == 1
