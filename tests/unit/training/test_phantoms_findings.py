"""Every disease looks, sits and measures as it should."""

from dataclasses import replace

import numpy as np
import pytest

from crosseai.contract import CHESTXRAY8, InputError
from crosseai.training.phantoms import Anatomy, draw_anatomy, draw_phantom
from crosseai.training.phantoms.anatomy import LEFT, RIGHT
from crosseai.training.phantoms.findings import ADAPT, PLANT, box_image_px
from crosseai.training.phantoms.geometry import Frame, Map
from crosseai.training.phantoms.phantom import WHITE
from crosseai.training.phantoms.thorax import Chest, build_chest

SEEDS = range(6)
FRAME = Frame(256)


def chest_of(seed: int, disease: str | None = None, side: int = RIGHT) -> tuple[Anatomy, Chest]:
    rng = np.random.default_rng(seed)
    anatomy = draw_anatomy(rng)
    if disease in ADAPT:
        anatomy = ADAPT[disease](anatomy, side, rng)
    return anatomy, build_chest(FRAME, anatomy, rng)


def box_mm(planted: Map) -> tuple[float, float, float, float]:
    """Box in patient millimetres of the frame without pose."""
    x0, y0, x1, y1 = (edge * FRAME.pixel_mm for edge in box_image_px(planted))
    return x0 - 215, y0, x1 - 215, y1


def plant(disease: str, seed: int, side: int = RIGHT) -> tuple[Anatomy, Chest, Chest, Map]:
    """Anatomy, the chest before and after, and what was planted."""
    anatomy, chest = chest_of(seed, disease, side)
    before = replace(chest)
    return anatomy, before, chest, PLANT[disease](chest, side, np.random.default_rng(seed))


@pytest.mark.parametrize("disease", CHESTXRAY8)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_finding_is_physically_possible(disease: str, seed: int) -> None:
    _, before, after, planted = plant(disease, seed)
    for values in (after.air, after.water, planted):
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
    assert after.air.min() >= -1e-3
    assert planted.max() > 0.5
    if disease != "Pneumothorax":
        # Air becomes water; nothing else changes its volume.
        np.testing.assert_allclose(after.air + after.water, before.air + before.water, atol=1e-2)
        assert (after.air <= before.air + 1e-4).all()


@pytest.mark.parametrize("disease", [d for d in CHESTXRAY8 if d != "Cardiomegaly"])
@pytest.mark.parametrize("side", [RIGHT, LEFT])
def test_a_finding_is_on_its_side(disease: str, side: int) -> None:
    for seed in SEEDS:
        planted = plant(disease, seed, side)[3]
        other = planted[side * FRAME.grid[0] < -1]
        assert other.sum() < 0.02 * planted.sum()


@pytest.mark.parametrize("disease", [d for d in CHESTXRAY8 if d not in ("Cardiomegaly", "Pneumothorax")])
def test_an_opacity_is_denser_than_the_lung_was(disease: str) -> None:
    for seed in SEEDS:
        _, before, after, planted = plant(disease, seed)
        x0, y0, x1, y1 = (int(edge) for edge in box_image_px(planted))
        gained = after.water - before.water
        inside = gained[y0:y1, x0:x1]
        outside = (gained.sum() - inside.sum()) / (gained.size - inside.size)
        assert inside.max() > 8, seed
        assert inside.mean() > 10 * outside, seed


@pytest.mark.parametrize("seed", SEEDS)
def test_sizes(seed: int) -> None:
    x0, y0, x1, y1 = box_mm(plant("Nodule", seed)[3])
    assert 10 < x1 - x0 < 35
    assert 10 < y1 - y0 < 35
    x0, y0, x1, y1 = box_mm(plant("Mass", seed)[3])
    assert max(x1 - x0, y1 - y0) > 30


@pytest.mark.parametrize("seed", SEEDS)
def test_cardiothoracic_ratio(seed: int) -> None:
    anatomy, _, _, planted = plant("Cardiomegaly", seed)
    x0, _, x1, _ = box_mm(planted)
    assert (x1 - x0) / (2 * anatomy.half_width) > 0.55
    healthy, chest = chest_of(seed)
    x0, _, x1, _ = box_mm(PLANT["Cardiomegaly"](chest, RIGHT, np.random.default_rng(0)))
    assert (x1 - x0) / (2 * healthy.half_width) < 0.51


