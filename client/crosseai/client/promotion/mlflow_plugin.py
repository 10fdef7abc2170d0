"""MLflow's deployments interface to promotions: ``mlflow deployments create -t crosseai-triton://HOST:8001 ...``.

A deployment is a registered model on its servers, and its name is the model's. MLflow finds this module by the entry
point ``crosseai-triton``, and nothing else imports it.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import numpy.typing as npt
from mlflow.deployments import BaseDeploymentClient, PredictionsResponse
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST

from crosseai.client.promotion.canary import EXAMINED
from crosseai.client.promotion.gates import USUAL_GATES, read_gates
from crosseai.client.promotion.promote import promote, rollback
from crosseai.client.promotion.registry import Registry, parse_version
from crosseai.client.promotion.servers import Server, Site
from crosseai.client.servers.credentials import Credentials, read_token
from crosseai.contract import CHAMPION, PREVIOUS, CrossEAIError, InputError

FLAVOR = "onnx"
MODEL = "crosseai"
"""The model whose aliases the servers' agents follow."""

_HELP = """\
Target: crosseai-triton://HOST:PORT[,HOST:PORT...][?tls_ca=FILE&tls_cert=FILE&tls_key=FILE] with the gRPC addresses of
servers; crosseai-triton alone changes only the registry, after a canary on this machine. TLS where the target names
files; a bearer token is read from CROSSEAI_TOKEN. Beside each server runs `crosseai-serve deploy --watch`.

Name: the registered model's. Model URI: models:/crosseai/VERSION.

  create   promotes the first champion        update   promotes another version
  delete   rolls back to the previous champion; the last one cannot be taken away
  get, list   the champion, the way back, and what each server serves
  predict  {"image": [N,1,S,S] integers from 0 to 255, "targets": [N,K] classes or -1; without: [[-1]]}
  run-local   serves a version on this machine until Ctrl-C

Config of create, update and delete (-C NAME=VALUE), as the options of `crosseai-client promote`:
  gate, reason, audit_log, timeout, repository, grace
"""
_OPTIONS = {"repository": Path, "grace": float, "timeout": float, "audit_log": Path, "reason": str}
_FIELDS = {"grace": "grace_s", "timeout": "timeout_s", "audit_log": "log"}


def target_help() -> str:
    """What ``mlflow deployments help -t crosseai-triton`` says."""
    return _HELP


def run_local(name: str, model_uri: str, flavor: str | None = None, config: Mapping[str, Any] | None = None) -> None:
    """Serve a version on this machine until it is interrupted; the address is printed as JSON.

    Raises
    ------
    MlflowException
        If it cannot be served.
    """
    del name, flavor, config
    command = [sys.executable, "-m", "crosseai.serve.cli", "up", "--tie-to-parent", "--model", model_uri]
    status = subprocess.run(command, check=False).returncode
    if status:
        raise MlflowException(f"`crosseai-serve up` ended with exit status {status}")


