"""What a run writes for others: DICOM objects, documents, and what it sends to an archive."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pydicom
import pytest
from click.testing import CliRunner
from pycocotools.coco import COCO

from crosseai.client import score_directory
from crosseai.client.cli import main
from crosseai.contract import InputError
from crosseai.training.phantoms import write_phantoms
from tests.integration.test_archive import Orthanc, destination, orthanc  # noqa: F401 - a fixture

KINDS = ("dicom-sr", "gsps", "secondary-capture")
WRITE = [*KINDS, "coco", "fhir", "label-studio", "html"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, count=3, seed=3, image_format="dicom", size=128)
    return folder / "dicom"


def test_dicom_objects_and_documents_hold_the_boxes_of_the_tables(
    tiny_server: str, images: Path, tmp_path: Path
) -> None:
    summary = score_directory(images, tmp_path / "out", server=tiny_server, explain="all", write=WRITE)
    assert summary.counts.scored == 3
    boxes = pq.read_table(tmp_path / "out/boxes.parquet").to_pylist()
    assert len(boxes) > 3
    edges = sorted((box["x0"], box["y0"], box["x1"], box["y1"]) for box in boxes)
    coco = COCO(str(tmp_path / "out/coco.json"))
    found = [annotation["bbox"] for annotation in coco.loadAnns(coco.getAnnIds())]
    assert sorted((x, y, x + w, y + h) for x, y, w, h in found) == edges
    drawn = [
        (item.GraphicData[0], item.GraphicData[1], item.GraphicData[4], item.GraphicData[5])
        for path in (tmp_path / "out/gsps").glob("*.dcm")
        for item in pydicom.dcmread(path).GraphicAnnotationSequence[0].GraphicObjectSequence
    ]
    assert sorted(drawn) == edges
    assert len(list((tmp_path / "out/report").glob("*.js"))) == 3
    assert "Research software" in (tmp_path / "out/report.html").read_text()
    assert len((tmp_path / "out/fhir.ndjson").read_text().splitlines()) == 3
    assert len(json.loads((tmp_path / "out/label_studio.json").read_text())) == 3


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
    assert "9 DICOM objects sent" in first.stdout
    assert len(orthanc.instances()) == 9
    again = CliRunner().invoke(main, command)
    assert "0 DICOM objects sent" in again.stdout
    assert ", 9 earlier" in again.stdout


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