@pytest.mark.parametrize("side", [RIGHT, LEFT])
def test_an_effusion_fills_the_costophrenic_angle(side: int) -> None:
    for seed in SEEDS:
        anatomy, before, after, planted = plant("Effusion", seed, side)
        x, y = FRAME.grid
        angle = (np.abs(side * x - 0.9 * anatomy.half_width) < 6) & (np.abs(y - anatomy.dome(side) - 15) < 6)
        assert after.air[angle].mean() < 0.4 * before.air[angle].mean()
        x0, _, x1, y1 = box_mm(planted)
        assert max(side * x0, side * x1) > 0.9 * anatomy.half_width
        assert y1 > anatomy.dome(side)


def test_a_pneumothorax_is_empty_and_has_a_pleural_line() -> None:
    for seed in SEEDS:
        anatomy, before, after, planted = plant("Pneumothorax", seed)
        free = planted > 0.99
        assert after.lung_tissue[free].max() < 0.02
        np.testing.assert_allclose(after.air[free], after.room[free], rtol=0.02)
        assert (after.water - before.water).max() > 2, "no pleural line"
        assert box_mm(planted)[1] < anatomy.apex + 20, "not at the apex"


def test_atelectasis_loses_volume() -> None:
    for seed in SEEDS:
        healthy = chest_of(seed)[0]
        for side in (RIGHT, LEFT):
            collapsed = chest_of(seed, "Atelectasis", side)[0]
            assert collapsed.dome(side) < healthy.dome(side)
            assert collapsed.dome(-side) == healthy.dome(-side)
            assert side * (collapsed.mediastinum_shift - healthy.mediastinum_shift) > 0


def test_lungs_hold_air_and_the_heart_does_not() -> None:
    for seed in SEEDS:
        anatomy, chest = chest_of(seed)
        x, y = FRAME.grid
        lung = (np.abs(np.abs(x) - 0.6 * anatomy.half_width) < 8) & (np.abs(y - anatomy.hilum + 30) < 20)
        abdomen = (np.abs(x) < 80) & (y > anatomy.domes[1] + 75)
        assert chest.air[lung].mean() > 70
        assert chest.air[abdomen].mean() < 2
        assert chest.water[lung].mean() < 0.75 * chest.water[abdomen].mean()


@pytest.mark.parametrize("seed", SEEDS)
def test_drawing_is_deterministic_and_boxes_lie_inside(seed: int) -> None:
    diseases = (CHESTXRAY8[seed], CHESTXRAY8[seed + 2])
    anatomy = draw_anatomy(np.random.default_rng(seed))
    first, second = (draw_phantom(anatomy, diseases, np.random.default_rng(seed), size=160) for _ in range(2))
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert first.boxes_image_px == second.boxes_image_px
    assert first.pixels.dtype == np.uint16
    assert first.pixels.shape == (160, 160)
    assert first.pixels.max() <= WHITE
    assert np.ptp(first.pixels) > 0.7 * WHITE
    assert tuple(first.boxes_image_px) == diseases
    for x0, y0, x1, y1 in first.boxes_image_px.values():
        assert 0 <= x0 < x1 <= 160
        assert 0 <= y0 < y1 <= 160


def test_a_phantom_has_the_same_findings_at_every_size() -> None:
    anatomy = draw_anatomy(np.random.default_rng(0))
    small, large = (draw_phantom(anatomy, ["Cardiomegaly"], np.random.default_rng(3), size=size) for size in (128, 512))
    ratio = np.array(large.boxes_image_px["Cardiomegaly"]) / 4 - small.boxes_image_px["Cardiomegaly"]
    assert np.abs(ratio).max() < 2


def test_what_cannot_be_drawn_is_refused() -> None:
    rng = np.random.default_rng(0)
    anatomy = draw_anatomy(rng)
    with pytest.raises(InputError, match="Fracture"):
        draw_phantom(anatomy, ["Fracture"], rng)
    with pytest.raises(InputError, match="64 px"):
        draw_phantom(anatomy, [], rng, size=32)
