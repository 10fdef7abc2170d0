"""What a training run leaves for its readers: tables, figures, examples and a model card."""

import csv
import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from crosseai.contract import ModelSpec
from crosseai.training import plots
from crosseai.training.config import FitConfig
from crosseai.training.evaluation import mean_auc
from crosseai.training.feed import TrainingData
from crosseai.training.judge import Evaluation
from crosseai.training.model_card import model_card
from crosseai.training.progress import Epoch
from crosseai.training.split import Part


@dataclass(frozen=True, slots=True)
class Outcome:
    """A trained classifier, the data that made it, and what it says of those that did not.

    Parameters
    ----------
    config, data
        What it was trained with.
    spec
        With calibration and operating points.
    best
        The epoch whose weights were kept.
    logits
        float32 ``[n, C]`` of the images of the validation and of the test part.
    test
        Its figures on the test part.
    provenance
        Hash of the split, and the version of the code.
    """

    config: FitConfig
    data: TrainingData
    spec: ModelSpec
    best: Epoch
    logits: Mapping[Part, npt.NDArray[np.float32]]
    test: Evaluation
    provenance: Mapping[str, str]


def write_report(outcome: Outcome, folder: Path, data_name: str, corrupted: Mapping[int, str]) -> list[Path]:
    """Write everything into a folder.

    ``metrics.json``; ``split.csv``, ``predictions.csv`` and ``corrupted.csv``, which name images; ``plots/`` of the
    test part (ROC, precision and recall, calibration, confusion at the operating point); ``examples/``, small pictures
    of right and wrong calls; ``model_card.md``; ``environment.txt``, the installed distributions.

    Parameters
    ----------
    data_name
        What the data set is called.
    corrupted
        Position in the listing of each file that could not be read, and why.

    Returns
    -------
    list of Path
        What was written.
    """
    data, spec = outcome.data, outcome.spec
    names, rows = data.radiographs.image_ids, data.split.test
    labels, probabilities = data.radiographs.labels[rows], spec.probabilities(outcome.logits["test"])
    parts = data.split.image_ids(names)
    metrics = {"best_epoch": outcome.best.number, **epoch_metrics(outcome.best)}
    _write_json(folder / "metrics.json", {**metrics, **evaluation_metrics("test", outcome.test)})
    _write_csv(folder / "split.csv", ("image_id", "part"), ((n, part) for part, ns in parts.items() for n in ns))
    _write_csv(folder / "corrupted.csv", ("image_id", "message"), ((names[i], why) for i, why in corrupted.items()))
    _write_predictions(folder / "predictions.csv", outcome)
    pictures = {
        "roc": plots.roc_curves,
        "precision_recall": plots.precision_recall_curves,
        "calibration": plots.calibration_curves,
        "confusion": plots.confusion_matrices,
    }
    for subfolder in ("plots", "examples"):
        (folder / subfolder).mkdir(exist_ok=True)
    for name, draw in pictures.items():
        draw(spec, labels, probabilities).savefig(folder / "plots" / f"{name}.png", dpi=120)
    for disease in spec.classes:
        panel = plots.example_panel(spec, disease, data.images, rows, labels, probabilities)
        panel.savefig(folder / "examples" / f"{disease}.png", dpi=100)
    provenance = {"data set": data_name, "weights_sha256": spec.weights_sha256, **outcome.provenance}
    card = model_card(spec, outcome.config, data.radiographs, data.split, outcome.test, provenance)
    (folder / "model_card.md").write_text(card, encoding="utf-8")
    (folder / "environment.txt").write_text(environment(), encoding="utf-8")
    written = ("metrics.json", "split.csv", "corrupted.csv", "predictions.csv", "plots", "examples", "model_card.md")
    return [folder / name for name in (*written, "environment.txt")]


def environment() -> str:
    """Installed distributions as a requirements file, under comments about the machine."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    lines = [
        f"# Python {platform.python_version()}, {platform.platform()}",
        f"# CUDA of torch: {torch.version.cuda}; GPUs: {', '.join(gpus) or 'none'}",
        *sorted({f"{found.metadata['Name']}=={found.version}" for found in distributions()}, key=str.lower),
    ]
    return "\n".join(lines) + "\n"


def epoch_metrics(epoch: Epoch) -> dict[str, float]:
    """What an epoch yielded under flat names."""
    return {
        "train_loss": epoch.loss,
        "train_cross_entropy": epoch.cross_entropy,
        "train_contrastive": epoch.contrastive,
        "validation_auc": mean_auc(epoch.validation_auc),
        **{f"validation_auc_{disease}": auc for disease, auc in epoch.validation_auc.items()},
    }


def evaluation_metrics(part: Part, evaluation: Evaluation) -> dict[str, float]:
    """Figures of an evaluation under flat names such as ``test_auc_Mass`` and ``test_auc_Mass_low``."""
    figures = {"auc": evaluation.mean_auc}
    for disease, judgement in evaluation.diseases.items():
        for name in ("auc", "sensitivity", "specificity", "brier"):
            figures[f"{name}_{disease}"] = getattr(judgement, name)
    return {
        f"{part}_{name}{suffix}": value
        for name, figure in figures.items()
        for suffix, value in (("", figure.value), ("_low", figure.low), ("_high", figure.high))
    }


def _write_predictions(file: Path, outcome: Outcome) -> None:
    """Calibrated probabilities of the validation and of the test part."""
    names, split = outcome.data.radiographs.image_ids, outcome.data.split
    _write_csv(
        file,
        ("image_id", "part", *(f"p_{name}" for name in outcome.spec.classes)),
        (
            (names[row], part, *(f"{p:.6f}" for p in probabilities))
            for part, logits in outcome.logits.items()
            for row, probabilities in zip(split.rows(part), outcome.spec.probabilities(logits), strict=True)
        ),
    )


def _write_json(file: Path, metrics: Mapping[str, float]) -> None:
    defined = {name: None if math.isnan(value) else value for name, value in metrics.items()}
    file.write_text(json.dumps(defined, indent=2) + "\n", encoding="utf-8")


def _write_csv(file: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([columns, *rows])
