"""Resumption, with the one method whose training takes no time."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crosseai.comparison.cohort import NO_BOXES, BoxedFindings, Cohort
from crosseai.comparison.constant import BOXES_FILENAME, ConstantBox
from crosseai.comparison.trained import MADE_FROM_FILENAME, trained
from crosseai.contract import CHESTXRAY8, InputError
from crosseai.training.config import FitConfig
from crosseai.training.dataset import LabelledRadiographs
from crosseai.training.feed import TrainingData
from crosseai.training.split import Split

CONFIG = FitConfig(input_size=32)


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """Ten test patients with one boxed image each, the left ones of Mass, the others of Nodule."""
    names = tuple(f"{i}.png" for i in range(14))
    labels = np.zeros((14, 8), np.uint8)
    radiographs = LabelledRadiographs(names, tuple(map(Path, names)), names, labels, CHESTXRAY8)
    images = np.zeros((14, 1, 32, 32), np.uint8)
    split = Split(np.arange(2), np.arange(2, 4), np.arange(4, 14))
    boxes = np.array([[0.0, 0.0, 8.0, 8.0], [16.0, 16.0, 32.0, 32.0]] * 5)
    findings = BoxedFindings(np.arange(4, 14), np.array([4, 5] * 5), boxes)
    return Cohort(tmp_path, None, tmp_path, TrainingData(radiographs, images, split), findings)


def train(cohort: Cohort, folder: Path, config: FitConfig = CONFIG) -> list[tuple[Cohort, Path]]:
    return trained(ConstantBox(), cohort, config, folder, weights=None, on_epoch=lambda _name, _epoch: None)


def test_learns_each_disease_s_place_from_the_other_folds(cohort: Cohort, tmp_path: Path) -> None:
    models = train(cohort, tmp_path / "out")
    assert len(models) == 5
    for part, folder in models:
        found = ConstantBox().load(CONFIG, folder)
        assert found.boxes[4].tolist() == [0, 0, 8, 8]
        assert found.boxes[5].tolist() == [16, 16, 32, 32]
        assert len(part.boxes) == 8


def test_what_is_whole_is_not_trained_again(cohort: Cohort, tmp_path: Path) -> None:
    (_, first), (_, second), *_ = train(cohort, tmp_path / "out")
    (first / BOXES_FILENAME).write_text("kept")
    (second / MADE_FROM_FILENAME).unlink()
    (second / BOXES_FILENAME).unlink()
    train(cohort, tmp_path / "out")
    assert (first / BOXES_FILENAME).read_text() == "kept"
    assert len(json.loads((second / BOXES_FILENAME).read_text())) == 8


def test_refuses_what_was_trained_from_something_else(cohort: Cohort, tmp_path: Path) -> None:
    train(cohort, tmp_path / "out")
    with pytest.raises(InputError, match=r"constant-1: was trained from .* Changed: epochs 20 -> 3$"):
        train(cohort, tmp_path / "out", replace(CONFIG, epochs=3))
    moved = replace(cohort.boxes, boxes=cohort.boxes.boxes + 1)
    with pytest.raises(InputError, match=r"Changed: boxes '\w+' -> '\w+'$"):
        train(replace(cohort, boxes=moved), tmp_path / "out")


def test_a_method_that_uses_no_boxes_gets_none(cohort: Cohort, tmp_path: Path) -> None:
    class Blind(ConstantBox):
        training, uses_boxes = "blind", False

        def train(self, cohort: Cohort, config: FitConfig, folder: Path, **options: object) -> None:
            assert cohort.boxes is NO_BOXES
            (folder / BOXES_FILENAME).write_text("{}")

    ((part, folder),) = trained(
        Blind(), cohort, CONFIG, tmp_path / "out", weights=None, on_epoch=lambda _name, _epoch: None
    )
    assert folder.name == "blind"
    assert part.data.split.test.tolist() == cohort.data.split.test.tolist()