class CrossEAITritonClient(BaseDeploymentClient):
    """Promotes and rolls back, as MLflow's users are used to.

    Parameters
    ----------
    target_uri
        As :func:`target_help` says.

    Raises
    ------
    MlflowException
        Here, if the target is none of ours; in every method, if what is asked fails, with the message of our error.
    """

    def __init__(self, target_uri: str) -> None:
        super().__init__(target_uri)  # type: ignore[no-untyped-call]
        target = urlsplit(target_uri)
        given = dict(parse_qsl(target.query, keep_blank_values=True))
        if not given.keys() <= {"tls_ca", "tls_cert", "tls_key"} or target.path not in ("", "/", "crosseai-triton"):
            raise MlflowException(f"target {target_uri!r}: expected\n{_HELP}", INVALID_PARAMETER_VALUE)
        files = {name: Path(path) for name, path in given.items()}
        with _translated_errors():
            self._credentials = Credentials(
                ca=files.get("tls_ca"),
                certificate=files.get("tls_cert"),
                key=files.get("tls_key"),
                token=read_token(None),
            )
        self._servers = [Server(a, self._credentials) for a in target.netloc.split(",") if a]

    def create_deployment(
        self,
        name: str,
        model_uri: str,
        flavor: str | None = None,
        config: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Promote the first champion; where there is one, it is to be updated."""
        del flavor, endpoint
        with _translated_errors():
            champion = Registry(name).aliases().get(CHAMPION)
            if champion is not None:
                message = f"{name}: version {champion} is the {CHAMPION}; `update` promotes another one"
                raise MlflowException(message, RESOURCE_ALREADY_EXISTS)
            self._promote(name, model_uri, config)
        return self.get_deployment(name)

    def update_deployment(
        self,
        name: str,
        model_uri: str | None = None,
        flavor: str | None = None,
        config: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Promote another version."""
        del flavor, endpoint
        if model_uri is None:
            raise MlflowException("update: expected a model URI, found none", INVALID_PARAMETER_VALUE)
        with _translated_errors():
            self._promote(name, model_uri, config)
        return self.get_deployment(name)

    def delete_deployment(
        self, name: str, config: Mapping[str, Any] | None = None, endpoint: str | None = None
    ) -> None:
        """Roll back to the previous champion; without any champion there is nothing to do."""
        del endpoint
        with _translated_errors():
            if CHAMPION in Registry(name).aliases():
                rollback(name, self._site(config or {}))

    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """The one model that servers follow, if it has a champion."""
        del endpoint
        with _translated_errors():
            deployed = CHAMPION in Registry(MODEL).aliases()
        return [self.get_deployment(MODEL)] if deployed else []

    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        """Champion, previous champion, and what each server serves."""
        del endpoint
        with _translated_errors():
            aliases = Registry(name).aliases()
            if CHAMPION not in aliases:
                raise MlflowException(f"{name}: expected a {CHAMPION}, found none", RESOURCE_DOES_NOT_EXIST)
            version = aliases[CHAMPION]
            return {
                "name": name,
                "flavor": FLAVOR,
                CHAMPION: version,
                PREVIOUS: aliases.get(PREVIOUS),
                "servers": {str(server): server.state(name, version) for server in self._servers},
            }

    def predict(
        self, deployment_name: str | None = None, inputs: Any = None, endpoint: str | None = None
    ) -> PredictionsResponse:
        """Ask the first server; ``inputs``, a dictionary or a data frame, has ``image``, and ``targets`` if wanted."""
        del endpoint
        with _translated_errors():
            if not self._servers:
                raise InputError(f"target {self.target_uri}: expected a server, found none")
            images = _integers(inputs, "image", np.uint8)
            targets = _integers(inputs, "targets", np.int64) if "targets" in inputs else np.full((len(images), 1), -1)
            served = self._servers[0].served(deployment_name or MODEL)
            found = self._servers[0].ask(lambda transport: transport.infer(served, images, targets, EXAMINED))
        return PredictionsResponse({"predictions": {name: found[name].tolist() for name in EXAMINED}})

    def _promote(self, name: str, model_uri: str, config: Mapping[str, Any] | None) -> None:
        options = dict(config or {})
        gate_file = options.pop("gate", None)
        model, version = parse_version(model_uri)
        if model != name:
            raise InputError(f"deployment: expected the name of the registered model, {model!r}, found {name!r}")
        gates = USUAL_GATES if gate_file is None else read_gates(Path(gate_file))
        promote(name, version, self._site(options), gates=gates)

    def _site(self, options: Mapping[str, Any]) -> Site:
        if not options.keys() <= _OPTIONS.keys():
            raise InputError(f"config: expected some of gate, {', '.join(_OPTIONS)}; found {', '.join(options)}")
        try:
            given = {_FIELDS.get(name, name): _OPTIONS[name](value) for name, value in options.items()}
        except ValueError as error:
            raise InputError(f"config: {error}") from error
        return Site(servers=[server.address for server in self._servers], credentials=self._credentials, **given)


def _integers(inputs: Any, name: Literal["image", "targets"], kind: type) -> npt.NDArray[Any]:
    """An input as an array; nothing is rounded or wrapped around."""
    try:
        given = np.array(list(inputs[name]))
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"inputs: expected {name}, an array of integers, one row an image") from error
    if given.dtype.kind not in "iu" or given.size == 0 or not np.array_equal(given.astype(kind), given):
        raise InputError(f"inputs: expected {name} of integers that fit {np.dtype(kind)}, found {given.dtype}")
    return given.astype(kind)


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Turn our errors into MLflow's."""
    try:
        yield
    except CrossEAIError as error:
        raise MlflowException(str(error)) from error
