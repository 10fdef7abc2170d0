"""What a run writes for others: DICOM objects, documents, and what it sends to an archive."""

import csv
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, get_args
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from click.testing import CliRunner
from fhir.resources.R4B.bundle import Bundle
from PIL import Image
from pycocotools.coco import COCO
from pydicom.dataset import Dataset
from pypdf import PdfReader

from crosseai.client import score_directory
from crosseai.client.cli import main
from crosseai.client.formats.dicom_context import DicomObject
from crosseai.client.outputs import Document
from crosseai.client.pictures import Picture
from crosseai.contract import Box, InputError
from crosseai.imaging import ReadPolicy
from crosseai.training.phantoms import write_phantoms
from tests.integration.test_archive import Orthanc, destination, orthanc  # noqa: F401 - a fixture
from tests.tiny_model import TINY_SPEC

KINDS = get_args(DicomObject)
WRITE = [*get_args(Picture), *KINDS, *get_args(Document), "html"]

SIDE = 128
"""Of the images, in pixels."""

Boxes: TypeAlias = list[tuple[str, Box]]
"""Disease and edges of each box, sorted."""


def boxes_of_tables(out: Path) -> Boxes:
    rows = pq.read_table(out / "boxes.parquet").to_pylist()
    return sorted((row["disease"], (row["x0"], row["y0"], row["x1"], row["y1"])) for row in rows)


def in_csv(out: Path) -> Boxes:
    with (out / "boxes.csv").open() as file:
        return sorted(
            (row["disease"], tuple(int(row[edge]) for edge in ("x0", "y0", "x1", "y1"))) for row in csv.DictReader(file)
        )


def in_coco(out: Path) -> Boxes:
    coco = COCO(str(out / "coco.json"))
    found = [(coco.loadCats(a["category_id"])[0]["name"], a["bbox"]) for a in coco.loadAnns(coco.getAnnIds())]
    return sorted((disease, (x, y, x + w, y + h)) for disease, (x, y, w, h) in found)


def in_cvat(out: Path) -> Boxes:
    found = ET.parse(out / "cvat.xml").getroot().iterfind("image/box")  # noqa: S314 - our own file
    return sorted(
        (box.attrib["label"], tuple(float(box.attrib[edge]) for edge in ("xtl", "ytl", "xbr", "ybr"))) for box in found
    )


def in_fiftyone(out: Path) -> Boxes:
    labels = json.loads((out / "fiftyone.json").read_text())["labels"].values()
    found = [(one["label"], np.multiply(one["bounding_box"], SIDE)) for image in labels for one in image]
    return sorted((disease, tuple(np.rint([x, y, x + w, y + h]))) for disease, (x, y, w, h) in found)


def in_label_studio(out: Path) -> Boxes:
    tasks = json.loads((out / "label_studio.json").read_text())
    values = [region["value"] for task in tasks for region in task["predictions"][0]["result"]]
    shares = [
        (v["rectanglelabels"][0], [v[name] * SIDE / 100 for name in ("x", "y", "width", "height")]) for v in values
    ]
    return sorted((disease, tuple(np.rint([x, y, x + w, y + h]))) for disease, (x, y, w, h) in shares)


def in_fhir(out: Path) -> Boxes:
    found = []
    for line in (out / "fhir.ndjson").read_text().splitlines():
        for entry in Bundle.model_validate_json(line).entry[2:]:
            edges = [float(component.valueQuantity.value) for component in entry.resource.component or ()]
            found += [(entry.resource.code.text, tuple(edges))] if edges else []
    return sorted(found)


def in_reports(out: Path) -> Boxes:
    """As dcmtk prints them."""
    found = []
    for path in (out / "dicom-sr").glob("*.dcm"):
        dump = ["dsrdump", "--print-long-values", path]
        text = subprocess.run(dump, capture_output=True, text=True, check=True).stdout
        diseases = re.findall(r'"Tracking Identifier"\)="(\w+) \d+"', text)
        for disease, polyline in zip(diseases, re.findall(r"\(POLYLINE,([\d./,]+)\)", text), strict=True):
            corners = [[float(edge) for edge in corner.split("/")] for corner in polyline.split(",")]
            found.append((disease, (*corners[0], *corners[2])))
    return sorted(found)


