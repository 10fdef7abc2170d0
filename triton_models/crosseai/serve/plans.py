"""Whether Triton can load the TensorRT plans of a repository on this machine, found out before it tries.

TensorRT hardly says why it refuses a plan. So what the plan was built with, as ``model.plan.json`` beside it tells, is
compared with what is here: the driver and the GPUs by ``nvidia-smi``, CUDA, TensorRT and Triton by the variables that
NVIDIA's images set, either those of this process or those of an image that docker has.
"""

import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from crosseai.contract import ContractError, InputError, ServerError
from crosseai.serve.config import PLAN_FILENAME
from crosseai.serve.repository import sha256_of

TENSORRT_VARIABLE, CUDA_VARIABLE, TRITON_VARIABLE = "TRT_VERSION", "CUDA_VERSION", "NVIDIA_TRITON_SERVER_VERSION"


@dataclass(frozen=True, slots=True)
class Machine:
    """What would run a plan.

    Parameters
    ----------
    driver, driver_cuda
        Version of NVIDIA's driver, and of the newest CUDA that it supports.
    gpus
        Names of the GPUs.
    tensorrt, cuda, triton
        Versions in the image; empty where they are not known.
    """

    driver: str
    driver_cuda: str
    gpus: tuple[str, ...]
    tensorrt: str
    cuda: str
    triton: str


def find_machine(image: str | None) -> Machine:
    """This machine, with what an image brings; None for the image that this process runs in.

    Raises
    ------
    ServerError
        If there is no driver, or docker does not have the image.
    """
    root = ET.fromstring(_output("nvidia-smi", "-q", "-x"))  # noqa: S314 - the driver's own
    variables = os.environ if image is None else _variables_of(image)
    return Machine(
        root.findtext("driver_version", ""),
        root.findtext("cuda_version", ""),
        tuple(gpu.findtext("product_name", "") for gpu in root.iter("gpu")),
        variables.get(TENSORRT_VARIABLE, ""),
        variables.get(CUDA_VARIABLE, ""),
        variables.get(TRITON_VARIABLE, ""),
    )


def plans_of(repository: Path) -> list[Path]:
    """The plans of a model repository.

    Raises
    ------
    InputError
        If it has none.
    """
    plans = sorted(repository.glob(f"*/*/{PLAN_FILENAME}"))
    if not plans:
        raise InputError(f"expected TensorRT plans, MODEL/VERSION/{PLAN_FILENAME}, found none in {repository}")
    return plans


def check_plan(plan: Path, machine: Machine) -> None:
    """Compare a plan's record with a machine.

    Triton itself may be another one than the plan was built in, if its TensorRT is the same.

    Raises
    ------
    ContractError
        If there is no record, it is of another plan, or the machine cannot load the plan; it says all reasons.
    """
    record, sha256 = _record_of(plan), sha256_of(plan)
    cuda = machine.cuda or record["cuda"]
    built_for = f"{record['version']} (Triton {record['triton'] or 'unknown'}, driver {record['driver'] or 'unknown'})"
    tensorrt = f"{machine.tensorrt or 'none'} (Triton {machine.triton or 'unknown'})"
    driver = f"{machine.driver}, for CUDA {machine.driver_cuda}"
    wrong = [
        f"{what}: expected {expected}, found {found}"
        for what, expected, found, holds in (
            ("SHA-256", record["sha256"], sha256, sha256 == record["sha256"]),
            ("builder", "TensorRT", record["builder"], record["builder"] == "TensorRT"),
            ("TensorRT", built_for, tensorrt, _release(machine.tensorrt, 3) == _release(record["version"], 3)),
            ("CUDA", record["cuda"], cuda, _release(cuda, 1) == _release(record["cuda"] or cuda, 1)),
            ("driver", f"one for CUDA {cuda}", driver, _release(machine.driver_cuda, 1) >= _release(cuda, 1)),
            ("GPUs", record["gpu"], ", ".join(machine.gpus), set(machine.gpus) == {record["gpu"]}),
        )
        if not holds
    ]
    if wrong:
        raise ContractError("; ".join(wrong))


def _record_of(plan: Path) -> Mapping[str, str]:
    """What ``crosseai-export tensorrt`` wrote beside the plan."""
    file = plan.with_name(f"{plan.name}.json")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        return {key: str(record[key]) for key in ("builder", "version", "gpu", "driver", "cuda", "triton", "sha256")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ContractError(
            f"expected the record of `crosseai-export tensorrt` in {file}, to be copied with the plan: {error!r}"
        ) from error


def _release(version: str, parts: int) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:parts])


def _variables_of(image: str) -> dict[str, str]:
    listed = json.loads(_output("docker", "image", "inspect", "--format", "{{json .Config.Env}}", image))
    return dict(variable.split("=", 1) for variable in listed)


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except OSError as error:
        raise ServerError(f"expected the command {command[0]!r}, found none: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        raise ServerError(f"`{' '.join(command)}` gave {error.returncode}: {error.stderr.strip()}") from error
