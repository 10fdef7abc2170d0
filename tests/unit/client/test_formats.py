"""Each format is read back by software that is not ours, and its boxes are those of the results."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from fhir.resources.R4B.bundle import Bundle
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from crosseai.client.formats.coco import write_coco
from crosseai.client.formats.cvat import write_cvat
from crosseai.client.formats.fhir import write_fhir
from crosseai.client.formats.fiftyone import write_fiftyone
from crosseai.client.formats.label_studio import write_label_studio
from crosseai.contract import NO_BOX, Box, Finding, ImageResult

XML_TEXT = re.compile("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")
"""What XML 1.0 can hold (section 2.2)."""

CLASSES = ("Atelectasis", "Mass", "Scoliosis")


def result(name: str, *findings: Finding, width: int = 640, height: int = 480) -> ImageResult:
    probabilities = {"Atelectasis": 0.25, "Mass": 0.75, "Scoliosis": 0.5}
    positive = {"Atelectasis": False, "Mass": True, "Scoliosis": True}
    return ImageResult(f"id of {name}", name, width, height, "7", probabilities, positive, findings)


RESULTS = (
    result("a.png", Finding("Mass", 0.75, (10, 20, 110, 70), (1, 2, 3, 4), 200.0), Finding("Scoliosis", 0.5)),
    result("no findings.png"),
    result(
        "b.dcm",
        Finding("Atelectasis", 0.25, (0, 0, 640, 480), (0, 0, 9, 9), 90.0),
        Finding("Mass", 0.75, (1, 2, 3, 4), (1, 1, 2, 2), 80.0),
        Finding("Mass", 0.75, (5, 2, 7, 4), (3, 1, 4, 2), 70.0),
    ),
)


def boxes_of(results: Sequence[ImageResult]) -> list[tuple[str, str, Box]]:
    return [
        (image.path, finding.disease, finding.box_image_px)
        for image in results
        for finding in image.findings
        if finding.box_image_px != NO_BOX
    ]


def read_coco(path: Path) -> list[tuple[str, str, Box]]:
    coco = COCO(str(path))
    return [
        (
            coco.loadImgs(annotation["image_id"])[0]["file_name"],
            coco.loadCats(annotation["category_id"])[0]["name"],
            (x, y, x + w, y + h),
        )
        for annotation in coco.loadAnns(coco.getAnnIds())
        for x, y, w, h in [annotation["bbox"]]
    ]


def test_pycocotools_reads_the_boxes(tmp_path: Path) -> None:
    write_coco(tmp_path / "coco.json", RESULTS, CLASSES, "7")
    assert read_coco(tmp_path / "coco.json") == boxes_of(RESULTS)
    coco = COCO(str(tmp_path / "coco.json"))
    assert [image["width"] for image in coco.loadImgs(coco.getImgIds())] == [640] * 3
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    assert coco.dataset["info"]["version"] == "7"


def test_pycocotools_evaluates_the_boxes(tmp_path: Path) -> None:
    write_coco(tmp_path / "coco.json", RESULTS, CLASSES, "7")
    truth = COCO(str(tmp_path / "coco.json"))
    evaluation = COCOeval(truth, truth.loadRes(truth.dataset["annotations"]), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1)  # average precision of boxes against themselves


def test_a_run_without_results_is_a_valid_coco_file(tmp_path: Path) -> None:
    write_coco(tmp_path / "coco.json", (), CLASSES, "7")
    assert read_coco(tmp_path / "coco.json") == []


def test_label_studio_percentages_give_the_boxes(tmp_path: Path) -> None:
    write_label_studio(tmp_path / "tasks.json", RESULTS)
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    found = []
    for task in tasks:
        path = task["data"]["image"].removeprefix("/data/local-files/?d=")
        for region in task["predictions"][0]["result"]:
            x, y, w, h = (region["value"][name] / 100 for name in ("x", "y", "width", "height"))
            side = np.tile([region["original_width"], region["original_height"]], 2)
            box = tuple(np.rint(np.array([x, y, x + w, y + h]) * side))
            found.append((path, region["value"]["rectanglelabels"][0], box))
    assert found == boxes_of(RESULTS)
    assert [task["predictions"][0]["score"] for task in tasks] == [0.75, 0.0, 0.75]
    assert {task["predictions"][0]["model_version"] for task in tasks} == {"7"}
    identifiers = [region["id"] for task in tasks for region in task["predictions"][0]["result"]]
    assert len(set(identifiers)) == len(identifiers)


def parse(path: Path) -> ET.Element:
    return ET.parse(path).getroot()  # noqa: S314 - our own file


def read_cvat(path: Path) -> list[tuple[str, str, Box]]:
    found = []
    for image in parse(path).iterfind("image"):
        for box in image.iterfind("box"):
            edges = tuple(float(box.attrib[edge]) for edge in ("xtl", "ytl", "xbr", "ybr"))
            found.append((image.attrib["name"], box.attrib["label"], edges))
    return found


def test_cvat_has_the_boxes_and_declares_its_labels(tmp_path: Path) -> None:
    write_cvat(tmp_path / "cvat.xml", RESULTS, CLASSES)
    assert read_cvat(tmp_path / "cvat.xml") == boxes_of(RESULTS)
    root = parse(tmp_path / "cvat.xml")
    assert root.findtext("version") == "1.1"
    assert [label.findtext("name") for label in root.iterfind("meta/task/labels/label")] == list(CLASSES)
    assert [image.attrib["id"] for image in root.iterfind("image")] == ["0", "1", "2"]
    assert {(image.attrib["width"], image.attrib["height"]) for image in root.iterfind("image")} == {("640", "480")}
    probabilities = [attribute.text for attribute in root.iterfind("image/box/attribute[@name='probability']")]
    assert probabilities == ["0.75", "0.25", "0.75", "0.75"]


def test_fiftyone_shares_give_the_boxes(tmp_path: Path) -> None:
    write_fiftyone(tmp_path / "fiftyone.json", RESULTS, CLASSES)
    content = json.loads((tmp_path / "fiftyone.json").read_text())
    assert content["classes"] == list(CLASSES)
    assert list(content["labels"]) == ["a", "no findings", "b"]
    found = []
    for image, detections in zip(RESULTS, content["labels"].values(), strict=True):
        for detection in detections:
            x, y, w, h = detection["bounding_box"]
            box = tuple(np.rint(np.multiply([x, y, x + w, y + h], [640, 480, 640, 480])))
            found.append((image.path, detection["label"], box))
    assert found == boxes_of(RESULTS)
    assert [d["confidence"] for image in content["labels"].values() for d in image] == [0.75, 0.25, 0.75, 0.75]


def test_a_run_without_results_makes_valid_files(tmp_path: Path) -> None:
    write_cvat(tmp_path / "cvat.xml", (), CLASSES)
    write_fiftyone(tmp_path / "fiftyone.json", (), CLASSES)
    assert read_cvat(tmp_path / "cvat.xml") == []
    assert json.loads((tmp_path / "fiftyone.json").read_text())["labels"] == {}


def read_fhir(path: Path) -> list[Bundle]:
    return [Bundle.model_validate_json(line) for line in path.read_text().splitlines()]


def test_fhir_bundles_are_valid_and_hold_the_boxes(tmp_path: Path) -> None:
    write_fhir(tmp_path / "fhir.ndjson", RESULTS)
    found = []
    for image, bundle in zip(RESULTS, read_fhir(tmp_path / "fhir.ndjson"), strict=True):
        report, device, *observations = [entry.resource for entry in bundle.entry]
        assert report.get_resource_type() == "DiagnosticReport"
        assert device.version[0].value == "7"
        assert [item.reference for item in report.result] == [entry.fullUrl for entry in bundle.entry[2:]]
        assert [item.code.text for item in observations] == list(CLASSES)
        assert [float(item.valueQuantity.value) for item in observations] == list(image.probabilities.values())
        assert [item.interpretation[0].coding[0].code for item in observations] == ["NEG", "POS", "POS"]
        for item in observations:
            edges = [int(component.valueQuantity.value) for component in item.component or ()]
            found += [(image.path, item.code.text, tuple(edges[i : i + 4])) for i in range(0, len(edges), 4)]
    assert found == boxes_of(RESULTS)


def test_fhir_codes_what_snomed_ct_knows_and_repeats_its_ids(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_fhir(tmp_path / name, RESULTS)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    mass, scoliosis = (entry.resource.code for entry in read_fhir(tmp_path / "first")[0].entry[3:])
    assert (mass.coding[0].code, mass.coding[0].display) == ("309529002", "Mass of lung")
    assert scoliosis.coding is None


@given(
    box=st.tuples(*[st.integers(0, 4000)] * 4).map(
        lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]) + 1, max(b[1], b[3]) + 1)
    ),
    name=st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1),
)
def test_any_box_and_name_survive(tmp_path_factory: pytest.TempPathFactory, box: Box, name: str) -> None:
    results = [result(name, Finding("Mass", 0.75, box, box, 1.0), width=5000, height=5000)]
    path = tmp_path_factory.getbasetemp() / "any"
    write_coco(path, results, CLASSES, "7")
    assert read_coco(path) == boxes_of(results)
    write_cvat(path, results, CLASSES)
    (((found_name, *found),),) = (read_cvat(path),)
    assert found == ["Mass", box]
    assert found_name == name or not XML_TEXT.fullmatch(name)
    write_fiftyone(path, results, CLASSES)
    ((_, (detection,)),) = json.loads(path.read_text())["labels"].items()
    np.testing.assert_allclose(5000 * np.array(detection["bounding_box"][:2]), box[:2], atol=1e-9)
