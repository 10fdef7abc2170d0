"""DICOM attributes that a run warns of, refuses for, and never tells."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pydicom
import pytest

from crosseai.client import score_directory
from crosseai.client.servers.embedded import embedded_server
from crosseai.contract import InputError
from crosseai.imaging import ReadPolicy
from crosseai.training.phantoms import write_phantoms

IMAGES = {
    "burned-in": {"BurnedInAnnotation": "YES", "ViewPosition": "PA"},
    "lateral": {"ViewPosition": "LL"},
    "unknown": {"ViewPosition": None, "PatientOrientation": None, "BodyPartExamined": None},
    "ct": {"Modality": "CT"},
}
PATIENT = "QZXJ-4711"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dicom")
    write_phantoms(folder / "phantoms", count=1, seed=3, image_format="dicom", size=128)
    (phantom,) = (folder / "phantoms" / "dicom").glob("*.dcm")
    (folder / "images").mkdir()
    for name, attributes in IMAGES.items():
        dataset = pydicom.dcmread(phantom)
        dataset.PatientID = dataset.AccessionNumber = PATIENT
        dataset.PatientName = f"{PATIENT}^Mary"
        for keyword, value in attributes.items():
            if keyword in dataset:
                del dataset[keyword]
            if value is not None:
                setattr(dataset, keyword, value)
        if attributes.get("ViewPosition", "") is None and "ViewCodeSequence" in dataset:
            del dataset.ViewCodeSequence
        dataset.save_as(folder / "images" / f"{name}.dcm")
    return folder / "images"


def test_warnings_refusals_and_identifiers(small_model: Path, images: Path, tmp_path: Path) -> None:
    with embedded_server(str(small_model)) as server:
        plain = score_directory(images, tmp_path / "plain", server=server)
        identified = ReadPolicy(views=(), with_identifiers=True)
        score_directory(images, tmp_path / "identified", server=server, reading=identified)
        with pytest.raises(InputError, match="reading"):
            score_directory(images, tmp_path / "plain", server=server, reading=ReadPolicy(max_pixels=10**6))
    scored = {row["path"]: row["warnings"] for row in pq.read_table(tmp_path / "plain/predictions.parquet").to_pylist()}
    assert scored == {"burned-in.dcm": "burned-in annotation", "unknown.dcm": "unknown body part; unknown view"}
    assert plain.counts.warned == {"burned-in annotation": 1, "unknown body part": 1, "unknown view": 1}
    told = {line["path"]: line["message"] for line in errors(tmp_path / "plain")}
    assert told.keys() == {"lateral.dcm", "ct.dcm"}
    assert "expected the view PA or AP, found 'LL'" in told["lateral.dcm"]
    written = [path for path in (tmp_path / "plain").rglob("*") if path.is_file()]
    assert not [path for path in written if PATIENT.encode() in path.read_bytes() or PATIENT in path.name]
    (refused,) = errors(tmp_path / "identified")
    assert f"PatientID '{PATIENT}'" in refused["message"]


def errors(output: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (output / "errors.jsonl").read_text().splitlines()]
