"""DICOM objects made of results, in the eyes of pydicom, dcmtk and dicom3tools."""

import copy
import shutil
import subprocess
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.dataset import Dataset

from crosseai.client.formats.dicom import write_dicom_objects
from crosseai.client.formats.dicom_context import DicomObject, read_context
from crosseai.client.formats.dicom_sr import structured_report
from crosseai.client.formats.gsps import presentation_state
from crosseai.client.formats.parametric_map import parametric_map
from crosseai.client.formats.secondary_capture import secondary_capture
from crosseai.contract import NO_BOX, Finding, ImageResult, ModelIdentity, UnsupportedImageError
from crosseai.training.phantoms import write_phantoms

MODEL = ModelIdentity("crosseai", "7", "ab" * 32)
BOXES = {"Mass": (10, 20, 100, 120), "Effusion": (0, 0, 50, 60), "Scoliosis": (3, 4, 5, 6)}

Make = Callable[[Dataset, ImageResult, ModelIdentity], Dataset | None]


def overlay(context: Dataset, result: ImageResult, model: ModelIdentity) -> Dataset | None:
    pixels = np.zeros((context.Rows, context.Columns, 3), np.uint8)
    pixels[10, 20] = (255, 128, 0)
    return secondary_capture(context, result, model, pixels)


def fused_maps(context: Dataset, result: ImageResult, model: ModelIdentity) -> Dataset | None:
    return parametric_map(context, result, model, random_maps(len(result.findings)))


def random_maps(count: int) -> list[npt.NDArray[np.float32]]:
    rng = np.random.default_rng(count)
    return [255 * rng.random((64, 64), np.float32) for _ in range(count)]


FORMATS: dict[str, Make] = {
    "dicom-sr": structured_report,
    "gsps": presentation_state,
    "secondary-capture": overlay,
    "parametric-map": fused_maps,
}


@pytest.fixture(scope="module")
def radiograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, count=1, seed=5, size=256, image_format="dicom")
    return next(folder.rglob("*.dcm"))


@pytest.fixture(scope="module")
def context(radiograph: Path) -> Dataset:
    return read_context(radiograph)


def result_for(context: Dataset, **boxes: tuple[int, int, int, int]) -> ImageResult:
    findings = tuple(Finding(disease, 0.75, box, box, 120.5) for disease, box in boxes.items())
    return ImageResult("id", "a.dcm", context.Columns, context.Rows, "7", {"Mass": 0.75}, {"Mass": True}, findings)


def make(name: str, context: Dataset, **boxes: tuple[int, int, int, int]) -> Dataset:
    made = FORMATS[name](context, result_for(context, **boxes), MODEL)
    assert made is not None
    return made


@pytest.fixture(params=FORMATS)
def written(request: pytest.FixtureRequest, context: Dataset, tmp_path: Path) -> Path:
    path = tmp_path / f"{request.param}.dcm"
    make(request.param, context, **BOXES).save_as(path, enforce_file_format=True)
    return path


def run(*command: str | Path) -> str:
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed (Debian: dicom3tools, dcmtk)")
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_dicom3tools_finds_no_error(written: Path) -> None:
    assert "Error" not in run("dciodvfy", "-new", written)


