import csv
from pathlib import Path

import numpy as np
import pytest

from crosseai.comparison.cohort import FOLDS, Cohort, read_boxes, read_cohort
from crosseai.contract import InputError
from crosseai.training.config import FitConfig
from crosseai.training.dataset import read_labelled_radiographs
from tests.nih_layout import write_data_set

CONFIG = FitConfig(input_size=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every second image with a finding has a box of each."""
    folder = write_data_set(tmp_path_factory.mktemp("data"), patients=40)
    radiographs = read_labelled_radiographs(folder)
    rows = [
        (name, radiographs.classes[c].replace("Infiltration", "Infiltrate"), 128, 256, 64, 32.5)
        for name, labels in list(zip(radiographs.image_ids, radiographs.labels, strict=True))[::2]
        for c in np.flatnonzero(labels)
    ]
    with (folder / "BBox_List_2017.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]"), *rows])
    return folder


@pytest.fixture(scope="module")
def cohort(folder: Path) -> Cohort:
    return read_cohort(folder, CONFIG)


def test_boxes_in_model_pixels(cohort: Cohort) -> None:
    assert set(map(tuple, cohort.boxes.boxes.tolist())) == {(4.0, 8.0, 6.0, 8 + 32.5 / 32)}
    assert (cohort.data.radiographs.labels[cohort.boxes.rows, cohort.boxes.classes] == 1).all()


def test_without_boxes(cohort: Cohort) -> None:
    assert len(cohort.without_boxes().boxes) == 0
    assert len(cohort.boxes) > 0


def test_every_test_patient_is_judged_by_a_model_that_never_saw_it(cohort: Cohort) -> None:
    patients = np.array(cohort.data.radiographs.patients)
    judged = []
    for fold in cohort.folds(seed=0):
        split = fold.data.split
        own = set(patients[split.test])
        assert own
        assert not own & set(patients[split.train])
        assert not own & set(patients[split.validation])
        assert not own & set(patients[fold.boxes.rows])
        judged.append(split.test)
    assert len(judged) == FOLDS
    assert np.sort(np.concatenate(judged)).tolist() == cohort.data.split.test.tolist()


def test_folds_show_the_boxes_of_other_test_patients_and_no_others(cohort: Cohort) -> None:
    data, boxed = cohort.data, set(cohort.boxes.rows.tolist())
    for fold in cohort.folds(seed=0):
        others = set(data.split.test.tolist()) - set(fold.data.split.test.tolist())
        shown = others & boxed
        assert set(fold.boxes.rows.tolist()) == shown
        assert set(fold.data.split.train.tolist()) == set(data.split.train.tolist()) | shown
        assert fold.data.split.validation.tolist() == data.split.validation.tolist()
    assert np.concatenate([fold.boxes.rows for fold in cohort.folds(0)]).size == (FOLDS - 1) * len(
        cohort.boxes.of(data.split.test)
    )


def test_folds_depend_on_the_seed_alone(cohort: Cohort) -> None:
    first, again, other = ([fold.data.split.test.tolist() for fold in cohort.folds(seed)] for seed in (0, 0, 1))
    assert first == again != other


def test_official_lists_are_honoured(folder: Path, tmp_path: Path) -> None:
    radiographs = read_labelled_radiographs(folder)
    test = [name for name in radiographs.image_ids if int(name[:8]) % 3 == 0]
    train = [name for name in radiographs.image_ids if int(name[:8]) % 3]
    for source in folder.iterdir():
        (tmp_path / source.name).symlink_to(source)
    (tmp_path / "test_list.txt").write_text("\n".join(test))
    (tmp_path / "train_val_list.txt").write_text("\n".join(train))
    cohort = read_cohort(tmp_path, CONFIG, cache=tmp_path / "cache")
    assert [radiographs.image_ids[row] for row in cohort.data.split.test] == test


def test_boxes_of_unknown_images_and_diseases_are_left_out(folder: Path, tmp_path: Path) -> None:
    file, radiographs = tmp_path / "boxes.csv", read_labelled_radiographs(folder, ["Mass"])
    file.write_text(
        f"a,b,x,y,w,h\nabsent.png,Mass,1,1,2,2\n{radiographs.image_ids[0]},Nodule,1,1,2,2\n"
        f"{radiographs.image_ids[1]},Mass,512,0,512,1024\n"
    )
    found = read_boxes(file, radiographs, 32)
    assert (found.rows.tolist(), found.classes.tolist(), found.boxes.tolist()) == ([1], [0], [[16.0, 0.0, 32.0, 32.0]])


def test_refuses_boxes_of_no_test_patient(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "boxes.csv"
    file.write_text("a,b,x,y,w,h\n")
    with pytest.raises(InputError, match="expected boxes of test patients, found none"):
        read_cohort(folder, CONFIG, boxes=file)
