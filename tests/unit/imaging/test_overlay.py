"""Overlays: what is drawn where, at every size."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosseai.contract import CHESTXRAY8, NO_BOX, Box, Finding
from crosseai.imaging import Radiograph, RadiographMetadata, draw_overlay
from crosseai.imaging.palette import disease_colour


def gray(height: int, width: int) -> Radiograph:
    return Radiograph(np.full((height, width), 90, np.uint8), (0.0, 255.0), RadiographMetadata("png", 8))


def coloured(overlay: npt.NDArray[np.uint8], disease: str) -> npt.NDArray[np.bool_]:
    return np.asarray((overlay == disease_colour(disease)).all(axis=2))


def test_a_box_is_outlined_just_inside_its_edges_and_its_inside_stays_visible() -> None:
    x0, y0, x1, y1 = box = (200, 300, 500, 700)
    overlay = draw_overlay(gray(1024, 1024), [Finding("Effusion", 0.7, box, score=90)], model_version="3")
    below_the_tag = coloured(overlay, "Effusion")[y0 + 20 :]
    rows, columns = np.nonzero(below_the_tag)
    assert x0 <= columns.min() <= x0 + 4
    assert x1 - 5 <= columns.max() < x1
    assert y1 - 5 <= rows.max() + y0 + 20 < y1
    np.testing.assert_array_equal(overlay[y0 + 60 : y1 - 60, x0 + 60 : x1 - 60], 90)


def test_lines_and_letters_grow_with_the_image() -> None:
    areas = []
    for side in (512, 1024, 4096):
        box = (side // 4, side // 4, side // 2, side // 2)
        overlay = draw_overlay(gray(side, side), [Finding("Mass", 0.5, box)], model_version="3")
        areas.append(coloured(overlay, "Mass").mean())
    np.testing.assert_allclose(areas, areas[-1], rtol=0.35)


def contrast(pixels: npt.NDArray[np.uint8], background: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """WCAG's contrast ratio of each pixel with one colour."""

    def luminance(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        c = rgb / 255
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        return np.asarray(linear @ [0.2126, 0.7152, 0.0722])

    one, other = luminance(pixels), luminance(background)
    return np.asarray((np.maximum(one, other) + 0.05) / (np.minimum(one, other) + 0.05))


@pytest.mark.parametrize("side", [512, 4000])
@pytest.mark.parametrize("disease", CHESTXRAY8)
def test_letters_are_tall_and_stand_out_in_a_small_and_in_a_large_image(side: int, disease: str) -> None:
    x0, y0, *_ = box = (side // 4, side // 4, 3 * side // 4, side // 2)
    overlay = draw_overlay(gray(side, side), [Finding(disease, 0.87, box, score=90)], model_version="3")
    line = np.flatnonzero(coloured(overlay, disease)[:y0, x0]).size
    assert 0.03 * side < line < 0.06 * side
    tag, footer = overlay[y0 - line : y0, x0 : x0 + 4 * line], overlay[side - line :, : 4 * line]
    for text in (tag, footer):
        letters = contrast(text, text[0, 0]) > 4.5  # WCAG 1.4.3
        rows = np.flatnonzero(letters.any(axis=1))
        assert np.ptp(rows) + 1 >= max(9, 0.017 * side)
        assert 0.05 < letters.mean() < 0.5


def test_a_finding_without_a_box_is_named_in_the_corner() -> None:
    overlay = draw_overlay(gray(512, 512), [Finding("Nodule", 0.1, NO_BOX)], model_version="3")
    rows, columns = np.nonzero(coloured(overlay, "Nodule"))
    assert rows.size > 0
    assert rows.max() < 40
    assert columns.min() == 0


def test_tags_do_not_cover_each_other() -> None:
    box = (100, 100, 300, 300)
    findings = [Finding(disease, 0.5, box) for disease in CHESTXRAY8]
    overlay = draw_overlay(gray(1024, 1024), findings, model_version="3")
    tag_areas = [coloured(overlay, disease)[:, 310:400].sum() for disease in CHESTXRAY8[:7]]
    assert min(tag_areas) > 0.5 * max(tag_areas)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), box=st.tuples(*[st.integers(0, 299)] * 4))
def test_any_image_and_any_box_can_be_drawn(height: int, width: int, box: Box) -> None:
    x0, x1 = sorted((box[0] % width, box[2] % width))
    y0, y1 = sorted((box[1] % height, box[3] % height))
    finding = Finding("Pneumothorax", 1.0, (x0, y0, x1 + 1, y1 + 1), score=255)
    overlay = draw_overlay(gray(height, width), [finding], model_version="3")
    assert overlay.shape == (height, width, 3)
    assert overlay.dtype == np.uint8


def test_the_radiograph_is_left_alone() -> None:
    radiograph = gray(200, 200)
    draw_overlay(radiograph, [Finding("Mass", 0.5, (10, 10, 90, 90))], model_version="3")
    assert (radiograph.pixels == 90).all()


@pytest.mark.parametrize("disease", [*CHESTXRAY8, "Hernia", "Fracture"])
def test_a_disease_always_has_the_same_colour(disease: str) -> None:
    assert disease_colour(disease) == disease_colour(disease)
    assert max(disease_colour(disease)) > 100, "visible on black"


def test_the_eight_diseases_have_eight_colours() -> None:
    assert len({disease_colour(disease) for disease in CHESTXRAY8}) == 8
