"""From a data set to a trained, evaluated and recorded classifier; and the evaluation of one."""

import csv
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crosseai.contract import CHESTXRAY8, InputError, ModelSpec
from crosseai.training.checkpoint import load_checkpoint, load_weights, save_checkpoint
from crosseai.training.dataset import CACHE_FOLDER, LabelledRadiographs, decoded_images, read_labelled_radiographs
from crosseai.training.evaluation import Images, Labels, auc_per_class, mean_auc, operating_points, predict_logits
from crosseai.training.loop import Epoch, FitConfig, train
from crosseai.training.model import build_model
from crosseai.training.split import PARTS, Part, Split, part_of, split_by_patient
from crosseai.training.tracking import CHECKPOINT_ARTIFACT, training_run

TRAINING_FILENAME = "training.json"
"""Beside the weights: the configuration they were trained with, and the hash of the split."""


@dataclass(frozen=True, slots=True)
class FitReport:
    """A finished training run.

    Parameters
    ----------
    run_uri
        ``runs:/ID``.
    best_epoch
        The epoch whose weights were kept.
    test_auc
        AUC of each disease on the test part.
    """

    run_uri: str
    best_epoch: Epoch
    test_auc: dict[str, float]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """AUC and number of positive images of each disease among ``images`` images."""

    images: int
    positives: dict[str, int]
    auc: dict[str, float]


def fit(
    folder: Path,
    config: FitConfig,
    *,
    weights: Path | None = None,
    cache: Path | None = None,
    output: Path | None = None,
    on_epoch: Callable[[Epoch], None] = lambda _epoch: None,
) -> FitReport:
    """Train a classifier on a data set in the NIH layout and record the run in MLflow.

    Parameters
    ----------
    folder
        The data set.
    config
        What to train, and how.
    weights
        State dict to start from.
    cache
        Folder for decoded images; inside the data set by default.
    output
        Folder that gets what the run's artifacts hold: ``checkpoint/``, ``metrics.json`` and ``split.csv``.
    on_epoch
        Called after every epoch.

    Raises
    ------
    InputError
        If the data set, the weights or the configuration cannot be used.
    """
    radiographs = read_labelled_radiographs(folder)
    split = split_by_patient(radiographs.patients, config.seed)
    model, spec = _new_model(config)
    parameters = {**_flat(config), "optimizer": "AdamW", "schedule": "one-cycle", "loss": "BCE"}
    if weights is not None:
        report = load_weights(model, weights)
        parameters |= {"weights": weights.name, "weights_loaded": len(report.loaded), "weights_fresh": report.fresh}
    images = decoded_images(radiographs, spec, cache or folder / CACHE_FOLDER)
    digest = split.digest(radiographs.image_ids)
    tags = {"split_sha256": digest}
    with (
        _results_folder(output) as results,
        training_run(parameters, tags, folder, digest, _profile(radiographs, split)) as run,
    ):

        def record(epoch: Epoch) -> None:
            run.log_metrics(_epoch_metrics(epoch), epoch.number)
            on_epoch(epoch)

        best = train(model, spec, images, radiographs.labels, split, config, record)
        spec, test_auc = _judge(model, spec, images, radiographs.labels, split)
        test_metrics = _auc_metrics("test", test_auc)
        run.log_metrics({**test_metrics, "best_epoch": best.number}, best.number)
        save_checkpoint(model, spec, results / CHECKPOINT_ARTIFACT)
        _write_json(results / CHECKPOINT_ARTIFACT / TRAINING_FILENAME, {**asdict(config), **tags})
        _write_json(results / "metrics.json", {"best_epoch": best.number, **_epoch_metrics(best), **test_metrics})
        _write_split(results / "split.csv", radiographs, split)
        run.log_artifacts(results / name for name in (CHECKPOINT_ARTIFACT, "metrics.json", "split.csv"))
        return FitReport(run.uri, best, test_auc)


