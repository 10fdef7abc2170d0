"""The registered model in MLflow, as a promotion sees it."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crosseai.contract import (
    CHAMPION,
    DEPLOYMENT_ERROR_TAG,
    GOLDEN_FILENAME,
    GOLDEN_SHA256_TAG,
    MODEL_FILENAME,
    ONNX_SHA256_TAG,
    PARITY_TAG,
    PREVIOUS,
    ContractError,
    InputError,
    ModelSpec,
    mlflow_environment,
    tracking_uri,
)
from crosseai.contract.golden import Golden
from crosseai.contract.registry import PLAN_SHA256_TAG

Tensors = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Name, dtype and shape of tensors, -1 for a dynamic dimension."""


@dataclass(frozen=True, slots=True)
class Listed:
    """What the registry says about a version without fetching it.

    Parameters
    ----------
    version
        Its number.
    sha256
        SHA-256 of its ``model.onnx`` when it was registered, or empty.
    tags
        Its tags.
    metrics
        Metrics of the run that trained it.
    """

    version: int
    sha256: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]

    @property
    def served_sha256(self) -> set[str]:
        """What a server of this version may have loaded: the ONNX file, or a TensorRT plan of it."""
        return {self.sha256, *(value for tag, value in self.tags.items() if tag.startswith(f"{PLAN_SHA256_TAG}."))}

    @property
    def parity(self) -> Mapping[str, Mapping[str, float]]:
        """For each output its recorded ``error`` against PyTorch and the greatest ``accepted`` one; empty if none."""
        parity: dict[str, dict[str, float]] = json.loads(self.tags.get(PARITY_TAG, "{}"))
        return parity


@dataclass(frozen=True, slots=True)
class Fetched:
    """A version on this disk, its checksums verified.

    Parameters
    ----------
    listed
        What the registry says about it.
    spec
        Its model spec.
    golden
        Images and how PyTorch explains them, or None if it was registered without.
    signature
        Inputs and outputs of its MLflow signature, or None.
    """

    listed: Listed
    spec: ModelSpec
    golden: Golden | None
    signature: tuple[Tensors, Tensors] | None


