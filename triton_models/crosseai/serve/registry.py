"""Models in the MLflow registry, and in plain folders. The only module here that imports mlflow."""

import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from crosseai.contract import (
    CHAMPION,
    DEPLOYMENT_ERROR_TAG,
    MODEL_FILENAME,
    ONNX_SHA256_TAG,
    ContractError,
    InputError,
    mlflow_environment,
    tracking_uri,
)
from crosseai.contract.registry import PLAN_SHA256_TAG, PLANS_FOLDER
from crosseai.serve.config import PLAN_FILENAME
from crosseai.serve.repository import sha256_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

REGISTERED_NAME = "crosseai"
MAX_TAG_LENGTH = 1000

_REFERENCE = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[^/@]+))")


@dataclass(frozen=True, slots=True)
class FetchedModel:
    """A model on this disk.

    Parameters
    ----------
    folder
        Folder with ``model.onnx`` and ``model_spec.json``.
    version
        Version in the registry; 1 for a model that is in none.
    tags
        Its tags there.
    """

    folder: Path
    version: int
    tags: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def fetch(reference: str | None) -> Iterator[FetchedModel]:
    """Get a model for the time of a ``with`` block.

    Parameters
    ----------
    reference
        ``models:/crosseai@ALIAS``, ``models:/crosseai/N``, or a folder. None stands for the version with the alias
        ``champion``, or for the newest one if none has it.

    Raises
    ------
    InputError
        If there is no such model.
    ContractError
        If the model's checksum is not the registered one.
    """
    if reference is not None and not reference.startswith("models:/"):
        folder = Path(reference)
        if not (folder / MODEL_FILENAME).is_file():
            raise InputError(
                f"expected models:/NAME/VERSION, models:/NAME@ALIAS or a folder with {MODEL_FILENAME}, "
                f"found {reference!r}"
            )
        yield FetchedModel(folder, version=1)
        return
    with tempfile.TemporaryDirectory(prefix="crosseai-fetch-") as download:
        yield _download(reference, Path(download))


def register_plan(reference: str, plan: Path, target: str) -> int:
    """Add a TensorRT plan of a registered version to its files.

    Parameters
    ----------
    reference
        ``models:/NAME/VERSION`` or ``models:/NAME@ALIAS``.
    plan
        What ``crosseai-export tensorrt`` has built of the version's ``model.onnx``, its record ``.json`` beside it.
    target
        Name of the kind of server that can load it.

    Returns
    -------
    int
        The version.

    Raises
    ------
    InputError
        If there is no such version or plan, or the name is none that MLflow takes.
    ContractError
        If the plan is not the recorded one or was built of another model, or the target has another plan already.
    """
    if not re.fullmatch(r"[\w.-]+", target):
        raise InputError(f"target: expected a name of letters, digits, '_', '.' and '-', found {target!r}")
    uri, client = _registry()
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with _registry_errors(reference, uri), tempfile.TemporaryDirectory(prefix="crosseai-plan-") as scratch:
        found = _named(client, reference)
        record = plan.with_name(f"{plan.name}.json")
        for file, name in ((plan, PLAN_FILENAME), (record, f"{PLAN_FILENAME}.json")):
            shutil.copyfile(file, Path(scratch) / name)
        tag, sha256 = f"{PLAN_SHA256_TAG}.{target}", sha256_of(plan)
        _check_plan(Path(scratch) / PLAN_FILENAME, found.tags.get(tag, sha256), found.tags.get(ONNX_SHA256_TAG, ""))
        source = client.get_model_version_download_uri(found.name, found.version)
        artifacts = get_artifact_repository(source, tracking_uri=uri)
        artifacts.log_artifacts(scratch, f"{PLANS_FOLDER}/{target}")  # type: ignore[no-untyped-call]
        client.set_model_version_tag(found.name, found.version, tag, sha256)
    return int(found.version)


def plan_of(fetched: FetchedModel, target: str) -> Path:
    """The TensorRT plan of a fetched version for a target.

    Raises
    ------
    ContractError
        If none is registered, or it is not the registered one, or was built of another model.
    """
    tag = f"{PLAN_SHA256_TAG}.{target}"
    if tag not in fetched.tags:
        raise ContractError(
            f"version {fetched.version}: expected a TensorRT plan for {target!r}, found none; build one on such "
            "a server and add it with `crosseai-serve register-plan`"
        )
    plan = fetched.folder / PLANS_FOLDER / target / PLAN_FILENAME
    _check_plan(plan, fetched.tags[tag], fetched.tags.get(ONNX_SHA256_TAG, ""))
    return plan


