"""Each layout is recognised and read, and its gaps are named."""

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest

from crosseai.contract import CHESTXRAY8, InputError
from crosseai.training.layouts import LAYOUTS, Layout, read_listing
from tests.nih_layout import write_images, write_listing

CHEXPERT = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", "Cardiomegaly", "Edema", "Pleural Effusion")


def write_csv(file: Path, columns: Sequence[str], *rows: Sequence[object]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([columns, *rows])


def write_chexpert(folder: Path, file: str, *rows: tuple[str, str, Sequence[object]]) -> None:
    lines = []
    for path, view, values in rows:
        write_images((folder / path).parent, Path(path).name)
        lines.append((f"CheXpert-v1.0-small/{path}", "F", 60, view, "AP", *values))
    write_csv(folder / file, CHEXPERT, *lines)


def test_nih_newer_listing_and_unpacked_archives(tmp_path: Path) -> None:
    write_images(tmp_path / "images_003" / "images", "a.png")
    write_listing(tmp_path, [("a.png", "Mass", 0, 1)]).rename(tmp_path / "Data_Entry_2017_v2020.csv")
    (image,) = read_listing(tmp_path).images
    assert image.path == tmp_path / "images_003/images/a.png"


def test_nih_dicom_files_stand_for_the_listed_png(tmp_path: Path) -> None:
    write_images(tmp_path / "dicom", "a.dcm")
    write_listing(tmp_path, [("a.png", "Mass", 0, 1)])
    assert read_listing(tmp_path).images[0].path == tmp_path / "dicom/a.dcm"


def test_nih_official_lists_may_name_more_images_than_are_at_hand(tmp_path: Path) -> None:
    write_listing(tmp_path, [("a.png", "Mass", 0, 1), ("b.png", "Mass", 0, 2)])
    (tmp_path / "train_val_list.txt").write_text("b.png\nz.png\n")
    (tmp_path / "test_list.txt").write_text("a.png\ny.png")
    assert [image.held_out for image in read_listing(tmp_path).images] == [True, False]


@pytest.mark.parametrize(
    ("train_val", "test", "message"),
    [
        ("a.png", None, "expected both of train_val_list.txt and test_list.txt, found only train_val_list.txt"),
        ("a.png\nb.png", "b.png", "no image in both official lists, found b.png"),
        ("a.png", "", "expected every image in train_val_list.txt or test_list.txt, found b.png in neither"),
    ],
)
def test_nih_official_lists_that_contradict_are_refused(
    tmp_path: Path, train_val: str, test: str | None, message: str
) -> None:
    write_listing(tmp_path, [("a.png", "Mass", 0, 1), ("b.png", "Mass", 0, 2)])
    (tmp_path / "train_val_list.txt").write_text(train_val)
    if test is not None:
        (tmp_path / "test_list.txt").write_text(test)
    with pytest.raises(InputError, match=message):
        read_listing(tmp_path)


def test_chexpert(tmp_path: Path) -> None:
    write_chexpert(
        tmp_path,
        "train.csv",
        ("train/patient00001/study1/view1_frontal.jpg", "Frontal", ("", "1.0", "-1.0", "-1.0")),
        ("train/patient00001/study1/view2_lateral.jpg", "Lateral", ("", "1.0", "", "")),
        ("train/patient00002/study1/view1_frontal.jpg", "Frontal", ("1.0", "0.0", "", "1.0")),
    )
    write_chexpert(
        tmp_path, "valid.csv", ("valid/patient64541/study1/view1_frontal.jpg", "Frontal", (0.0, 0.0, 1.0, 0.0))
    )
    listing = read_listing(tmp_path)
    assert [image.patient for image in listing.images] == ["patient00001", "patient00002", "patient64541"]
    assert [set(image.findings) for image in listing.images] == [
        {"Cardiomegaly"},
        {"Effusion"},
        {"Edema"},
    ]
    assert [set(image.uncertain) for image in listing.images] == [{"Edema", "Effusion"}, set(), set()]
    assert [image.held_out for image in listing.images] == [False, False, True]
    assert listing.images[0].path == tmp_path / "train/patient00001/study1/view1_frontal.jpg"
    assert listing.known == {"Cardiomegaly", "Edema", "Effusion"}


def test_chexpert_alone_holds_nothing_out(tmp_path: Path) -> None:
    write_chexpert(tmp_path, "valid.csv", ("valid/patient1/study1/view1.jpg", "Frontal", ("", "", "", "")))
    assert read_listing(tmp_path).images[0].held_out is None


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [("train/patient1/a.jpg", "2.0", "line 2: expected 1, 0, -1 or blank for Cardiomegaly, found '2.0'"),
     ("train/patient1/a.jpg", "yes", "line 2: expected 1, 0, -1 or blank for Cardiomegaly, found 'yes'"),
     ("train/a.jpg", "1.0", "line 2: expected a path with a folder patientNNNNN")],
)  # fmt: skip
def test_chexpert_rows_that_cannot_be_read(tmp_path: Path, path: str, value: str, message: str) -> None:
    write_chexpert(tmp_path, "train.csv", (path, "Frontal", ("", value, "", "")))
    with pytest.raises(InputError, match=message):
        read_listing(tmp_path)