class Registry:
    """One registered model.

    Parameters
    ----------
    name
        Its name.

    Raises
    ------
    InputError
        If there is no such store; here and in every method also if MLflow cannot do what is asked.
    """

    def __init__(self, name: str) -> None:
        os.environ.update(mlflow_environment())
        try:
            from mlflow import MlflowClient
        except ModuleNotFoundError as error:
            raise InputError("a promotion needs MLflow: pip install 'crosseai[promote]'") from error
        self.name = name
        self.uri = tracking_uri()
        store = Path(self.uri.removeprefix("sqlite:///"))
        if self.uri.startswith("sqlite:///") and not store.is_file():  # mlflow would make an empty one
            raise InputError(f"expected an MLflow store at {store.absolute()}, found nothing; set MLFLOW_TRACKING_URI")
        self._client: MlflowClient = MlflowClient(self.uri, registry_uri=self.uri)

    def aliases(self) -> dict[str, int]:
        """Versions by alias."""
        with self._errors(self.name):
            return {a: int(v) for a, v in self._client.get_registered_model(self.name).aliases.items()}

    def versions(self) -> list[Listed]:
        """All versions, the newest first."""
        with self._errors(self.name):
            numbers = [int(v.version) for v in self._client.search_model_versions(f"name = '{self.name}'")]
        return [self.listed(number) for number in sorted(numbers, reverse=True)]

    def listed(self, version: int) -> Listed:
        """What is known of a version."""
        with self._errors(f"{self.name}/{version}"):
            found = self._client.get_model_version(self.name, str(version))
            metrics = self._client.get_run(found.run_id).data.metrics if found.run_id else {}
        return Listed(version, found.tags.get(ONNX_SHA256_TAG, ""), found.tags, metrics)

    def fetch(self, version: int, folder: Path) -> Fetched:
        """Download a version, complete.

        Raises
        ------
        ContractError
            If a file has another checksum than the registered one, or there is none for the model.
        """
        listed, source = self.listed(version), f"models:/{self.name}/{version}"
        with self._errors(source):
            from mlflow.artifacts import download_artifacts

            content = Path(
                download_artifacts(source, dst_path=str(folder), tracking_uri=self.uri, registry_uri=self.uri)
            )
        _check_sha256(content / MODEL_FILENAME, listed.sha256, f"{source}, tag {ONNX_SHA256_TAG}")
        spec, golden = ModelSpec.load(content), None
        if GOLDEN_SHA256_TAG in listed.tags:
            _check_sha256(
                content / GOLDEN_FILENAME, listed.tags[GOLDEN_SHA256_TAG], f"{source}, tag {GOLDEN_SHA256_TAG}"
            )
            golden = Golden.load(content, spec)
        return Fetched(listed, spec, golden, _signature(content))

    def point(self, alias: str, version: int | None) -> None:
        """Give an alias to a version, or to none."""
        with self._errors(f"alias {alias} of {self.name}"):
            if version is not None:
                self._client.set_registered_model_alias(self.name, alias, str(version))
            elif alias in self.aliases():
                self._client.delete_registered_model_alias(self.name, alias)

    def set_champion(self, version: int | None, previous: int | None) -> None:
        """Move both aliases, in the order in which being killed between the two leaves no wrong way back.

        Where one version succeeds the other, both aliases then name the older one: there is no previous champion.
        """
        moves = [(CHAMPION, version), (PREVIOUS, previous)]
        if self.aliases().get(CHAMPION) == previous:
            moves.reverse()
        for alias, target in moves:
            self.point(alias, target)

    def tag(self, version: int, key: str, value: str) -> None:
        """Set a tag of a version."""
        with self._errors(f"tag {key} of {self.name}/{version}"):
            self._client.set_model_version_tag(self.name, str(version), key, value)

    def deployment_errors(self, version: int) -> dict[str, str]:
        """Why servers could not load a version, as their agents have noted, by tag."""
        with self._errors(f"{self.name}/{version}"):
            tags = self._client.get_model_version(self.name, str(version)).tags
        return {tag: problem for tag, problem in tags.items() if tag.startswith(DEPLOYMENT_ERROR_TAG)}

    def forget_deployment_errors(self, version: int) -> None:
        """Remove these notes."""
        for tag in self.deployment_errors(version):
            with self._errors(f"tag {tag} of {self.name}/{version}"):
                self._client.delete_model_version_tag(self.name, str(version), tag)

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, OSError) as error:
            raise InputError(f"{what}: the registry {self.uri} answers: {error}") from error


def parse_version(text: str) -> tuple[str, int]:
    """Read ``NAME/VERSION`` or ``models:/NAME/VERSION``.

    Raises
    ------
    InputError
        If it is neither.
    """
    match = re.fullmatch(r"(?:models:/)?([^/@]+)/(\d+)", text)
    if match is None:
        raise InputError(f"expected NAME/VERSION, for example crosseai/7, found {text!r}")
    return match[1], int(match[2])


def _check_sha256(file: Path, expected: str, source: str) -> None:
    try:
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ContractError(f"{source}: expected a file {file.name}: {error.strerror}") from error
    if found != expected:
        raise ContractError(f"{source}: expected {file.name} with the SHA-256 {expected or '(none)'}, found {found}")


def _signature(folder: Path) -> tuple[Tensors, Tensors] | None:
    """Tensors of the MLflow signature, if the version has one."""
    from mlflow.models import Model

    signature = Model.load(str(folder)).signature if (folder / "MLmodel").is_file() else None
    if signature is None or signature.inputs is None or signature.outputs is None:
        return None
    inputs, outputs = (
        tuple((tensor.name, tensor.type.name, tuple(tensor.shape)) for tensor in schema.inputs)
        for schema in (signature.inputs, signature.outputs)
    )
    return inputs, outputs
