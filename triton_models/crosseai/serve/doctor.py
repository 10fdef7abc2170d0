"""Whether this machine can run the embedded server, or load the plans of a repository, and why not."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from crosseai.contract import CrossEAIError, ServerError
from crosseai.serve.environment import ServerEnvironment, check_platform, environment_folder, server_environment
from crosseai.serve.plans import check_plan, find_machine, plans_of

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lives
MIN_SHARED_MEMORY_MB = 64
"""Triton's Python backend moves tensors through shared memory; Docker's default of 64 MB is enough."""


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check.

    Parameters
    ----------
    name
        What was checked.
    problem
        What is wrong and what to do, or empty.
    """

    name: str
    problem: str = ""


def diagnose(*, install: bool) -> list[Check]:
    """Check whether the embedded server can run.

    Parameters
    ----------
    install
        Build the server environment if it does not exist.
    """
    return [
        _check("system, processor, C library, Python, cache folder", check_platform),
        _check(f"shared memory of {MIN_SHARED_MEMORY_MB} MB", _check_shared_memory),
        _check("temporary folder without spaces", _check_temporary_folder),
        _check("server environment and Triton's Python stub", lambda: _check_environment(install)),
    ]


def diagnose_plans(repository: Path, image: str | None) -> list[Check]:
    """Check whether Triton can load the TensorRT plans of a repository.

    Parameters
    ----------
    repository
        The model repository.
    image
        The container image that would serve it; None for the one that this process runs in.

    Raises
    ------
    InputError
        If there are no plans.
    ServerError
        If driver, GPUs or image cannot be found.
    """
    plans, machine = plans_of(repository), find_machine(image)
    return [_check(f"plan {plan}", partial(check_plan, plan, machine)) for plan in plans]


def _check(name: str, check: Callable[[], object]) -> Check:
    try:
        check()
    except CrossEAIError as error:
        return Check(name, str(error))
    return Check(name)


def _check_shared_memory() -> None:
    if not SHARED_MEMORY.is_dir():
        raise ServerError(f"expected a shared memory file system at {SHARED_MEMORY}, found none")
    free = shutil.disk_usage(SHARED_MEMORY).free // 2**20
    if free < MIN_SHARED_MEMORY_MB:
        raise ServerError(f"expected {MIN_SHARED_MEMORY_MB} MB free in {SHARED_MEMORY}, found {free}; use --shm-size")


def _check_temporary_folder() -> None:
    if " " in tempfile.gettempdir():
        raise ServerError(f"expected no space in {tempfile.gettempdir()!r}; set TMPDIR")


def _check_environment(install: bool) -> None:
    folder = environment_folder()
    if install:
        server_environment()
    elif folder.is_dir():
        ServerEnvironment(folder).check()
    else:
        raise ServerError(f"not built yet: {folder}; build it with `crosseai-serve doctor --install`")