def test_the_objects_of_a_study_agree(radiograph: Path, context: Dataset, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.dcm" for name in FORMATS]
    for name, path in zip(FORMATS, paths, strict=True):
        make(name, context, **BOXES).save_as(path, enforce_file_format=True)
    assert "Error" not in run("dcentvfy", radiograph, *paths)


def test_dcmtk_reads_the_report(context: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "sr.dcm"
    make("dicom-sr", context, **BOXES).save_as(path, enforce_file_format=True)
    text = run("dsrdump", "--print-long-values", path)
    assert 'Probability")="0.75"' in text
    assert '(309529002,SCT,"Mass of lung")' in text
    assert "10/20,100/20,100/120,10/120,10/20" in text
    assert 'Algorithm Version")="7"' in text
    assert "for research" in text


def test_patient_and_study_are_carried_over_and_series_are_new(written: Path, context: Dataset) -> None:
    made = pydicom.dcmread(written)
    for keyword in ("PatientName", "PatientID", "PatientSex", "StudyInstanceUID", "StudyDate", "AccessionNumber"):
        assert made[keyword].value == context[keyword].value, keyword
    assert made.SeriesInstanceUID != context.SeriesInstanceUID
    assert made.SOPInstanceUID != context.SOPInstanceUID
    assert "research" in made.SeriesDescription
    assert "model 7" in made.SeriesDescription


def test_polylines_lie_on_the_outer_edges_of_the_boxes(context: Dataset) -> None:
    state = make("gsps", context, **BOXES)
    (annotation,) = state.GraphicAnnotationSequence
    assert annotation.ReferencedImageSequence[0].ReferencedSOPInstanceUID == context.SOPInstanceUID
    for item, (x0, y0, x1, y1) in zip(annotation.GraphicObjectSequence, BOXES.values(), strict=True):
        assert (item.GraphicType, item.GraphicAnnotationUnits) == ("POLYLINE", "PIXEL")
        assert item.GraphicData == [x0, y0, x1, y0, x1, y1, x0, y1, x0, y0]


def test_the_capture_shows_the_overlay(context: Dataset) -> None:
    capture = make("secondary-capture", context, **BOXES)
    assert capture.pixel_array[10, 20].tolist() == [255, 128, 0]
    assert capture.pixel_array.sum() == 255 + 128
    assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == context.SOPInstanceUID
    assert capture.BurnedInAnnotation == context.BurnedInAnnotation


def test_the_maps_come_back_and_cover_the_radiograph(context: Dataset, tmp_path: Path) -> None:
    make("parametric-map", context, NoBox=NO_BOX, **BOXES).save_as(tmp_path / "map.dcm", enforce_file_format=True)
    dataset = pydicom.dcmread(tmp_path / "map.dcm")
    np.testing.assert_array_equal(dataset.pixel_array, random_maps(4)[1:])
    image = hd.pm.ParametricMap.from_dataset(dataset)
    for number, (disease, expected) in enumerate(zip(BOXES, random_maps(4)[1:], strict=True)):
        (mapping,) = image.PerFrameFunctionalGroupsSequence[number].RealWorldValueMappingSequence
        assert (mapping.LUTLabel, mapping.MeasurementUnitsCodeSequence[0].CodeValue) == (disease, "1")
        np.testing.assert_array_equal(image.get_frame(number + 1, apply_real_world_transform=True), expected)
    (measures,) = image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    size_mm = np.multiply(measures.PixelSpacing, (image.Rows, image.Columns))
    np.testing.assert_allclose(size_mm, np.multiply(context.ImagerPixelSpacing, (context.Rows, context.Columns)))
    assert image.ContentQualification == "RESEARCH"
    assert image.SourceImageSequence[0].ReferencedSOPInstanceUID == context.SOPInstanceUID


@pytest.mark.parametrize(
    ("attributes", "orientation", "millimetres"),
    [
        ({"PatientOrientation": ["R", "F"]}, [-1, 0, 0, 0, 0, -1], 256 * 1.6796875),
        ({"PatientOrientation": ["A", "FR"]}, [0, -1, 0, 0, 0, -1], 256 * 1.6796875),
        ({"PatientOrientation": ["L", "R"]}, [1, 0, 0, 0, 0, -1], 256 * 1.6796875),
        ({"PatientOrientation": None}, [1, 0, 0, 0, 0, -1], 256 * 1.6796875),
        ({"ImagerPixelSpacing": None}, [1, 0, 0, 0, 0, -1], 256),
        ({"PixelSpacing": [0, 0]}, [1, 0, 0, 0, 0, -1], 256),
        ({"PixelSpacing": [2, 2]}, [1, 0, 0, 0, 0, -1], 512),
    ],
)
def test_the_plane_of_a_map_is_that_of_the_radiograph(
    context: Dataset, attributes: dict[str, object], orientation: list[int], millimetres: float
) -> None:
    header = copy.deepcopy(context)
    header.PatientOrientation = ["L", "F"]
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    shared = make("parametric-map", header, **BOXES).SharedFunctionalGroupsSequence[0]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == orientation
    assert 64 * shared.PixelMeasuresSequence[0].PixelSpacing[0] == pytest.approx(millimetres)


@pytest.mark.parametrize("name", FORMATS)
def test_last_bits_make_no_other_object(name: str, context: Dataset) -> None:
    result = result_for(context, **BOXES)
    shaken = replace(result, findings=tuple(replace(f, probability=f.probability + 1e-7) for f in result.findings))
    one, other = (FORMATS[name](context, r, MODEL) for r in (result, shaken))
    assert one is not None
    assert other is not None
    assert one.SOPInstanceUID == other.SOPInstanceUID
    assert one.get("ContentSequence") == other.get("ContentSequence")


@pytest.mark.parametrize("name", FORMATS)
def test_uids_repeat_for_the_same_findings_and_only_for_them(name: str, context: Dataset) -> None:
    first, again, other = (make(name, context, **boxes) for boxes in (BOXES, BOXES, {"Mass": (1, 2, 3, 4)}))
    assert first.SOPInstanceUID == again.SOPInstanceUID
    assert first.SOPInstanceUID != other.SOPInstanceUID
    assert first.SeriesInstanceUID == other.SeriesInstanceUID
    assert len({make(name, context, **BOXES).SeriesInstanceUID for name in FORMATS}) == len(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_is_made_without_a_box(name: str, context: Dataset) -> None:
    assert FORMATS[name](context, result_for(context), MODEL) is None
    assert FORMATS[name](context, result_for(context, Mass=NO_BOX), MODEL) is None


def test_invalid_values_are_not_passed_on(radiograph: Path, tmp_path: Path) -> None:
    header = pydicom.dcmread(radiograph)
    with pydicom.config.disable_value_validation():
        header.StudyDate, header.PatientAge = "0123456789abcdef", "62"
        header.AccessionNumber = "0123456789abcdef0"
        header.save_as(tmp_path / "odd.dcm")
        del header.ReferringPhysicianName
        context = read_context(tmp_path / "odd.dcm")
    assert (context.StudyDate, context.PatientAge, context.AccessionNumber) == (None, None, None)
    assert context.PatientID == header.PatientID


def test_an_image_that_nothing_can_refer_to_is_refused(radiograph: Path, tmp_path: Path) -> None:
    header = pydicom.dcmread(radiograph)
    del header.StudyInstanceUID
    header.save_as(tmp_path / "a.dcm")
    with pytest.raises(UnsupportedImageError, match="StudyInstanceUID"):
        read_context(tmp_path / "a.dcm")


def write_all(radiograph: Path, output: Path) -> list[Path]:
    header = pydicom.dcmread(radiograph, stop_before_pixels=True)
    pixels = np.zeros((header.Rows, header.Columns, 3), np.uint8)
    result = result_for(header, **BOXES)
    kinds, maps = get_args(DicomObject), random_maps(len(BOXES))
    write_dicom_objects(radiograph, output, kinds, result, MODEL, lambda: pixels, lambda: maps)
    return sorted(output.rglob("*.dcm"))


def test_every_chest_radiograph_at_hand_gets_valid_objects(shared_data: Path, tmp_path: Path) -> None:
    for path in sorted((shared_data / "dicom" / "chest").iterdir()):
        made = write_all(path, tmp_path)
        assert [file.parent.name for file in made] == sorted(FORMATS)
        for file in made:
            assert "Error" not in run("dciodvfy", "-new", file), (path.name, file.parent.name)


def test_no_warning_and_no_error_quotes_the_header(radiograph: Path, tmp_path: Path) -> None:
    header = pydicom.dcmread(radiograph)
    header.PatientName = "SECRET"  # one component: highdicom quotes it in a warning
    header.save_as(tmp_path / "odd.dcm")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(write_all(tmp_path / "odd.dcm", tmp_path / "out")) == len(FORMATS)
    assert caught == []
    with pydicom.config.disable_value_validation():
        header.StudyInstanceUID = "SECRET"
        header.save_as(tmp_path / "odd.dcm")
    with pytest.raises(UnsupportedImageError) as refused:
        write_all(tmp_path / "odd.dcm", tmp_path / "out")
    assert "SECRET" not in str(refused.value)
