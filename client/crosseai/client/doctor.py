"""Whether a run can work here, and what to do where it cannot."""

import asyncio
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from crosseai.client.inference import MAPS
from crosseai.client.records.manifest import PACKAGES
from crosseai.client.servers.fleet import Fleet
from crosseai.client.servers.transport import ServedModel, TritonTransport
from crosseai.contract import (
    AccessRefused,
    ContractError,
    CrossEAIError,
    InferenceTimeout,
    ServerError,
    ServerUnavailable,
)

MIN_FREE_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check.

    Parameters
    ----------
    name
        What was checked.
    found
        What was found.
    advice
        What to do, or empty where all is well.
    unreachable
        Whether it is a server that does not answer.
    """

    name: str
    found: str
    advice: str = ""
    unreachable: bool = False


def diagnose(fleet: Callable[[], Fleet | None], model_version: str | None, output: Path) -> list[Check]:
    """Check software, disk, and servers or the embedded one.

    Parameters
    ----------
    fleet
        Gives the servers; None for the embedded server.
    model_version
        Version to ask for; None for the champion, else the newest.
    output
        Folder of results.
    """
    return [*_software(), _disk(output), *asyncio.run(_servers(fleet, model_version))]


def _software() -> list[Check]:
    checks = [Check("Python", platform.python_version())]
    for package in PACKAGES:
        try:
            checks.append(Check(package, version(package)))
        except PackageNotFoundError:
            checks.append(Check(package, "not installed", "pip install 'crosseai[client]'"))
    return checks


def _disk(output: Path) -> Check:
    folder = next(parent for parent in (output.absolute(), *output.absolute().parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    found = f"{folder}: {free / 2**30:.1f} GiB free"
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return Check("output", f"{folder}: cannot be written", "choose another --output")
    return Check("output", found, "" if free >= MIN_FREE_BYTES else "free some space, or choose another --output")


async def _servers(fleet: Callable[[], Fleet | None], model_version: str | None) -> list[Check]:
    try:
        servers = fleet()
        if servers is None:
            return [await asyncio.to_thread(_embedded)]
        connections = await servers.connections()
    except CrossEAIError as error:
        advice = "correct the address or the credentials"
        return [Check("server", str(error), advice, unreachable=isinstance(error, ServerError))]
    checks, served = [], []
    for connection in connections.values():
        try:
            model, found = await _ask(connection, model_version)
            served.append(model)
            checks.append(Check(f"server {connection.address}", found))
        except CrossEAIError as error:
            checks.append(_sick(connection, error))
        finally:
            await connection.close()
    if len({(model.sha256, model.version) for model in served}) > 1:
        found = ", ".join(f"version {model.version} ({model.sha256[:12]})" for model in served)
        checks.append(Check("one model", found, "deploy one version to all servers, or give --model-version"))
    return checks


async def _ask(connection: TritonTransport, model_version: str | None) -> tuple[ServedModel, str]:
    model = await connection.describe(version=model_version)
    side = model.spec.input_size
    blank, target = np.zeros((1, 1, side, side), np.uint8), np.full((1, 1), -1)
    await connection.infer(model, blank, target, ["logits", *MAPS])
    began = time.monotonic()
    await connection.infer(model, blank, target, ["logits"])
    return model, (
        f"model {model.spec.name!r} version {model.version}, SHA-256 {model.sha256[:12]}..., "
        f"{len(model.spec.classes)} diseases, input {side} x {side}, at most {model.max_batch_size} images a request, "
        f"{1000 * (time.monotonic() - began):.0f} ms for one image"
    )


def _sick(connection: TritonTransport, error: CrossEAIError) -> Check:
    advice: dict[type[CrossEAIError], str] = {
        AccessRefused: "give the server's token by --token-file or CROSSEAI_TOKEN",
        ServerUnavailable: "is the address right, the server up, the model loaded, and TLS as the server wants it? "
        "See `crosseai-serve status`",
        InferenceTimeout: "is the server overloaded? Raise --timeout",
        ContractError: "deploy the model with `crosseai-serve deploy`, which writes its spec into config.pbtxt",
        ServerError: "see the server's log",
    }
    kind = next(kind for kind in (*advice, CrossEAIError) if isinstance(error, kind))
    unreachable = isinstance(error, ServerError)
    return Check(f"server {connection.address}", str(error), advice.get(kind, "see above"), unreachable)


def _embedded() -> Check:
    """What ``crosseai-serve doctor`` says, which belongs to another environment perhaps."""
    command = [sys.executable, "-m", "crosseai.serve.cli", "doctor"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode == 0:
        return Check("embedded server", "can run here")
    problems = [line for line in (finished.stdout + finished.stderr).splitlines() if not line.startswith("ok")]
    return Check("embedded server", "; ".join(problems[-3:]), "see `crosseai-serve doctor`, or give --server")
