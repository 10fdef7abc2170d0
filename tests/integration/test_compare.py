"""``crosseai-train compare`` end to end: every method trained on phantoms and judged, in miniature."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("mlflow")

from crosseai.client.evaluation import MEAN, THRESHOLDS, evaluate_boxes, read_boxes_csv
from crosseai.comparison.methods import all_methods
from crosseai.training.cli import main
from crosseai.training.config import FitConfig
from crosseai.training.phantoms import write_phantoms

SIDE = 64
SETTINGS = (
    *("--config", "phantoms", "--optimizer", "sgd", "--learning-rate", "0.01", "--schedule", "step"),
    *("--no-triplet-attention", "--width", "4", "--input-size", str(SIDE)),
    *("--epochs", "1", "--batch-size", "16", "--resamples", "100", "--replaced", "3"),
)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    write_phantoms(folder / "phantoms", count=48, seed=3, size=128)
    return folder


def invoke(workplace: Path, *arguments: str) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return CliRunner().invoke(main, ["compare", "--data", "phantoms", "--output", "out", *SETTINGS, *arguments])


@pytest.fixture(scope="module")
def compared(workplace: Path) -> Result:
    result = invoke(workplace)
    assert result.exit_code == 0, result.output
    return result


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_method_is_trained_and_in_every_table(compared: Result, workplace: Path) -> None:
    trained = {line.split(":")[0] for line in compared.stderr.splitlines() if ": epoch" in line}
    assert trained == {
        *("wang2017", "contrastive", "chexradinet", "li2018-without-boxes"),
        *(f"li2018-{fold}" for fold in range(1, 6)),
    }
    for method in all_methods().values():
        assert compared.stdout.count(f"  {method.title} ") >= 4
    names = set(all_methods())
    for file in ("table.csv", "auc.csv", "boxes.csv"):
        assert {row["method"] for row in rows(workplace / "out" / file)} == names


def test_contrastive_methods_are_contrastive_whatever_the_configuration(compared: Result, workplace: Path) -> None:
    def weight(method: str) -> float:
        (made,) = (workplace / "out" / "trained" / method).glob("**/training.json")
        return float(json.loads(made.read_text())["cross_entropy_weight"])

    assert FitConfig.load("phantoms").cross_entropy_weight == 1
    assert (weight("contrastive"), weight("wang2017")) == (0.8, 1)


def test_table_agrees_with_the_client_s_evaluation_of_the_written_boxes(compared: Result, workplace: Path) -> None:
    written = rows(workplace / "out" / "boxes.csv")
    judged = {(row["image_id"], row["disease"]) for row in written}
    truth = [row for row in read_boxes_csv(workplace / "phantoms" / "BBox_List_2017.csv") if row[:2] in judged]
    columns = np.array([(x, y, x + w, y + h) for *_, x, y, w, h in truth]).T * SIDE / 1024
    keys = {"image_id": [row[0] for row in truth], "disease": [row[1] for row in truth]}
    ground_truth = keys | dict(zip(("x0", "y0", "x1", "y1"), columns, strict=True))
    accuracy = rows(workplace / "out" / "table.csv")
    for method in all_methods():
        own = [row for row in written if row["method"] == method]
        boxes = {key: [row[key] for row in own] for key in ("image_id", "disease")}
        boxes |= {edge: [int(row[edge]) for row in own] for edge in ("x0", "y0", "x1", "y1")}
        expected = evaluate_boxes(boxes, ground_truth, resamples=10)
        for disease, values in zip(expected.diseases, expected.accuracy, strict=True):
            found = [float(row["accuracy"]) for row in accuracy if (row["method"], row["disease"]) == (method, disease)]
            np.testing.assert_allclose(found, values, atol=1e-4)


def test_what_is_written(compared: Result, workplace: Path) -> None:
    folder = workplace / "out"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["configuration"]["methods"] == list(all_methods())
    assert manifest["configuration"]["input_size"] == SIDE
    assert manifest["boxes"][MEAN] == len(rows(folder / "boxes.csv")) / len(all_methods())
    latex = (folder / "table.tex").read_text()
    assert latex.count("\\\\\n") == 1 + len(THRESHOLDS) * len(manifest["boxes"])
    assert "(0.76)" in latex  # the paper's mean for CrossEAI at T = 0.1
    assert (folder / "table.md").read_text().count("\n## ") == len(manifest["boxes"]) + 5
    assert "</svg>" in (folder / "accuracy.svg").read_text()
    assert (folder / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_call_trains_nothing_and_says_the_same(compared: Result, workplace: Path) -> None:
    again = invoke(workplace, "--methods", "wang2017,crosseai")
    assert again.exit_code == 0, again.output
    assert "epoch" not in again.stderr
    first, second = (
        next(line for line in result.stdout.splitlines() if line.startswith("  Baseline "))
        for result in (compared, again)
    )
    assert first.split() == second.split()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "scalp,yolo"), "found yolo"),
        (("--gradient", "guid"), "found 'gradcam++' and 'guid'"),
        (("--methods", "wang2017", "--learning-rate", "0.5"), "Changed: learning_rate 0.01 -> 0.5"),
        (("--boxes", "phantoms/Data_Entry_2017.csv"), "expected file, disease, x, y, w, h"),
        (("--input-size", "0"), "expected input_size >= 1"),
    ],
)
def test_says_what_is_wrong(compared: Result, workplace: Path, arguments: tuple[str, ...], message: str) -> None:
    result = invoke(workplace, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
