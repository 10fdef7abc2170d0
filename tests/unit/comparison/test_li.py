"""Li et al. 2018: boxes around patches, what it learns from, and that it learns where it was shown boxes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from crosseai.comparison.cohort import Cohort
from crosseai.comparison.li import Li2018, PatchLocaliser, half_of_the_unboxed, patch_boxes
from crosseai.training.progress import Epoch
from tests.unit.comparison.one_disease import CONFIG, one_disease


@pytest.fixture
def cohort() -> Cohort:
    return one_disease()


def mean_iou(localiser: PatchLocaliser, cohort: Cohort) -> float:
    found = localiser.localise(cohort.data.images[cohort.boxes.rows], cohort.boxes.classes).boxes
    truth = cohort.boxes.boxes
    shared = (np.minimum(found[:, 2:], truth[:, 2:]) - np.maximum(found[:, :2], truth[:, :2])).clip(0).prod(1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (found, truth)]
    return float((shared / (areas[0] + areas[1] - shared)).mean())


def learnt(cohort: Cohort, folder: Path, method: Li2018, **changes: int) -> tuple[PatchLocaliser, list[Epoch]]:
    config, epochs = replace(CONFIG, **changes), list[Epoch]()
    folder.mkdir()
    method.train(cohort, config, folder, on_epoch=epochs.append)
    return method.load(config, folder), epochs


def test_learns_where_it_was_shown_boxes(cohort: Cohort, tmp_path: Path) -> None:
    shown = replace(cohort, boxes=cohort.boxes.of(np.arange(16)))
    early, _ = learnt(shown, tmp_path / "early", Li2018(), epochs=1)
    late, epochs = learnt(shown, tmp_path / "late", Li2018(), epochs=45)
    assert epochs[-1].loss < 0.5 * epochs[0].loss
    assert mean_iou(late, shown) > mean_iou(early, shown) + 0.25
    logits = late.logits(cohort.data.images)
    assert logits.shape == (32, 1)
    assert logits[1::2].mean() > logits[::2].mean() + 1
    assert late.spec.classes == cohort.data.radiographs.classes


def test_the_same_seed_learns_the_same(cohort: Cohort, tmp_path: Path) -> None:
    method, unseen = Li2018(uses_boxes=False), cohort.without_boxes()
    first, again, other = (
        learnt(unseen, tmp_path / name, method, epochs=1, seed=seed)[0].logits(cohort.data.images)
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_half_of_the_patients_without_boxes_are_left_out(cohort: Cohort) -> None:
    patients = np.array(cohort.data.radiographs.patients)
    shown = cohort.boxes.of(np.arange(8))
    kept = half_of_the_unboxed(cohort.data, shown, 0).split
    assert set(shown.rows) <= set(kept.train)
    unboxed = set(patients) - set(patients[shown.rows])
    assert len(unboxed & set(patients[kept.train])) == pytest.approx(len(unboxed) / 2, abs=0.5)
    assert set(np.flatnonzero(np.isin(patients, patients[kept.train]))) == set(kept.train)
    assert np.array_equal(kept.train, half_of_the_unboxed(cohort.data, shown, 0).split.train)
    assert not np.array_equal(kept.train, half_of_the_unboxed(cohort.data, shown, 1).split.train)
    assert np.array_equal(kept.validation, cohort.data.split.validation)


@pytest.mark.parametrize(("input_size", "box"), [(80, (20, 8, 36, 20)), (90, (22, 9, 40, 22)), (20, (5, 2, 9, 5))])
def test_patches_become_the_box_that_their_pixels_fill(input_size: int, box: tuple[int, ...]) -> None:
    grid = np.zeros((20, 20), np.float32)
    grid[2:5, 5:9] = 0.5
    grid[10, 10] = 0.9
    boxes, pixels = patch_boxes(grid, input_size)
    assert pixels.shape == (input_size, input_size)
    rows, columns = np.nonzero(pixels == 0.5)
    assert tuple(boxes[0]) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == box
    assert len(boxes) == 2


def test_patches_below_a_half_are_no_finding() -> None:
    boxes, _ = patch_boxes(np.full((20, 20), 0.4999, np.float32), 64)
    assert boxes.shape == (0, 4)


def test_the_map_shows_each_patch_where_the_network_saw_it(cohort: Cohort, tmp_path: Path) -> None:
    localiser, _ = learnt(cohort, tmp_path / "model", Li2018(), epochs=1)
    images, classes = cohort.data.images[:3], np.zeros(3, np.int64)
    patches = torch.from_numpy(localiser.probabilities(images, classes))
    found = localiser.localise(images, classes)
    nearest = torch.nn.functional.interpolate(patches[None], 64, mode="nearest-exact")[0]
    assert np.array_equal(found.maps, nearest.numpy())
    assert found.boxes.dtype == np.int32
    assert found.candidates is not None
    assert all((boxes[:1] == box).all() for boxes, box in zip(found.candidates, found.boxes, strict=True))
