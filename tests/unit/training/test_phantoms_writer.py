"""Phantoms on disk: the NIH layout, DICOM, and what a trivial classifier could learn from them."""

import csv
import hashlib
import json
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

from crosseai.contract import CHESTXRAY8, InputError, canonical_label
from crosseai.imaging import read_radiograph, to_display
from crosseai.training.phantoms import draw_phantom, write_phantoms
from crosseai.training.phantoms.cohort import visits

COUNT, SIZE = 24, 128


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("phantoms") / "both"
    write_phantoms(output, count=COUNT, seed=5, image_format="both", size=SIZE)
    return output


def test_the_same_seed_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "again", count=COUNT, seed=5, image_format="both", size=SIZE)
    assert digest(tmp_path / "again") == digest(folder)
    write_phantoms(tmp_path / "other", count=2, seed=6, size=SIZE)
    assert digest(tmp_path / "other")["images/00000001_000.png"] != digest(folder)["images/00000001_000.png"]


def test_a_longer_set_begins_with_the_shorter(folder: Path, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "few", count=5, seed=5, size=SIZE)
    few, many = digest(tmp_path / "few"), digest(folder)
    images = [name for name in few if name.startswith("images/")]
    assert len(images) == 5
    assert all(few[name] == many[name] for name in images)


def test_the_folder_says_how_it_was_drawn(folder: Path) -> None:
    drawn = json.loads((folder / "phantoms.json").read_text())
    assert drawn == {"count": COUNT, "seed": 5, "image_format": "both", "size": SIZE}


def test_tables_are_those_of_nih(folder: Path) -> None:
    header, *entries = rows_of(folder / "Data_Entry_2017.csv")
    assert ",".join(header) == (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    )
    assert len(entries) == COUNT
    assert sorted(row[0] for row in entries) == sorted(path.name for path in (folder / "images").iterdir())
    for row in entries:
        assert row[0] == f"{int(row[3]):08d}_{int(row[2]):03d}.png"
    header, *boxes = rows_of(folder / "BBox_List_2017.csv")
    assert ",".join(header) == "Image Index,Finding Label,Bbox [x,y,w,h],,,"
    labels = {(row[0], label) for row in entries for label in row[1].split("|") if label != "No Finding"}
    assert {(row[0], canonical_label(row[1])) for row in boxes} == labels
    assert len(boxes) == len(labels)


def test_headers_equal_the_real_ones(folder: Path, shared_data: Path) -> None:
    real = shared_data / "nih"
    for ours, theirs in (("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv"), ("BBox_List_2017.csv",) * 2):
        assert rows_of(folder / ours)[0] == rows_of(real / theirs)[0]


def test_boxes_are_in_1024_pixels(folder: Path) -> None:
    by_image = {visit.stem + ".png": visit for visit in islice(visits(5), COUNT)}
    for name, label, x, y, w, h, *_ in rows_of(folder / "BBox_List_2017.csv")[1:]:
        visit = by_image[name]
        phantom = draw_phantom(visit.anatomy, visit.diseases, visit.rng(5), size=SIZE)
        box = np.array(phantom.boxes_image_px[canonical_label(label)]) * 1024 / SIZE
        np.testing.assert_allclose([float(x), float(y), float(x) + float(w), float(y) + float(h)], box)


def test_png_and_dicom_show_the_same_picture(folder: Path) -> None:
    kinds = set()
    for path in sorted((folder / "dicom").iterdir()):
        radiograph = read_radiograph(path)
        kinds.add(radiograph.metadata.photometric_interpretation)
        png = cv2.imread(str(folder / "images" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        assert png.dtype == np.uint8
        assert np.abs(to_display(radiograph).astype(int) - png).max() <= 1
    assert kinds == {"MONOCHROME1", "MONOCHROME2"}


def test_dicom_headers_are_invented_and_unique(folder: Path) -> None:
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted((folder / "dicom").iterdir())]
    assert len({header.SOPInstanceUID for header in headers}) == COUNT
    for header in headers:
        assert str(header.PatientName).startswith("PHANTOM^")
        assert header.file_meta.MediaStorageSOPInstanceUID == header.SOPInstanceUID
        assert (header.Modality, header.BodyPartExamined, header.BitsStored) == ("DX", "CHEST", 12)
        assert header.ViewPosition in ("PA", "AP")


@pytest.mark.parametrize(("image_format", "suffix", "folders"), [("png", ".png", "images"), ("dicom", ".dcm", "dicom")])
def test_tables_name_the_files_that_were_written(tmp_path: Path, image_format: str, suffix: str, folders: str) -> None:
    output = tmp_path / "set"
    written = write_phantoms(output, count=3, seed=1, image_format=image_format, size=64)  # type: ignore[arg-type]
    assert sorted(path.name for path in output.iterdir() if path.is_dir()) == [folders]
    named = [row[0] for row in rows_of(output / "Data_Entry_2017.csv")[1:]]
    assert named == sorted(path.name for path in (output / folders).iterdir())
    assert all(name.endswith(suffix) for name in named)
    assert written.images == 3
    assert sum(written.labels.values()) == written.boxes + written.labels.get("No Finding", 0)


def test_a_used_folder_and_impossible_counts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="empty folder"):
        write_phantoms(tmp_path, count=1, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
    for count, seed in ((0, 0), (1, -1)):
        with pytest.raises(InputError, match="count"):
            write_phantoms(tmp_path / "new", count=count, seed=seed)


def test_the_cohort_has_follow_ups_and_all_diseases() -> None:
    cohort = list(islice(visits(0), 400))
    shares = {d: np.mean([d in visit.diseases for visit in cohort]) for d in CHESTXRAY8}
    assert min(shares.values()) > 0.05
    assert 0.28 < np.mean([not visit.diseases for visit in cohort]) < 0.42
    assert any(len(visit.diseases) == 2 for visit in cohort)
    per_patient = np.bincount([visit.patient for visit in cohort])[1:]
    assert per_patient.max() == 5
    assert 2 < per_patient.mean() < 4
    same = [visit.anatomy for visit in cohort if visit.patient == 2]
    assert all(anatomy is same[0] for anatomy in same)


def auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve as a rank sum, for the better of both directions."""
    rank = np.empty(len(score))
    rank[score.argsort()] = np.arange(1, len(score) + 1)
    n = positive.sum()
    area = (rank[positive].sum() - n * (n + 1) / 2) / (n * (len(score) - n))
    return float(max(area, 1 - area))


@pytest.mark.slow
def test_brightness_does_not_give_a_disease_away() -> None:
    """No single global statistic of the gray values separates the images with a disease from those without."""
    statistics, labels = [], []
    for visit in islice(visits(11), 500):
        pixels = draw_phantom(visit.anatomy, visit.diseases, visit.rng(11), size=96).pixels
        quantiles = np.quantile(pixels, (0.05, 0.25, 0.5, 0.75, 0.95))
        contrast = np.abs(np.diff(pixels.astype(float), axis=0)).mean()
        statistics.append([pixels.mean(), pixels.std(), contrast, *quantiles])
        labels.append([disease in visit.diseases for disease in CHESTXRAY8])
    table, present = np.array(statistics), np.array(labels)
    for k, disease in enumerate(CHESTXRAY8):
        areas = [auc(table[:, s], present[:, k]) for s in range(table.shape[1])]
        assert max(areas) < 0.65, (disease, np.round(areas, 2))