def _check_plan(plan: Path, sha256: str, onnx_sha256: str) -> None:
    """Compare a plan with its checksum, and with the record of its build."""
    try:
        record = json.loads(plan.with_name(f"{plan.name}.json").read_text(encoding="utf-8"))
        found = {"plan": sha256_of(plan), "record": record["sha256"], "ONNX": record["onnx_sha256"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ContractError(
            f"{plan}: expected a plan, and its record by `crosseai-export tensorrt`: {error!r}"
        ) from error
    expected = {"plan": sha256, "record": sha256, "ONNX": onnx_sha256}
    if found != expected:
        raise ContractError(f"{plan}: expected the SHA-256 {expected}, found {found}")


def aliased_versions() -> dict[str, int]:
    """Versions of the registered model that have an alias, by alias.

    Raises
    ------
    InputError
        If the registry cannot be read.
    """
    uri, client = _registry()
    with _registry_errors(REGISTERED_NAME, uri):
        return {alias: int(version) for alias, version in client.get_registered_model(REGISTERED_NAME).aliases.items()}


def report_deployment(version: int, server: str, problem: str | None) -> None:
    """Note on a version that a server could not load it and why, or that nothing is wrong with it there any more.

    Raises
    ------
    InputError
        If the registry refuses.
    """
    uri, client = _registry()
    tag = deployment_error_tag(server)
    with _registry_errors(f"{REGISTERED_NAME}/{version}", uri):
        if problem is not None:
            client.set_model_version_tag(REGISTERED_NAME, str(version), tag, problem[:MAX_TAG_LENGTH])
        elif tag in client.get_model_version(REGISTERED_NAME, str(version)).tags:
            client.delete_model_version_tag(REGISTERED_NAME, str(version), tag)


def deployment_error_tag(server: str) -> str:
    """Tag for a server, of characters that MLflow takes; many servers are ``localhost``, so it names this machine."""
    address = re.sub(r"[^\w.:-]", "_", server.rpartition("/")[2])
    return f"{DEPLOYMENT_ERROR_TAG}.{socket.gethostname()}/{address}"


def _registry() -> tuple[str, "MlflowClient"]:
    """Address of the registry, and a client to it."""
    os.environ.update(mlflow_environment())
    from mlflow import MlflowClient

    uri = tracking_uri()
    store = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not store.is_file():  # mlflow would make an empty one
        raise InputError(f"expected an MLflow store at {store.absolute()}, found nothing; set MLFLOW_TRACKING_URI")
    return uri, MlflowClient(uri, registry_uri=uri)


@contextmanager
def _registry_errors(what: str, uri: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        raise InputError(f"{what}: cannot be had from the registry {uri}: {error}") from error


def _download(reference: str | None, target: Path) -> FetchedModel:
    """Download a registered version, complete, and compare it with its checksum."""
    uri, client = _registry()
    from mlflow.artifacts import download_artifacts

    with _registry_errors(reference or REGISTERED_NAME, uri):
        found = _default(client) if reference is None else _named(client, reference)
        source = f"models:/{found.name}/{found.version}"
        folder = Path(download_artifacts(source, dst_path=str(target), tracking_uri=uri, registry_uri=uri))
    expected = found.tags.get(ONNX_SHA256_TAG)
    if expected is not None and sha256_of(folder / MODEL_FILENAME) != expected:
        raise ContractError(
            f"{source}: expected {MODEL_FILENAME} with the SHA-256 {expected} (tag {ONNX_SHA256_TAG!r}), "
            f"found {sha256_of(folder / MODEL_FILENAME)}"
        )
    return FetchedModel(folder, int(found.version), found.tags)


def _default(client: "MlflowClient") -> "ModelVersion":
    """Find the champion, or the newest version if none is."""
    registered = client.get_registered_model(REGISTERED_NAME)
    if CHAMPION in registered.aliases:
        return client.get_model_version_by_alias(REGISTERED_NAME, CHAMPION)
    versions = client.search_model_versions(f"name = '{REGISTERED_NAME}'")
    if not versions:
        raise InputError(f"expected a version of the registered model {REGISTERED_NAME!r}, found none")
    return max(versions, key=lambda version: int(version.version))


def _named(client: "MlflowClient", reference: str) -> "ModelVersion":
    """Find ``models:/NAME/VERSION`` or ``models:/NAME@ALIAS``."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise InputError(f"expected models:/NAME/VERSION or models:/NAME@ALIAS, found {reference!r}")
    name, version, alias = match.group("name", "version", "alias")
    return client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, version)
