"""What a run leaves: tables that can be read back, figures of the right numbers, and an honest model card."""

import csv
import json
import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import precision_recall_curve, roc_curve

from crosseai.contract import RESEARCH_NOTICE, UNCERTAIN, Architecture, ModelSpec
from crosseai.training import plots
from crosseai.training.config import FitConfig
from crosseai.training.dataset import LabelledRadiographs
from crosseai.training.feed import TrainingData
from crosseai.training.judge import judge
from crosseai.training.progress import Epoch
from crosseai.training.report import Outcome, environment, write_report
from crosseai.training.split import Split

CLASSES = ("Mass", "Nodule", "Hernia")


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    """90 images of 30 patients; nobody has a hernia, and what one image shows is uncertain."""
    random = np.random.default_rng(0)
    labels = (random.random((90, 3)) < [0.3, 0.5, 0]).astype(np.uint8)
    labels[61, 0] = UNCERTAIN
    radiographs = LabelledRadiographs(
        tuple(f"{i}.png" for i in range(90)),
        tuple(Path(f"{i}.png") for i in range(90)),
        tuple(str(i // 3) for i in range(90)),
        labels,
        CLASSES,
    )
    split = Split(np.arange(45), np.arange(45, 60), np.arange(60, 90))
    spec = ModelSpec(
        classes=CLASSES,
        input_size=16,
        calibration_intercepts=(-1.0, 0.5, 0.0),
        operating_points=(0.3, 0.6, 0.5),
        architecture=Architecture("resnet14", width=4),
    )
    logits = {
        part: random.normal(0, 1, (len(rows), 3)).astype(np.float32)
        for part, rows in (("validation", split.validation), ("test", split.test))
    }
    test = judge(spec, labels[split.test], logits["test"], [radiographs.patients[i] for i in split.test])
    images = random.integers(0, 256, (90, 1, 16, 16), dtype=np.uint8)
    return Outcome(
        FitConfig(architecture="resnet14", width=4),
        TrainingData(radiographs, images, split),
        spec,
        Epoch(3, 0.5, {"Mass": 0.75, "Nodule": 0.25, "Hernia": math.nan}, 0.4, 0.1),
        logits,
        test,
        {"split_sha256": "abc|def"},
    )


@pytest.fixture(scope="module")
def folder(outcome: Outcome, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    written = write_report(outcome, folder, "ward", {7: "7.png: truncated"})
    assert sorted(written) == sorted(folder.iterdir())
    return folder


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_predictions_are_calibrated_probabilities(outcome: Outcome, folder: Path) -> None:
    found = rows(folder / "predictions.csv")
    assert [row["image_id"] for row in found] == [f"{i}.png" for i in range(45, 90)]
    assert [row["part"] for row in found] == 15 * ["validation"] + 30 * ["test"]
    p = [[float(row[f"p_{name}"]) for name in CLASSES] for row in found[15:]]
    np.testing.assert_allclose(p, outcome.spec.probabilities(outcome.logits["test"]), atol=1e-6)


def test_every_image_has_its_part_and_every_corrupted_one_its_message(folder: Path) -> None:
    parts = {row["image_id"]: row["part"] for row in rows(folder / "split.csv")}
    assert (parts["0.png"], parts["50.png"], parts["89.png"], len(parts)) == ("train", "validation", "test", 90)
    assert rows(folder / "corrupted.csv") == [{"image_id": "7.png", "message": "7.png: truncated"}]


def test_metrics_are_json_and_what_is_not_defined_is_null(outcome: Outcome, folder: Path) -> None:
    found: Mapping[str, float | None] = json.loads((folder / "metrics.json").read_text())
    assert (found["best_epoch"], found["validation_auc"], found["train_contrastive"]) == (3, 0.5, 0.1)
    assert found["test_auc_Hernia"] is None
    mass = outcome.test.diseases["Mass"]
    assert found["test_auc_Mass"] == mass.auc.value
    assert found["test_sensitivity_Mass_low"] == mass.sensitivity.low
    assert found["test_auc_high"] == outcome.test.mean_auc.high


def test_pictures_can_be_read(folder: Path) -> None:
    pictures = [*(folder / "plots").iterdir(), *(folder / "examples").iterdir()]
    assert len(pictures) == 4 + 3
    for picture in pictures:
        image = cv2.imread(str(picture))
        assert image is not None
        assert image.std() > 5


def test_the_model_card_tells_figures_limits_and_origin(outcome: Outcome, folder: Path) -> None:
    card = (folder / "model_card.md").read_text()
    assert RESEARCH_NOTICE in card
    assert f"| Mass | {outcome.test.diseases['Mass'].positives} | {outcome.test.diseases['Mass'].auc} | 0.300 |" in card
    assert "| Hernia | 0 | - | 0.500 | - | - | - |  |" in card
    assert "| test | 30 | 10 |" in card
    assert f"Mean AUC: {outcome.test.mean_auc}." in card
    assert "drawn at random" in card
    assert r"| split_sha256 | abc\|def |" in card
    assert "| architecture | resnet14 |" in card
    assert "| data set | ward |" in card
    assert "## Limits" in card


def test_the_environment_names_every_distribution() -> None:
    lines = environment().splitlines()
    assert f"numpy=={version('numpy')}" in lines
    assert f"torch=={version('torch')}" in lines
    assert lines[0].startswith("# Python 3.")


@given(
    st.integers(2, 30).flatmap(
        lambda n: st.tuples(
            hnp.arrays(np.bool_, n), hnp.arrays(np.float32, n, elements=st.sampled_from([0.1, 0.25, 0.5, 0.7, 0.9]))
        )
    )
)
def test_counts_give_the_curves_of_scikit_learn(case: tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]) -> None:
    positive, scores = case
    if positive.all() or not positive.any():
        return
    true, false = plots.counts_at_thresholds(positive, scores)
    expected_false, expected_true, _ = roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(true / true[-1], expected_true)
    np.testing.assert_allclose(false / false[-1], expected_false)
    precision, recall, _ = precision_recall_curve(positive, scores)
    np.testing.assert_allclose(true[1:] / (true + false)[1:], precision[-2::-1])
    np.testing.assert_allclose(true[1:] / true[-1], recall[-2::-1])


def test_confusion_counts(outcome: Outcome) -> None:
    labels, p = outcome.data.radiographs.labels[60:], outcome.spec.probabilities(outcome.logits["test"])
    axis = plots.confusion_matrices(outcome.spec, labels, p).axes[0]
    known = labels[:, 0] != UNCERTAIN
    positive, called = labels[known, 0] == 1, p[known, 0] >= 0.3
    expected = [positive & called, positive & ~called, ~positive & called, ~positive & ~called]
    assert [int(text.get_text()) for text in axis.texts] == [cell.sum() for cell in expected]
    assert axis.get_title() == f"Mass, {positive.sum()} of {known.sum()}"


def test_a_perfectly_calibrated_classifier_lies_on_the_diagonal() -> None:
    random = np.random.default_rng(1)
    p = random.random((40_000, 1)).astype(np.float32)
    labels = (random.random((40_000, 1)) < p).astype(np.uint8)
    axis = plots.calibration_curves(ModelSpec(classes=("Mass",)), labels, p).axes[0]
    x, y = axis.lines[1].get_data()
    assert len(x) == 10
    np.testing.assert_allclose(np.asarray(y), np.asarray(x), atol=0.03)


def test_examples_are_the_clearest_of_their_kind(outcome: Outcome) -> None:
    labels, p = outcome.data.radiographs.labels[60:], outcome.spec.probabilities(outcome.logits["test"])
    axes = plots.example_panel(outcome.spec, "Mass", outcome.data.images, np.arange(60, 90), labels, p).axes
    found = sorted(p[(labels[:, 0] == 1) & (p[:, 0] >= 0.3), 0], reverse=True)[:4]
    shown = [axis.get_title(loc="left") for axis in axes[: len(found)]]
    assert shown == [f"true positive: {value:.2f}" for value in found]
    none = plots.example_panel(outcome.spec, "Hernia", outcome.data.images, np.arange(60, 90), labels, p).axes
    assert none[0].get_title(loc="left") == "true positive: none"
