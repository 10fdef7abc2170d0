import json
import re
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import roc_auc_score, roc_curve

from crosseai.client.cli import main
from crosseai.client.report import truth as comparison
from crosseai.client.report import write_layers, write_report
from crosseai.contract import RESEARCH_NOTICE, ImageFailure, InputError
from crosseai.imaging import read_radiograph
from tests.run_folder import SPEC, made_up_image, made_up_results, write_run

HOSTILE = '<img src=x onerror="document.title=1">&</script><script>{{script}}.png'


class Elements(HTMLParser):
    """Start tags of a page, and the text of its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script":
            self.scripts[-1] += data


def read_page(page: Path) -> tuple[dict, Elements]:
    elements = Elements(page.read_text(encoding="utf-8"))
    return json.loads(elements.scripts[0]), elements


def test_the_page_holds_the_tables(tmp_path: Path) -> None:
    results = list(made_up_results(30))
    failure = ImageFailure("broken.dcm", "UnreadableImageError", "expected a file, found none", "read")
    content, _ = read_page(write_report(write_run(tmp_path, results, [failure])))
    assert content["notice"] == RESEARCH_NOTICE
    assert content["model"]["model_version"] == "7"
    images = content["images"]
    assert images["id"] == [result.image_id for result in results]
    assert images["path"] == [result.path for result in results]
    for row, result in enumerate(results):
        found = [column[row] / 10000 for column in images["probabilities"]]
        np.testing.assert_allclose(found, list(result.probabilities.values()), atol=5e-5)
        assert [bool(images["positive"][row] >> d & 1) for d in range(8)] == list(result.positive.values())
        expected = [[row, SPEC.classes.index(f.disease), *f.box_image_px, f.score] for f in result.findings]
        assert [box for box in content["boxes"] if box[0] == row] == expected
    assert content["failures"] == [["broken.dcm", "UnreadableImageError", "expected a file, found none", "read"]]
    assert not any(images["layers"])
    assert content["truth"] is content["roc"] is None


def test_no_string_of_a_file_becomes_an_element(tmp_path: Path) -> None:
    failure = ImageFailure(HOSTILE, "UnreadableImageError", HOSTILE, "read")
    content, harmful = read_page(write_report(write_run(tmp_path / "harmful", [], [failure])))
    _, harmless = read_page(write_report(write_run(tmp_path / "harmless", [])))
    assert harmful.tags == harmless.tags
    assert content["failures"][0][0] == HOSTILE


def test_nothing_is_loaded_from_elsewhere_and_nothing_names_the_scored_folder(tmp_path: Path) -> None:
    page = write_report(write_run(tmp_path, list(made_up_results(3)))).read_text(encoding="utf-8")
    assert re.findall(r"https?://[^\"' ]*", page) == ["http://www.w3.org/2000/svg"]  # a name space
    assert "/data/of/the/hospital" not in page
    assert "default-src 'none'" in page


def test_five_thousand_images_take_less_than_a_megabyte(tmp_path: Path) -> None:
    page = write_report(write_run(tmp_path, list(made_up_results(5000))))
    assert page.stat().st_size < 1_000_000


def test_copies_of_a_file_share_their_boxes(tmp_path: Path) -> None:
    result = next(result for result in made_up_results(50) if len(result.findings) == 1)
    content, _ = read_page(write_report(write_run(tmp_path, [result, result])))
    assert [box[0] for box in content["boxes"]] == [0, 1]


def test_layers_hold_the_maps_and_a_picture_that_is_not_too_large(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1500, 1000), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    radiograph = read_radiograph(tmp_path / "a.png")
    image = made_up_image(radiograph, "a.png", ["Mass", "Nodule"])
    write_layers(image, radiograph, tmp_path)
    script = (tmp_path / "report" / f"{image.result.image_id}.js").read_text(encoding="ascii")
    match = re.fullmatch(r'receiveLayers\("([0-9a-f]{32})", (\{.*\})\);\n', script)
    assert match is not None
    assert match[1] == image.result.image_id
    layers = json.loads(match[2])
    assert from_url(layers["picture"]).shape == (1024, 683)
    assert list(layers["findings"]) == ["Mass", "Nodule"]
    for maps, found in zip(image.maps, layers["findings"].values(), strict=True):
        heatmap = np.frombuffer(b64decode(found["heatmap"]), "<f4").reshape(found["shape"])
        np.testing.assert_array_equal(heatmap, maps.heatmap)
        np.testing.assert_array_equal(from_url(found["gradient"]), maps.gradient_map)
    thumbnail = cv2.imread(str(tmp_path / "report" / f"{image.result.image_id}.jpg"), cv2.IMREAD_UNCHANGED)
    assert thumbnail.shape == (192, 128)
    content, _ = read_page(write_report(write_run(tmp_path, [image.result])))
    assert content["images"]["layers"] == [1]


def from_url(url: str) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(b64decode(url.partition(",")[2]), np.uint8), cv2.IMREAD_UNCHANGED)


def test_ground_truth(tmp_path: Path) -> None:
    results = list(made_up_results(40))
    with_box = [(result, finding) for result in results for finding in result.findings][:12]
    rows = ["Image Index,Finding Label,Bbox [x,y,w,h]"]
    for n, (result, finding) in enumerate(with_box):
        x0, y0, x1, y1 = finding.box_image_px
        wide = (x1 - x0) / (1 + n % 2)  # every other one half as wide
        rows.append(f"{Path(result.path).name},{finding.disease},{x0},{y0},{wide},{y1 - y0}")
    (tmp_path / "boxes.csv").write_text("\n".join(rows))
    content, _ = read_page(write_report(write_run(tmp_path / "out", results), tmp_path / "boxes.csv"))
    truth = content["truth"]
    assert [box[6] for box in truth["boxes"]] == [1.0, 0.5] * 6
    assert [results[box[0]].image_id for box in truth["boxes"]] == [result.image_id for result, _ in with_box]
    assert truth["table"]["diseases"][-1] == "Mean"
    assert truth["table"]["boxes"][-1] == 12
    assert truth["table"]["accuracy"][-1][0] == 1.0


def test_ground_truth_of_other_images_is_said_to_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text("h\nelsewhere.png,Mass,1,2,3,4\n")
    content, _ = read_page(write_report(write_run(tmp_path / "out", list(made_up_results(2))), tmp_path / "boxes.csv"))
    assert content["truth"] == {"boxes": [], "left_out": 1, "table": None}


def test_labels_give_the_roc_of_scikit_learn(tmp_path: Path) -> None:
    results = list(made_up_results(60))
    labelled = [["Mass"] if n % 3 == 0 else ["Nodule"] if n % 2 else [] for n in range(len(results))]
    names = [Path(result.path).name for result in results]
    rows = [f"{name},{'|'.join(found) or 'No Finding'}" for name, found in zip(names, labelled, strict=True)]
    (tmp_path / "labels.csv").write_text("\n".join(["Image Index,Finding Labels", *rows[:50]]))
    content, _ = read_page(write_report(write_run(tmp_path / "out", results), labels=tmp_path / "labels.csv"))
    assert [curve["disease"] for curve in content["roc"]] == ["Mass", "Nodule"]
    for curve in content["roc"]:
        expected = roc_auc_score(
            [curve["disease"] in found for found in labelled[:50]],
            [round(result.probabilities[curve["disease"]], 4) for result in results[:50]],
        )
        assert curve["auc"] == pytest.approx(expected, abs=1e-4)
        assert curve["images"] == 50


def test_curve_equals_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    positive, scores = rng.random(200) < 0.3, rng.integers(0, 30, 200)  # with ties
    false, true, _ = roc_curve(positive, scores, drop_intermediate=False)
    found = comparison.roc_curve(positive, scores)
    np.testing.assert_allclose(found[0], false)
    np.testing.assert_allclose(found[1], true)


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected the manifest of a run"):
        write_report(tmp_path)
    write_run(tmp_path, list(made_up_results(2)))
    (tmp_path / "predictions.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match="expected the output of crosseai-client run"):
        write_report(tmp_path)


def test_command(tmp_path: Path) -> None:
    write_run(tmp_path, list(made_up_results(2)))
    outcome = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert outcome.exit_code == 0, outcome.output
    assert str(tmp_path / "report.html") in outcome.stdout
    missing = CliRunner().invoke(main, ["report", str(tmp_path), "--boxes", str(tmp_path / "absent.csv")])
    assert missing.exit_code == 2
    assert "absent.csv" in missing.stderr