def test_table(tmp_path: Path) -> None:
    write_images(tmp_path / "ward", "a.png")
    write_images(tmp_path / "images", "b.dcm")
    rows = (("ward/a.png", "p1", "Mass|Pleural Effusion"), ("b.dcm", "p2", "No Finding"), ("c.png", "p2", "Edema"))
    write_csv(tmp_path / "labels.csv", ("image", "patient", "labels"), *rows)
    listing = read_listing(tmp_path)
    assert [image.path for image in listing.images] == [tmp_path / "ward/a.png", tmp_path / "images/b.dcm", None]
    assert [set(image.findings) for image in listing.images] == [{"Mass", "Effusion"}, set(), {"Edema"}]
    assert listing.usual_classes == CHESTXRAY8


@pytest.mark.parametrize(
    ("layout", "file", "columns"),
    [
        ("nih", "Data_Entry_2017.csv", ("Image Index", "Finding Labels", "Patient ID")),
        ("chexpert", "train.csv", ("Path", "Frontal/Lateral")),
        ("table", "labels.csv", ("image", "patient", "labels")),
    ],
)
def test_missing_columns_gaps_and_rows_are_named(
    tmp_path: Path, layout: Layout, file: str, columns: tuple[str, ...]
) -> None:
    for missing in columns:
        write_csv(tmp_path / file, [column for column in columns if column != missing], ("x", "y"))
        with pytest.raises(InputError, match=rf"{file}: expected the columns \['{missing}'\]"):
            read_listing(tmp_path, layout)
    write_csv(tmp_path / file, columns, ("x", *("" for _ in columns[1:])))
    with pytest.raises(InputError, match=f"{file}, line 2: expected a value for {', '.join(columns[1:])}, found a gap"):
        read_listing(tmp_path)
    write_csv(tmp_path / file, columns, [*columns, "more"])
    with pytest.raises(InputError, match=f"{file}, line 2: expected {len(columns)} values, found more"):
        read_listing(tmp_path)
    write_csv(tmp_path / file, columns)
    with pytest.raises(InputError, match="expected at least one image"):
        read_listing(tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_absent_listing_is_an_error(tmp_path: Path, layout: Layout) -> None:
    with pytest.raises(InputError, match=r"expected .*found neither"):
        read_listing(tmp_path, layout)
    with pytest.raises(InputError, match=r"expected the listing of one layout: Data_Entry_2017_v2020\.csv or .* none"):
        read_listing(tmp_path)


def test_two_layouts_in_one_folder_must_be_told_apart(tmp_path: Path) -> None:
    write_listing(tmp_path, [("a.png", "Mass", 0, 1)])
    write_csv(tmp_path / "labels.csv", ("image", "patient", "labels"), ("a.png", 1, "Mass"))
    with pytest.raises(InputError, match=r"found \['nih', 'table'\]"):
        read_listing(tmp_path)
    assert read_listing(tmp_path, "table").file.name == "labels.csv"


@pytest.mark.parametrize("broken", ["Data_Entry_2017.csv", "test_list.txt"])
def test_a_listing_in_another_encoding_is_named(tmp_path: Path, broken: str) -> None:
    write_listing(tmp_path, [("a.png", "Mass", 0, 1)])
    (tmp_path / "train_val_list.txt").write_text("a.png")
    (tmp_path / "test_list.txt").write_text("b.png")
    (tmp_path / broken).write_bytes("Müller.png".encode("latin-1"))
    with pytest.raises(InputError, match=f"{tmp_path}: expected listings in UTF-8"):
        read_listing(tmp_path)
