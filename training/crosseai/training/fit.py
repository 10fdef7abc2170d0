"""From a data set to a trained, evaluated and recorded classifier; and the evaluation of one."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from crosseai.contract import InputError, ModelSpec, reason
from crosseai.training.cache import CACHE_FOLDER, Progress, decoded_images
from crosseai.training.calibration import calibrate
from crosseai.training.checkpoint import WeightsReport, load_checkpoint, load_weights, save_checkpoint
from crosseai.training.config import FitConfig
from crosseai.training.dataset import LabelledRadiographs, read_labelled_radiographs, warn_of_empty_classes
from crosseai.training.evaluation import predict_logits
from crosseai.training.feed import TrainingData
from crosseai.training.judge import Evaluation, judge
from crosseai.training.layouts import Layout
from crosseai.training.loop import LOST_BATCH_FILENAME, train
from crosseai.training.model import build_model, feature_shape
from crosseai.training.processes import joined_processes
from crosseai.training.progress import Epoch
from crosseai.training.report import Outcome, epoch_metrics, evaluation_metrics, write_report
from crosseai.training.split import PARTS, Part, parts_of, split_by_patient
from crosseai.training.tracking import CHECKPOINT_ARTIFACT, RecordedData, code_version, training_run

TRAINING_FILENAME = "training.json"
"""Beside the weights: the configuration they were trained with, and the hash of the split."""

JUDGED_PARTS: tuple[Part, ...] = ("validation", "test")

RUN_FILENAME = "run"
"""In the output folder: the run that is recorded, runs:/ID."""


@dataclass(frozen=True, slots=True)
class FitReport:
    """A finished training run.

    Parameters
    ----------
    run_uri
        ``runs:/ID``.
    best_epoch
        The epoch whose weights were kept.
    test
        The model on the test part.
    """

    run_uri: str
    best_epoch: Epoch
    test: Evaluation


def fit(
    folder: Path,
    config: FitConfig,
    *,
    network: tuple[torch.nn.Module, ModelSpec] | None = None,
    layout: Layout | None = None,
    weights: Path | None = None,
    cache: Path | None = None,
    output: Path | None = None,
    resume: bool = False,
    on_weights: Callable[[WeightsReport], None] = lambda _report: None,
    on_decoded: Progress = lambda _done, _all: None,
    on_epoch: Callable[[Epoch], None] = lambda _epoch: None,
) -> FitReport | None:
    """Train a classifier on a data set and record the run in MLflow.

    Under ``torchrun`` every process calls this; the main one alone records, writes and reports.

    Parameters
    ----------
    folder
        The data set.
    config
        What to train, and how.
    network
        A classifier of one's own and its spec, instead of the configuration's: any module from normalised images
        ``[N, spec.channels, S, S]`` to logits. Its checkpoint holds weights and spec, but not its code.
    layout
        Of the data set; None recognises it by its files.
    weights
        State dict to start from.
    cache
        Folder for decoded images; inside the data set by default.
    output
        Folder that gets what the run's artifacts hold: ``checkpoint/`` and what :func:`write_report` writes, and the
        state to resume from.
    resume
        Go on with the run that was ended in ``output``.
    on_weights
        Called with what the given weights matched.
    on_decoded
        Called after every image that is decoded into the cache by the main process.
    on_epoch
        Called after every epoch.

    Returns
    -------
    FitReport or None
        None in every process but the main one.

    Raises
    ------
    InputError
        If the data set, the weights or the configuration cannot be used, or there is nothing to resume.
    OutputError
        If results cannot be written.
    """
    with joined_processes() as processes, _results_folder(output) as results:
        radiographs = read_labelled_radiographs(folder, network and network[1].classes, layout=layout)
        split = split_by_patient(radiographs.patients, config.seed, radiographs.held_out)
        model, spec = network or _new_model(config, radiographs.classes)
        parameters = asdict(config)
        if weights is not None:
            matched = load_weights(model, weights)
            counts = {"weights_loaded": len(matched.loaded), "weights_fresh": len(matched.fresh)}
            parameters |= {"weights": weights.name, **counts}
            on_weights(matched)
        shown = on_decoded if processes.is_main else lambda _done, _all: None
        images = decoded_images(radiographs, spec, cache or folder / CACHE_FOLDER, shown)
        split = split.without(images.corrupted)
        data = TrainingData(radiographs, images, split)
        if not processes.is_main:
            train(model, spec, data, config, results, resume=resume, processes=processes)
            return None
        for part in PARTS:
            warn_of_empty_classes(radiographs, split.rows(part), part)
        digest = split.digest(radiographs.image_ids)
        tags = {"split_sha256": digest, **code_version()}
        run_id = _run_to_resume(results) if resume else None
        with training_run(parameters, tags, _recorded(folder, data), run_id) as run:
            (results / RUN_FILENAME).write_text(f"{run.uri}\n", encoding="utf-8")

            def record(epoch: Epoch) -> None:
                run.log_metrics(epoch_metrics(epoch), epoch.number)
                on_epoch(epoch)

            try:
                best = train(model, spec, data, config, results, resume=resume, processes=processes, on_epoch=record)
            except InputError:
                run.log_artifacts(results.glob(LOST_BATCH_FILENAME))
                raise
            outcome = _conclude(model, spec, data, config, best, results / CHECKPOINT_ARTIFACT, tags)
            run.log_metrics({"best_epoch": best.number, **evaluation_metrics("test", outcome.test)}, best.number)
            report = write_report(outcome, results, folder.resolve().name, images.corrupted)
            run.log_artifacts([results / CHECKPOINT_ARTIFACT, *report])
            return FitReport(run.uri, best, outcome.test)


def evaluate(
    checkpoint: Path,
    folder: Path,
    *,
    layout: Layout | None = None,
    part: Part | None = "test",
    cache: Path | None = None,
    on_decoded: Progress = lambda _done, _all: None,
) -> Evaluation:
    """Judge a trained model on a data set.

    Parameters
    ----------
    checkpoint
        Folder of the model; its ``training.json`` says with which seed patients were divided.
    folder
        Data set.
    layout
        Of the data set; None recognises it by its files.
    part
        Which patients to evaluate; None takes all, which is right only for data that the model never saw.
    on_decoded
        Called after every image that is decoded into the cache.

    Raises
    ------
    ContractError
        If the checkpoint cannot be loaded.
    InputError
        If the data set cannot be read, no patient of it is in that part, or the seed is unknown.
    """
    model, spec = load_checkpoint(checkpoint)
    radiographs = read_labelled_radiographs(folder, spec.classes, layout=layout)
    images = decoded_images(radiographs, spec, cache or folder / CACHE_FOLDER, on_decoded)
    chosen = np.setdiff1d(np.arange(len(radiographs)), list(images.corrupted))
    if part is not None:
        chosen = chosen[_parts_in_training(checkpoint, radiographs)[chosen] == part]
    if not len(chosen):
        raise InputError(f"data set {folder}: expected patients of the {part} part, found none")
    warn_of_empty_classes(radiographs, chosen, part or "whole")
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    return _judge(spec, radiographs, chosen, predict_logits(model, images, spec, rows=chosen))


def _new_model(config: FitConfig, classes: tuple[str, ...]) -> tuple[torch.nn.Module, ModelSpec]:
    """Fresh weights that depend on the seed alone, and the spec that goes with them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build_model(
            config.architecture,
            triplet_attention=config.triplet_attention,
            classes=len(classes),
            width=config.width,
        )
    spec = ModelSpec(
        classes=classes,
        input_size=config.input_size,
        layer=model.explained_layer,
        feature_shape=feature_shape(model, model.explained_layer, 1, config.input_size),
        architecture=config.network,
    )
    return model, spec