def evaluate(checkpoint: Path, folder: Path, *, part: Part | None = "test", cache: Path | None = None) -> Evaluation:
    """AUC of a trained model on a data set.

    Parameters
    ----------
    checkpoint
        Folder of the model; its ``training.json`` says with which seed patients were divided.
    folder
        Data set in the NIH layout.
    part
        Which patients to evaluate; None takes all, which is right only for data that the model never saw.

    Raises
    ------
    ContractError
        If the checkpoint cannot be loaded.
    InputError
        If the data set cannot be read, no patient of it is in that part, or the seed is unknown.
    """
    model, spec = load_checkpoint(checkpoint)
    radiographs = read_labelled_radiographs(folder, spec.classes)
    chosen = np.arange(len(radiographs))
    if part is not None:
        seed = _training_seed(checkpoint)
        chosen = np.flatnonzero([part_of(patient, seed) == part for patient in radiographs.patients])
    if not len(chosen):
        raise InputError(f"data set {folder}: expected patients of the {part} part, found none")
    images = decoded_images(radiographs, spec, cache or folder / CACHE_FOLDER)
    labels = radiographs.labels[chosen]
    auc = auc_per_class(labels, predict_logits(model, images[chosen], spec), spec.classes)
    return Evaluation(len(chosen), dict(zip(spec.classes, labels.sum(0).tolist(), strict=True)), auc)


def _new_model(config: FitConfig) -> tuple[torch.nn.Module, ModelSpec]:
    """Fresh weights that depend on the seed alone, and the spec that goes with them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build_model(
            config.architecture.name,
            triplet_attention=config.architecture.triplet_attention,
            classes=len(CHESTXRAY8),
            width=config.architecture.width,
        )
    spec = ModelSpec(
        input_size=config.input_size,
        feature_shape=model.feature_shape(config.input_size),
        architecture=config.architecture,
    )
    return model, spec


def _judge(
    model: torch.nn.Module, spec: ModelSpec, images: Images, labels: Labels, split: Split
) -> tuple[ModelSpec, dict[str, float]]:
    """The spec with operating points chosen on the validation part, and the AUCs of the test part."""
    points = operating_points(labels[split.validation], predict_logits(model, images[split.validation], spec))
    test_logits = predict_logits(model, images[split.test], spec)
    return replace(spec, operating_points=points), auc_per_class(labels[split.test], test_logits, spec.classes)


@contextmanager
def _results_folder(output: Path | None) -> Iterator[Path]:
    """The wanted folder, made before hours of training are spent, or one that is removed after its files are kept."""
    if output is None:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
        yield output
    except OSError as error:
        raise InputError(f"results: cannot write {error.filename or output}: {error.strerror}") from error


def _training_seed(checkpoint: Path) -> int:
    file = checkpoint / TRAINING_FILENAME
    try:
        return int(json.loads(file.read_text(encoding="utf-8"))["seed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file}: expected the seed that patients were divided with ({error!r}); "
            "without it only a data set that the model never saw can be evaluated, as a whole"
        ) from error


def _flat(config: FitConfig) -> dict[str, Any]:
    parameters = asdict(config)
    return {**parameters, **parameters.pop("architecture"), "architecture": config.architecture.name}


def _profile(radiographs: LabelledRadiographs, split: Split) -> dict[str, Any]:
    return {
        "images": {part: len(getattr(split, part)) for part in PARTS},
        "patients": len(set(radiographs.patients)),
        "positives": dict(zip(radiographs.classes, radiographs.labels.sum(0).tolist(), strict=True)),
    }


def _auc_metrics(part: Part, auc: Mapping[str, float]) -> dict[str, float]:
    return {f"{part}_auc": mean_auc(auc), **{f"{part}_auc_{disease}": value for disease, value in auc.items()}}


def _epoch_metrics(epoch: Epoch) -> dict[str, float]:
    return {"train_loss": epoch.loss, **_auc_metrics("validation", epoch.validation_auc)}


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_split(file: Path, radiographs: LabelledRadiographs, split: Split) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image_id", "part"])
        writer.writerows(
            (name, part) for part, names in split.image_ids(radiographs.image_ids).items() for name in names
        )
