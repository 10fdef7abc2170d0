"""Listings become labels, and what cannot be trusted is refused."""

import logging
from pathlib import Path

import numpy as np
import pytest

from crosseai.contract import CHESTXRAY8, UNCERTAIN, InputError
from crosseai.training.dataset import read_labelled_radiographs, warn_of_empty_classes
from tests.nih_layout import write_images, write_listing


def test_listing(tmp_path: Path) -> None:
    write_images(tmp_path / "images", "a.png", "b.png", "c.png")
    write_listing(
        tmp_path,
        [("b.png", "Mass|Infiltrate|Hernia", 0, "p7"), ("a.png", "No Finding", 0, "p1"), ("c.png", "Edema", 1, "p7")],
    )
    radiographs = read_labelled_radiographs(tmp_path)
    assert radiographs.image_ids == ("b.png", "a.png", "c.png")
    assert radiographs.patients == ("p7", "p1", "p7")
    assert radiographs.classes == CHESTXRAY8
    assert [CHESTXRAY8[c] for c in np.flatnonzero(radiographs.labels[0])] == ["Infiltration", "Mass"]
    assert not radiographs.labels[1:].any()
    assert radiographs.labels.dtype == np.uint8
    assert radiographs.held_out is None


def test_other_classes_may_be_learnt(tmp_path: Path) -> None:
    write_images(tmp_path / "images", "a.png")
    write_listing(tmp_path, [("a.png", "Mass|Hernia", 0, 1)])
    assert read_labelled_radiographs(tmp_path, ("Hernia", "Edema")).labels.tolist() == [[1, 0]]


def test_a_disease_without_a_positive_image_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_images(tmp_path / "images", "a.png", "b.png")
    write_listing(tmp_path, [("a.png", "Mass", 0, 1), ("b.png", "Nodule|Mass", 0, 2)])
    radiographs = read_labelled_radiographs(tmp_path, ("Mass", "Nodule", "Edema"))
    with caplog.at_level(logging.WARNING):
        warn_of_empty_classes(radiographs, np.array([0]), "train")
    assert caplog.messages == ["train part: no image is labelled with Nodule, Edema"]


def test_uncertain_labels_and_diseases_that_nobody_looked_for(tmp_path: Path) -> None:
    for patient in (1, 2):
        write_images(tmp_path / f"train/patient{patient}", "a.png")
    (tmp_path / "train.csv").write_text(
        "Path,Frontal/Lateral,Edema,Pleural Effusion\n"
        "train/patient1/a.png,Frontal,-1.0,1.0\n"
        "train/patient2/a.png,Frontal,,0.0\n"
    )
    labels = read_labelled_radiographs(tmp_path, ("Edema", "Effusion", "Mass")).labels
    assert labels.tolist() == [[UNCERTAIN, 1, UNCERTAIN], [0, 0, UNCERTAIN]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a.png", "Masss", 0, 1)], "unknown label 'Masss' of a.png"),
        ([("a.png", "Mass", 0, 1), ("a.png", "Mass", 0, 1)], "expected every image once, found a.png again"),
        ([("a.png", "Mass", 0, 1), ("b.png", "Mass", 0, 1)], "1 of 2 listed images are not in .*for example b.png"),
    ],
)
def test_bad_rows_are_refused(tmp_path: Path, rows: list[tuple[object, ...]], message: str) -> None:
    write_images(tmp_path / "images", "a.png")
    write_listing(tmp_path, rows)
    with pytest.raises(InputError, match=message):
        read_labelled_radiographs(tmp_path)


@pytest.mark.parametrize("divided", [False, True])
def test_the_official_split_divides_no_patient(tmp_path: Path, divided: bool) -> None:
    write_images(tmp_path / "images", "a.png", "b.png", "c.png")
    write_listing(tmp_path, [("a.png", "Mass", 0, 1), ("b.png", "Mass", 0, 1), ("c.png", "Mass", 0, 2)])
    (tmp_path / "train_val_list.txt").write_text("a.png\n" if divided else "a.png\nb.png\n")
    (tmp_path / "test_list.txt").write_text("b.png\nc.png\n" if divided else "c.png\n")
    if divided:
        with pytest.raises(InputError, match=r"every patient on one side of the official split.*a\.png"):
            read_labelled_radiographs(tmp_path)
    else:
        assert read_labelled_radiographs(tmp_path).held_out == (False, False, True)


def test_real_radiographs_are_listed(shared_data: Path) -> None:
    radiographs = read_labelled_radiographs(shared_data / "nih")
    assert len(radiographs) == 85
    assert radiographs.labels.any(axis=0).all(), "every disease occurs"
