"""Training runs in MLflow. The only module of the training package that knows MLflow.

``MLFLOW_TRACKING_URI`` says where runs are kept; without it that is ``mlflow.db`` in the working folder. With a
SQLite file, artifacts lie in ``mlartifacts/`` beside it; with a server, where the server keeps them.
"""

import json
import logging
import math
import os
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crosseai.contract import SPEC_FILENAME, InputError, mlflow_environment, tracking_uri

os.environ.update(mlflow_environment())

import numpy as np
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.data.schema import TensorDatasetSchema
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.types import Schema, TensorSpec

logging.getLogger(SystemMetricsMonitor.__module__).setLevel(logging.WARNING)  # it announces start and end

_logger = logging.getLogger(__name__)

EXPERIMENT = "crosseai"
CHECKPOINT_ARTIFACT = "checkpoint"


def code_version() -> dict[str, str]:
    """Commit of this source code, and whether it was changed since, as tags; empty outside a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # an installed copy is no checkout
        dirty = bool(git("status", "--short", "--untracked-files=no"))
        return {"mlflow.source.git.commit": git("rev-parse", "HEAD"), "git.dirty": str(dirty)}
    except (OSError, subprocess.CalledProcessError):
        return {}


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A run in progress.

    Parameters
    ----------
    run_id
        MLflow's id of the run.
    client
        Where it is recorded.
    """

    run_id: str
    client: MlflowClient

    @property
    def uri(self) -> str:
        """``runs:/ID``, which the exporter takes."""
        return f"runs:/{self.run_id}"

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record metrics; those that are NaN (an AUC of an absent disease) are left out."""
        now = time.time_ns() // 1_000_000
        logged = [Metric(name, value, now, step) for name, value in metrics.items() if not math.isnan(value)]
        with _mlflow_errors(f"metrics of {self.uri}"):
            self.client.log_batch(self.run_id, metrics=logged)

    def log_artifacts(self, paths: Iterable[Path]) -> None:
        """Keep files and folders under their own names."""
        with _mlflow_errors(f"artifacts of {self.uri}"):
            for path in paths:
                self.client.log_artifact(self.run_id, str(path))


@dataclass(frozen=True, slots=True)
class RecordedData:
    """Images that a run used.

    Parameters
    ----------
    folder
        The data set.
    use
        What for: ``training``, ``validation`` or ``test``.
    digest
        Hash of what images they are.
    image_shape
        ``(1, S, S)`` uint8, as the network is fed.
    classes
        Number of labels of an image.
    profile
        Counts that describe them.
    """

    folder: Path
    use: str
    digest: str
    image_shape: tuple[int, ...]
    classes: int
    profile: Mapping[str, Any]

    def as_input(self) -> DatasetInput:
        """As MLflow records it."""
        folder, uint8 = self.folder.resolve(), np.dtype(np.uint8)
        images, labels = (Schema([TensorSpec(uint8, (-1, *shape))]) for shape in (self.image_shape, (self.classes,)))
        dataset = Dataset(
            f"{folder.name} {self.use}",
            self.digest[:36],  # as much as MLflow keeps
            "local",
            json.dumps({"uri": str(folder)}),
            json.dumps(TensorDatasetSchema(images, labels).to_dict()),
            json.dumps(self.profile),
        )
        return DatasetInput(dataset, [InputTag("mlflow.data.context", self.use)])


@contextmanager
def training_run(
    parameters: Mapping[str, Any],
    tags: Mapping[str, str],
    data: Iterable[RecordedData] = (),
    resumed: str | None = None,
) -> Iterator[TrainingRun]:
    """Record a training run in the experiment ``crosseai``; it ends as finished, failed or killed.

    Load of processor, memory, disk, network and GPUs is recorded beside the metrics, every ten seconds or as
    MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL says.

    Parameters
    ----------
    parameters
        The configuration.
    tags
        Further facts.
    data
        What it is trained and tested on.
    resumed
        Id of a run that ended too early and goes on: it keeps the record that it has.

    Raises
    ------
    InputError
        If MLflow cannot be reached or refuses the record.
    """
    with _mlflow_errors("training run"):
        client = MlflowClient(tracking_uri())
        run_id = resumed or str(client.create_run(_experiment_id(client)).info.run_id)
        client.update_run(run_id, "RUNNING")
        client.log_batch(
            run_id,
            params=[Param(name, str(value)) for name, value in parameters.items()],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )
        client.log_inputs(run_id, [used.as_input() for used in data])
        load: Any = SystemMetricsMonitor(  # type: ignore[no-untyped-call]
            run_id, resume_logging=resumed is not None, tracking_uri=tracking_uri()
        )
    try:
        with ExitStack() as recording:
            load.start()
            recording.callback(load.finish)
            yield TrainingRun(run_id, client)
    except BaseException as error:
        try:
            client.set_terminated(run_id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        except (MlflowException, OSError):  # what ended the run matters more
            _logger.warning("runs:/%s: MLflow does not answer; its record stays that of a run in progress", run_id)
        raise
    with _mlflow_errors(f"end of runs:/{run_id}"):
        client.set_terminated(run_id, "FINISHED")


def resolve_checkpoint(uri: str) -> Path:
    """Folder of a trained model's checkpoint; artifacts of a remote server are fetched into a temporary folder.

    Parameters
    ----------
    uri
        A folder, ``runs:/ID``, ``models:/NAME/VERSION`` or ``models:/NAME@ALIAS``; a registered version leads to the
        run that it was exported from.

    Raises
    ------
    InputError
        If there is no such run, version or folder, or it holds no checkpoint.
    """
    if not re.match(r"(runs|models):/", uri):
        if not (Path(uri) / SPEC_FILENAME).is_file():
            raise InputError(f"model {uri}: expected a checkpoint folder with {SPEC_FILENAME}, runs:/ID or models:/...")
        return Path(uri)
    with _mlflow_errors(f"checkpoint of {uri}"):
        artifact = f"runs:/{_run_id(MlflowClient(tracking_uri()), uri)}/{CHECKPOINT_ARTIFACT}"
        return Path(download_artifacts(artifact_uri=artifact, tracking_uri=tracking_uri()))


def resolve_run(uri: str) -> str:
    """Id of the run that a model comes from; a checkpoint folder gets a run of its own, which keeps a copy of it.

    Parameters
    ----------
    uri
        As for :func:`resolve_checkpoint`.

    Raises
    ------
    InputError
        If there is no such run or version.
    """
    client = MlflowClient(tracking_uri())
    with _mlflow_errors(f"run of {uri}"):
        if re.match(r"(runs|models):/", uri):
            return _run_id(client, uri)
        run_id = str(client.create_run(_experiment_id(client), run_name="imported").info.run_id)
        client.log_artifacts(run_id, uri, CHECKPOINT_ARTIFACT)
        client.set_terminated(run_id)
        return run_id


@contextmanager
def _mlflow_errors(subject: str) -> Iterator[None]:
    try:
        yield
    except (MlflowException, OSError) as error:
        raise InputError(f"{subject}: MLflow at {tracking_uri()} answers: {error}") from error


def _run_id(client: MlflowClient, uri: str) -> str:
    if match := re.fullmatch(r"runs:/([0-9a-f]+)(/checkpoint)?/?", uri):
        return match[1]
    if match := re.fullmatch(r"models:/([^/@]+)/(\d+)", uri):
        version = client.get_model_version(match[1], match[2])
    elif match := re.fullmatch(r"models:/([^/@]+)@(.+)", uri):
        version = client.get_model_version_by_alias(match[1], match[2])
    else:
        raise InputError(f"model {uri}: expected runs:/ID, models:/NAME/VERSION or models:/NAME@ALIAS")
    if not version.run_id:
        raise InputError(f"model {uri}: the registered version does not name the run it was exported from")
    return str(version.run_id)


def _experiment_id(client: MlflowClient) -> str:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is not None:
        return str(experiment.experiment_id)
    database = tracking_uri().removeprefix("sqlite:///")
    beside = None if database == tracking_uri() else (Path(database).resolve().parent / "mlartifacts").as_uri()
    return str(client.create_experiment(EXPERIMENT, artifact_location=beside))
