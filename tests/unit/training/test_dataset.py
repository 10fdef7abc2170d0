"""The NIH layout: what is read, what is refused, and that training sees the bytes that scoring sees."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from crosseai.contract import CHESTXRAY8, InputError, ModelSpec
from crosseai.imaging import preprocess, read_radiograph
from crosseai.training.dataset import decoded_images, read_labelled_radiographs
from tests.nih_layout import write_data_set, write_listing

SPEC = ModelSpec(input_size=32)


def write_images(folder: Path, *names: str) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for name in names:
        cv2.imwrite(str(folder / "images" / name), np.full((40, 50), 90, np.uint8))


def test_listing(tmp_path: Path) -> None:
    write_images(tmp_path, "a.png", "b.png", "c.png")
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


def test_other_classes_may_be_learnt(tmp_path: Path) -> None:
    write_images(tmp_path, "a.png")
    write_listing(tmp_path, [("a.png", "Mass|Hernia", 0, 1)])
    assert read_labelled_radiographs(tmp_path, ("Hernia", "Edema")).labels.tolist() == [[1, 0]]


def test_the_newer_listing_and_the_unpacked_archives_are_read(tmp_path: Path) -> None:
    write_images(tmp_path / "images_003", "a.png")
    write_listing(tmp_path, [("a.png", "Mass", 0, 1)]).rename(tmp_path / "Data_Entry_2017_v2020.csv")
    assert read_labelled_radiographs(tmp_path).paths == (tmp_path / "images_003/images/a.png",)


def test_dicom_files_stand_for_the_listed_png(tmp_path: Path) -> None:
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom" / "a.dcm").touch()
    write_listing(tmp_path, [("a.png", "Mass", 0, 1)])
    assert read_labelled_radiographs(tmp_path).paths == (tmp_path / "dicom/a.dcm",)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a.png", "Masss", 0, 1)], "unknown label 'Masss' of a.png"),
        ([("a.png", "Mass", 0, 1), ("a.png", "Mass", 0, 1)], "expected every image once, found a.png again"),
        ([("a.png", "Mass", 0, 1), ("b.png", "Mass", 0, 1)], "1 of 2 listed images are not in .*images.*b.png"),
        ([("a.png", "", 0, 1)], "line 2: expected an image, its labels and a patient"),
        ([("a.png", "Mass")], "line 2: expected an image"),
        ([], "at least one image"),
    ],
)
def test_bad_rows_are_refused(tmp_path: Path, rows: list[tuple[object, ...]], message: str) -> None:
    write_images(tmp_path, "a.png")
    write_listing(tmp_path, rows)
    with pytest.raises(InputError, match=message):
        read_labelled_radiographs(tmp_path)


def test_missing_listing_or_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected Data_Entry_2017_v2020\.csv or Data_Entry_2017\.csv"):
        read_labelled_radiographs(tmp_path)
    write_listing(tmp_path, [("a.png", "Mass")], columns=("Image Index", "Finding Labels"))
    with pytest.raises(InputError, match=r"expected the columns \['Patient ID'\]"):
        read_labelled_radiographs(tmp_path)


def test_cache_holds_what_scoring_computes_and_is_not_decoded_twice(tmp_path: Path) -> None:
    radiographs = read_labelled_radiographs(write_data_set(tmp_path / "nih", patients=4))
    images = decoded_images(radiographs, SPEC, tmp_path / "cache")
    assert images.shape == (12, 1, 32, 32)
    for image, path in zip(images, radiographs.paths, strict=True):
        np.testing.assert_array_equal(image, preprocess(read_radiograph(path), SPEC))
    (file,) = (tmp_path / "cache").iterdir()
    written = file.stat()
    images[:] = 0
    assert decoded_images(radiographs, SPEC, tmp_path / "cache").any(), "a change of the array must not reach the file"
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)


def test_cache_follows_its_images_and_its_spec(tmp_path: Path) -> None:
    radiographs = read_labelled_radiographs(write_data_set(tmp_path / "nih", patients=1))
    before = decoded_images(radiographs, SPEC, tmp_path / "cache")
    assert decoded_images(radiographs, ModelSpec(input_size=16), tmp_path / "cache").shape[-1] == 16
    cv2.imwrite(str(radiographs.paths[1]), np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
    after = decoded_images(radiographs, SPEC, tmp_path / "cache")
    np.testing.assert_array_equal(after[1], preprocess(read_radiograph(radiographs.paths[1]), SPEC))
    np.testing.assert_array_equal(after[::2], before[::2])


@pytest.mark.parametrize("damage", ["truncated", "other preprocessing"])
def test_a_spoilt_cache_is_rebuilt(tmp_path: Path, damage: str) -> None:
    radiographs = read_labelled_radiographs(write_data_set(tmp_path / "nih", patients=1))
    expected = decoded_images(radiographs, SPEC, tmp_path / "cache").copy()
    (file,) = (tmp_path / "cache").iterdir()
    if damage == "truncated":
        os.truncate(file, file.stat().st_size // 2)
    else:
        np.save(file, 255 - expected)
    np.testing.assert_array_equal(decoded_images(radiographs, SPEC, tmp_path / "cache"), expected)


def test_unreadable_images_are_named_and_leave_no_cache(tmp_path: Path) -> None:
    radiographs = read_labelled_radiographs(write_data_set(tmp_path / "nih", patients=2))
    radiographs.paths[4].write_bytes(b"\x89PNG broken")
    with pytest.raises(InputError, match=rf"1 of 6 images cannot be read.*{radiographs.image_ids[4]}"):
        decoded_images(radiographs, SPEC, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    radiographs = read_labelled_radiographs(write_data_set(tmp_path / "nih", patients=1))
    (tmp_path / "cache").touch()
    with pytest.raises(InputError, match="cache of decoded images"):
        decoded_images(radiographs, SPEC, tmp_path / "cache")


def test_real_radiographs_are_read(shared_data: Path, tmp_path: Path) -> None:
    radiographs = read_labelled_radiographs(shared_data / "nih")
    assert len(radiographs) == 85
    assert radiographs.labels.any(axis=0).all(), "every disease occurs"
    images = decoded_images(radiographs, SPEC, tmp_path)
    assert images.std(axis=(1, 2, 3)).min() > 5
