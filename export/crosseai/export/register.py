"""Exported graphs in the MLflow model registry. The only module of the export package that knows MLflow."""

import hashlib
import json
import os
import tempfile
from importlib.metadata import version
from pathlib import Path

from crosseai import contract
from crosseai.contract import (
    GOLDEN_FILENAME,
    GOLDEN_SHA256_TAG,
    ONNX_SHA256_TAG,
    PARITY_TAG,
    InputError,
    ModelSpec,
    mlflow_environment,
    tracking_uri,
)

os.environ.update(mlflow_environment())

import mlflow.onnx
import numpy as np
import onnx
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.types import Schema, TensorSpec

from crosseai.export.onnx_export import ExportReport
from crosseai.training.tracking import resolve_run


def register(report: ExportReport, uri: str) -> int:
    """Register an exported graph as the next version of the model that its spec names.

    The version's folder has MLflow's ONNX flavour (``MLmodel``, signature, requirements), the very file that was
    exported, ``model_spec.json`` and ``golden.npz``. It belongs to the run that trained the model. Its tags have the
    checksums, and the parity that a promotion asks for.

    Parameters
    ----------
    report
        The export.
    uri
        Where the model came from: ``runs:/ID``, ``models:/NAME/VERSION`` or a checkpoint folder.

    Returns
    -------
    int
        The version.

    Raises
    ------
    InputError
        If there is no such run, or MLflow refuses.
    """
    client = MlflowClient(tracking_uri(), registry_uri=tracking_uri())
    run_id = resolve_run(uri)
    artifact = f"onnx-{report.sha256[:12]}"
    try:
        with tempfile.TemporaryDirectory(prefix="crosseai-register-") as scratch:
            folder = Path(scratch) / artifact
            _save(report, folder)
            tags = _tags(report, folder)
            client.log_artifacts(run_id, str(folder), artifact)
        source = f"{client.get_run(run_id).info.artifact_uri}/{artifact}"
        _ensure_registered_model(client, report.spec.name)
        created = client.create_model_version(report.spec.name, source, run_id=run_id, tags=tags)
    except MlflowException as error:
        raise InputError(f"registering {report.path}: MLflow at {tracking_uri()} answers: {error}") from error
    return int(created.version)


def _save(report: ExportReport, folder: Path) -> None:
    mlflow.onnx.save_model(
        onnx.load(report.path),
        folder,
        signature=_signature(report.spec),
        pip_requirements=[f"onnxruntime=={version('onnxruntime')}", f"numpy=={version('numpy')}"],
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
    )
    (folder / contract.MODEL_FILENAME).write_bytes(report.path.read_bytes())  # not as mlflow serialises it
    report.save(folder)


def _tags(report: ExportReport, folder: Path) -> dict[str, str]:
    parity = {p.output: {"error": p.error, "accepted": p.accepted} for p in report.parity}
    return {
        ONNX_SHA256_TAG: report.sha256,
        GOLDEN_SHA256_TAG: hashlib.sha256((folder / GOLDEN_FILENAME).read_bytes()).hexdigest(),
        PARITY_TAG: json.dumps(parity),
        "precision": report.spec.precision,
        "layer": report.spec.layer,
        "heatmap": report.spec.heatmap,
        "gradient": report.spec.gradient,
    }


def _signature(spec: ModelSpec) -> ModelSignature:
    inputs, outputs = (
        Schema(
            [
                TensorSpec(np.dtype(t.dtype), tuple(-1 if isinstance(d, str) else d for d in t.shape), t.name)
                for t in tensors
            ]
        )
        for tensors in (spec.inputs, spec.outputs)
    )
    return ModelSignature(inputs, outputs)


def _ensure_registered_model(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