def in_presentation_states(out: Path) -> Boxes:
    found = []
    for path in (out / "gsps").glob("*.dcm"):
        (annotation,) = pydicom.dcmread(path).GraphicAnnotationSequence
        for item, text in zip(annotation.GraphicObjectSequence, annotation.TextObjectSequence, strict=True):
            x0, y0, _, _, x1, y1, *_ = item.GraphicData
            found.append((text.UnformattedTextValue.split()[0], (x0, y0, x1, y1)))
    return sorted(found)


READERS = (
    in_csv, in_coco, in_cvat, in_fiftyone, in_label_studio, in_fhir, in_reports, in_presentation_states,
)  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, count=3, seed=3, image_format="dicom", size=SIDE)
    return folder / "dicom"


@pytest.fixture(scope="module")
def everything(tiny_server: str, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that writes all that there is, over images that name a patient wherever they can."""
    folder = tmp_path_factory.mktemp("everything")
    (folder / "in").mkdir()
    for number, path in enumerate(sorted(images.iterdir())):
        dataset = pydicom.dcmread(path)
        plant(dataset, number)
        dataset.save_as(folder / "in" / f"{number}.dcm")
    broken = pydicom.dcmread(folder / "in" / "0.dcm")
    broken.Modality = "CT"
    broken.save_as(folder / "in" / "broken.dcm")
    boxes = folder / "truth.csv"
    boxes.write_text("Image Index,Finding Label,Bbox [x,y,w,h]\n0.dcm,Mass,100,100,300,300\n")
    command = [
        *("run", str(folder / "in"), "--output", str(folder / "out"), "--server", tiny_server, "--explain", "all"),
        *("--write", ",".join(WRITE), "--boxes", str(boxes), "--log-format", "json"),
    ]
    outcome = CliRunner().invoke(main, command)
    (folder / "out" / "console.txt").write_text(outcome.stdout + outcome.stderr)
    assert outcome.exit_code == 1, outcome.output
    return folder / "out"


@pytest.mark.parametrize("read", READERS)
def test_boxes_are_those_of_the_tables(everything: Path, read: Callable[[Path], Boxes]) -> None:
    if read is in_reports and shutil.which("dsrdump") is None:
        pytest.skip("dsrdump is not installed (Debian: dcmtk)")
    expected = boxes_of_tables(everything)
    assert len(expected) > 10
    assert read(everything) == expected


def test_maps_are_those_of_the_boxes(everything: Path) -> None:
    """Each frame's box, found again in the map that was stored, is the one in the table."""
    spec = TINY_SPEC
    found = []
    for path in (everything / "parametric-map").glob("*.dcm"):
        dataset = pydicom.dcmread(path)
        for frame, facts in zip(dataset.pixel_array, dataset.PerFrameFunctionalGroupsSequence, strict=True):
            assert frame.shape == (spec.input_size, spec.input_size)
            assert frame.dtype == np.float32
            found.append(facts.RealWorldValueMappingSequence[0].LUTLabel)
    assert sorted(found) == [disease for disease, _ in boxes_of_tables(everything)]


def test_pictures_and_pages_are_there(everything: Path) -> None:
    findings = 3 * len(TINY_SPEC.classes)
    count = {folder: len(list((everything / folder).iterdir())) for folder in ("overlays", "panels", "report")}
    assert count == {"overlays": 3, "panels": 2 * findings, "report": 6}
    pages = [PdfReader(path).pages[0].extract_text() for path in (everything / "panels").glob("*.pdf")]
    assert sum("ground truth" in page for page in pages) == 1
    page = (everything / "report.html").read_text()
    assert "Research software" in page
    content = json.loads(page.partition('id="content">')[2].partition("</script>")[0])
    assert [box[1] for box in content["truth"]["boxes"]] == ["Mass"]


MARK = "QZXJ"
"""In every planted identifier, and in nothing else."""


def plant(dataset: Dataset, number: int) -> None:
    """Put identifiers of an invented patient into every attribute of PS3.15 table E.1-1 that texts can be put into."""
    for keyword in (
        "PatientName", "OtherPatientNames", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName",
        "PatientBirthName", "PatientMotherBirthName", "RequestingPhysician", "NameOfPhysiciansReadingStudy",
    ):  # fmt: skip
        setattr(dataset, keyword, f"{MARK}{keyword[:20]}^Mary")
    for keyword in (
        "PatientID", "OtherPatientIDs", "IssuerOfPatientID", "InstitutionName", "InstitutionalDepartmentName",
        "StudyDescription", "PatientAddress", "CountryOfResidence", "RegionOfResidence", "ProtocolName", "StationName",
        "SeriesDescription", "RequestedProcedureDescription", "AdditionalPatientHistory", "PatientComments",
        "ImageComments", "DeviceSerialNumber", "Occupation", "MedicalRecordLocator", "InsurancePlanIdentification",
        "PatientTelephoneNumbers", "InstitutionAddress", "EthnicGroup", "DerivationDescription",
    ):  # fmt: skip
        setattr(dataset, keyword, f"{MARK} {keyword}"[:16])
    dataset.AccessionNumber = dataset.StudyID = f"{MARK}-{number}"
    dataset.PatientBirthDate = BIRTH_DATE
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = STUDY_DATE
    dataset.StudyTime = STUDY_TIME
    dataset.PatientAge = "087Y"


BIRTH_DATE, STUDY_DATE, STUDY_TIME = "19380417", "20190317", "183742.123"


def test_nothing_identifying_reaches_an_output_but_dicom_objects(everything: Path) -> None:
    header = pydicom.dcmread(everything.parent / "in" / "0.dcm", stop_before_pixels=True)
    uids = [str(header[keyword].value) for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
    secrets = [MARK, BIRTH_DATE, "1938-04-17", STUDY_DATE, "2019-03-17", STUDY_TIME, "087Y", *uids]
    assert all(any(secret in str(element.value) for element in header) for secret in (MARK, BIRTH_DATE, STUDY_DATE))
    written = [path for path in everything.rglob("*") if path.is_file() and path.suffix != ".dcm"]
    suffixes = {path.suffix for path in written}
    assert suffixes >= {
        ".parquet",
        ".csv",
        ".json",
        ".jsonl",
        ".ndjson",
        ".xml",
        ".html",
        ".js",
        ".jpg",
        ".png",
        ".pdf",
        ".txt",
    }
    for path in written:
        content = readable(path)
        leaks = [
            secret for secret in secrets if secret.encode() in content or secret in str(path.relative_to(everything))
        ]
        assert not leaks, path.name


def readable(path: Path) -> bytes:
    """What a file holds, and what is compressed in it."""
    content = path.read_bytes()
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        return content + repr((table.to_pylist(), table.schema.metadata, pq.read_metadata(path).metadata)).encode()
    if path.suffix in (".png", ".jpg"):
        with Image.open(path) as picture:
            return content + repr((picture.info, dict(picture.getexif()))).encode()
    if path.suffix == ".pdf":
        document = PdfReader(path)
        return content + repr((document.metadata, [page.extract_text() for page in document.pages])).encode()
    return content


def test_dicom_objects_carry_the_patient(everything: Path) -> None:
    for kind in KINDS:
        for path in (everything / kind).glob("*.dcm"):
            made = pydicom.dcmread(path)
            assert str(made.PatientName).startswith(MARK), "on purpose"
            assert made.PatientBirthDate == BIRTH_DATE


def test_burned_in_names_are_in_no_picture_unless_asked_for(tiny_server: str, images: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    dataset = pydicom.dcmread(sorted(images.iterdir())[0])
    dataset.BurnedInAnnotation = "YES"
    dataset.save_as(tmp_path / "in" / "a.dcm")
    write = ["overlay", "panel", "html", "secondary-capture"]
    for asked, count in ((False, 0), (True, 1)):
        out, reading = tmp_path / str(asked), ReadPolicy(with_identifiers=asked)
        score_directory(tmp_path / "in", out, server=tiny_server, explain="all", write=write, reading=reading)
        assert len(list(out.glob("overlays/*"))) == len(list(out.glob("report/*.js"))) == count
        assert len(list(out.glob("panels/*"))) == count * len(TINY_SPEC.classes)
        assert len(list(out.glob("secondary-capture/*"))) == 1


def test_other_files_fail_alone_where_their_names_do_not_say_so(tiny_server: str, images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "in")
    written, png = cv2.imencode(".png", np.arange(10000, dtype=np.uint8).reshape(100, 100))
    assert written
    (tmp_path / "in" / "picture").write_bytes(png.tobytes())
    score_directory(tmp_path / "in", tmp_path / "out", server=tiny_server, explain="all", write=["gsps"])
    (line,) = (json.loads(line) for line in (tmp_path / "out/errors.jsonl").read_text().splitlines())
    assert (line["path"], line["message"]) == ("picture", "gsps: expected a DICOM file, found png")


def test_a_file_that_nothing_can_refer_to_fails_alone(tiny_server: str, images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "in")
    broken = sorted((tmp_path / "in").iterdir())[0]
    dataset = pydicom.dcmread(broken)
    del dataset.StudyInstanceUID
    dataset.save_as(broken)
    summary = score_directory(
        tmp_path / "in", tmp_path / "out", server=tiny_server, explain="all", write=["dicom-sr", "coco"]
    )
    assert (summary.counts.scored, summary.counts.failed) == (2, 1)
    (line,) = (json.loads(line) for line in (tmp_path / "out/errors.jsonl").read_text().splitlines())
    assert (line["path"], line["stage"]) == (broken.name, "write")
    assert len(COCO(str(tmp_path / "out/coco.json")).getImgIds()) == 2


def test_dicom_objects_of_other_files_are_refused_before_any_work(images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "in")
    (tmp_path / "in" / "a.PNG").write_bytes(b"")
    with pytest.raises(InputError, match=r"gsps can only be made of DICOM files, found .*a\.PNG"):
        score_directory(tmp_path / "in", tmp_path / "out", server="grpc://127.0.0.1:1", write=["gsps"])
    assert not (tmp_path / "out").exists()


def test_a_run_sends_its_objects_once(
    tiny_server: str,
    images: Path,
    tmp_path: Path,
    orthanc: Orthanc,  # noqa: F811
) -> None:
    out = tmp_path / "out"
    options = ["--server", tiny_server, "--explain", "all", "--write", ",".join(KINDS)]
    command = ["run", str(images), "--output", str(out), *options, "--push", destination(orthanc, "dicomweb")]
    first = CliRunner().invoke(main, command)
    assert first.exit_code == 0, first.output
    assert "12 DICOM objects sent" in first.stdout
    assert len(orthanc.instances()) == 12
    again = CliRunner().invoke(main, command)
    assert "0 DICOM objects sent" in again.stdout
    assert ", 12 earlier" in again.stdout


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--push", "https://pacs/dicom-web"], "expected DICOM objects in --write"),
        (["--write", "gsps", "--push", "pacs:104"], "archive pacs:104: expected"),
        (["--write", "gsps,povray"], "found povray"),
    ],
)
def test_wrong_usage_is_said_at_once(images: Path, tmp_path: Path, options: list[str], reason: str) -> None:
    command = ["run", str(images), "--output", str(tmp_path / "out"), "--server", "grpc://127.0.0.1:1", *options]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert reason in result.output