def _conclude(
    model: torch.nn.Module,
    spec: ModelSpec,
    data: TrainingData,
    config: FitConfig,
    best: Epoch,
    checkpoint: Path,
    tags: Mapping[str, str],
) -> Outcome:
    """Calibrate a trained model on the validation part, judge it on the test part, and save it."""
    logits = {part: predict_logits(model, data.images, spec, rows=data.split.rows(part)) for part in JUDGED_PARTS}
    validation = data.split.validation
    spec = calibrate(spec, data.radiographs.labels[validation], logits["validation"], config.sensitivity)
    spec = save_checkpoint(model, spec, checkpoint)
    official = data.radiographs.held_out is not None
    training = json.dumps({**asdict(config), **tags, "official_split": official}, indent=2)
    (checkpoint / TRAINING_FILENAME).write_text(f"{training}\n", encoding="utf-8")
    test = _judge(spec, data.radiographs, data.split.test, logits["test"])
    return Outcome(config, data, spec, best, logits, test, tags)


def _judge(
    spec: ModelSpec, radiographs: LabelledRadiographs, rows: npt.NDArray[np.int64], logits: npt.NDArray[np.float32]
) -> Evaluation:
    return judge(spec, radiographs.labels[rows], logits, [radiographs.patients[row] for row in rows])


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


def _run_to_resume(output: Path) -> str:
    try:
        return (output / RUN_FILENAME).read_text(encoding="utf-8").strip().removeprefix("runs:/")
    except OSError as error:
        raise InputError(f"output {output}: expected a run to resume: {reason(error)}") from error


def _parts_in_training(checkpoint: Path, radiographs: LabelledRadiographs) -> npt.NDArray[np.str_]:
    """The part of each image, as the model's training divided its patients."""
    file = checkpoint / TRAINING_FILENAME
    try:
        training = json.loads(file.read_text(encoding="utf-8"))
        seed, official = int(training["seed"]), bool(training["official_split"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file}: expected the seed that patients were divided with ({error!r}); "
            "without it only a data set that the model never saw can be evaluated, as a whole"
        ) from error
    if official and radiographs.held_out is None:
        raise InputError(f"{file}: the model was trained with an official split; expected its lists beside the listing")
    return parts_of(radiographs.patients, seed, radiographs.held_out if official else None)


def _recorded(folder: Path, data: TrainingData) -> list[RecordedData]:
    """The three parts, as the run records them."""
    records = []
    for part in PARTS:
        rows, radiographs = data.split.rows(part), data.radiographs
        profile = {
            "images": len(rows),
            "patients": len({radiographs.patients[row] for row in rows}),
            "positives": dict(zip(radiographs.classes, (radiographs.labels[rows] == 1).sum(0).tolist(), strict=True)),
        }
        names = "\n".join(sorted(radiographs.image_ids[row] for row in rows))
        digest = hashlib.sha256(names.encode()).hexdigest()
        use = "training" if part == "train" else part
        records.append(RecordedData(folder, use, digest, data.images.shape[1:], len(radiographs.classes), profile))
    return records
