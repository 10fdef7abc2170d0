"""What trainer, exporter, server and client agree on about the MLflow store that lies between them."""

import os
from pathlib import Path

ONNX_SHA256_TAG = "onnx_sha256"
"""Tag of a registered version: SHA-256 of its ``model.onnx``."""

CHAMPION = "champion"
"""Alias of the version that clients shall use, and the parameter by which the server's configuration names it."""

PREVIOUS = "previous"
"""Alias of the version that was champion before: where a rollback leads."""

CANDIDATE = "candidate"
"""Alias of the version that servers load beside the champion while its promotion is under way."""

GOLDEN_FILENAME = "golden.npz"
"""File of a registered version: a few synthetic images and how PyTorch explains them."""

GOLDEN_SHA256_TAG = "golden_sha256"
"""Tag of a registered version: SHA-256 of its ``golden.npz``."""

PARITY_TAG = "parity"
"""Tag of a registered version: JSON, each output's ``error`` against PyTorch and the greatest ``accepted`` one."""

DEPLOYMENT_ERROR_TAG = "deployment_error"
"""A registered version has this tag, and the server's name after it, for each server that could not load it: why."""

PLAN_SHA256_TAG = "plan_sha256"
"""A registered version has this tag, and a target's name after it, for each TensorRT plan: the plan's SHA-256.

The plan is its file ``plans/TARGET/model.plan``; a target is a kind of server, such as ``h200-trt11``.
"""

PLANS_FOLDER = "plans"
"""Folder of a registered version with its TensorRT plans."""


def tracking_uri() -> str:
    """Where runs and models are kept: ``MLFLOW_TRACKING_URI``, or ``mlflow.db`` in the working folder.

    The path is absolute: MLflow keeps its connections by this name, and a process may change its folder.
    """
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').absolute()}"


def mlflow_environment() -> dict[str, str]:
    """How MLflow shall behave, unless the environment says otherwise: for ``os.environ``, before it is imported."""
    ours = {
        "MLFLOW_DISABLE_TELEMETRY": "true",  # nothing leaves this machine
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # its bars only get in the way
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # 7 take minutes when nobody answers
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for results
    }
    return {name: os.environ.get(name, value) for name, value in ours.items()}
