"""The server's own Python environment, made once and kept in a cache folder.

Triton comes from the ``nvidia-pytriton`` wheel, of which only the server binary is used. Its Python backend reads
wrong tensors under NumPy 2, so it cannot share the environment of the rest of the project.
"""

import fcntl
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from crosseai.contract import ServerError

logger = logging.getLogger(__name__)

REQUIREMENTS = (
    "nvidia-pytriton==0.7.0",
    "onnxruntime==1.31.1",
    "onnx==1.23.2",
    "numpy==1.26.4",
    "flatbuffers==25.12.19",
    "ml_dtypes==0.5.4",
    "packaging==26.3",
    "protobuf==6.33.6",
    "typing_extensions==4.16.0",
)
"""All that the server needs, complete, so that pip resolves nothing (PyTriton's own requirements are not wanted)."""

PYTHONS = ((3, 11), (3, 12))
"""Python versions for which both a Triton stub and a NumPy 1 wheel exist."""

MACHINES = ("x86_64", "aarch64")
GLIBC = (2, 35)

BACKENDS = next(
    folder
    for folder in (Path(__file__).parent / "backends", Path(__file__).parents[2] / "backends")
    if (folder / "onnxruntime" / "model.py").is_file()
)
"""Our own Triton backends: inside the package when installed from a wheel, beside it in a checkout."""

KERNELS = Path(str(distribution("crosseai").locate_file("crosseai/serve/kernels.so")))
"""What the backend ``onnxruntime`` computes with beside ONNX Runtime's own operators."""


@dataclass(frozen=True, slots=True)
class ServerEnvironment:
    """A virtual environment that can run Triton."""

    folder: Path

    @property
    def _site_packages(self) -> Path:
        return self.folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"

    @property
    def _triton(self) -> Path:
        return self._site_packages / "pytriton" / "tritonserver"

    @property
    def tritonserver(self) -> Path:
        """The server binary."""
        return self._triton / "bin" / "tritonserver"

    def variables(self) -> dict[str, str]:
        """All environment variables of the server process.

        The stub takes the first ``python3`` of PATH, and needs ``libpython`` and the wheel's own libraries.
        """
        libraries = (sysconfig.get_config_var("LIBDIR"), self._site_packages / "nvidia_pytriton.libs")
        return {
            "PATH": f"{self.folder / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
            "LANG": "C.UTF-8",
        }

    def place_backends(self, folder: Path) -> None:
        """Fill a folder for Triton's ``--backend-directory``: copies, as Triton refuses links.

        Raises
        ------
        ServerError
            If the library of kernels is not there.
        """
        if not KERNELS.is_file():
            raise ServerError(f"{KERNELS}: expected the library that comes with crosseai, found none; install it again")
        shutil.copytree(BACKENDS, folder, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(KERNELS, folder / "onnxruntime")
        python = folder / "python"
        shutil.copytree(self._triton / "backends" / "python", python, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(self._stub, python)

    @property
    def _stub(self) -> Path:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        return self._triton / "python_backend_stubs" / version / "triton_python_backend_stub"

    def check(self) -> None:
        """Run the stub, which hosts a model, for a moment: one that cannot start hangs the server for ever.

        Raises
        ------
        ServerError
            If it does not run here.
        """
        try:
            run = subprocess.run([self._stub], env=self.variables(), capture_output=True, text=True, check=False)
        except OSError as error:
            raise ServerError(
                f"server environment {self.folder}: {error}; delete the folder to build it anew"
            ) from error
        if run.returncode != 1:  # It wants arguments, and says so with 1.
            raise ServerError(
                f"server environment {self.folder}: expected exit status 1 from Triton's Python stub, found "
                f"{run.returncode}: {run.stderr.strip()}. A missing libpython comes with the system package "
                f"libpython{sys.version_info[0]}.{sys.version_info[1]}."
            )


def server_environment() -> ServerEnvironment:
    """Find the server's environment, or build it.

    Raises
    ------
    ServerError
        If Triton cannot run on this machine, or the environment cannot be built.
    """
    check_platform()
    folder = environment_folder()
    if not folder.is_dir():
        _build(folder)
    environment = ServerEnvironment(folder)
    environment.check()
    return environment


def cache_folder() -> Path:
    """Where this project keeps what it can make again: ``CROSSEAI_CACHE_DIR``, else ``~/.cache/crosseai``."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crosseai"
    return Path(os.environ.get("CROSSEAI_CACHE_DIR") or default).absolute()


def environment_folder() -> Path:
    """Where the environment of these requirements and of this Python is, or would be."""
    key = hashlib.sha256("\n".join((*REQUIREMENTS, sys.version, sys.base_prefix)).encode()).hexdigest()
    return cache_folder() / f"triton-{key[:16]}"


def check_platform() -> None:
    """Check that Triton can run here at all.

    Raises
    ------
    ServerError
        If system, processor, C library or Python is not one that Triton's wheel supports, or a path has a space.
    """
    glibc = platform.libc_ver()
    for what, expected, found, holds in (
        ("system", "Linux", platform.system(), platform.system() == "Linux"),
        ("processor", " or ".join(MACHINES), platform.machine(), platform.machine() in MACHINES),
        ("C library", f"glibc >= {_dotted(GLIBC)}", " ".join(glibc), _is_recent(glibc)),
        ("Python", " or ".join(map(_dotted, PYTHONS)), platform.python_version(), sys.version_info[:2] in PYTHONS),
        ("cache folder", "a path without spaces", cache_folder(), " " not in str(cache_folder())),
    ):
        if not holds:
            raise ServerError(
                f"the embedded Triton server cannot run here: {what}: expected {expected}, found {found}. "
                "Use a Triton server elsewhere (--server)."
            )


def _is_recent(glibc: tuple[str, str]) -> bool:
    name, version = glibc
    return name == "glibc" and tuple(map(int, version.split(".")[:2])) >= GLIBC


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _build(folder: Path) -> None:
    """Build the environment beside its place and move it there in one step; concurrent builders wait."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        if folder.is_dir():
            return
        logger.info("building the server environment %s (once, about 120 MB to download)", folder)
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        _command(sys.executable, "-m", "venv", str(unfinished))
        pip = (str(unfinished / "bin" / "python"), "-m", "pip", "--disable-pip-version-check")
        _command(*pip, "install", "--quiet", "--no-deps", "--only-binary=:all:", *REQUIREMENTS)
        unfinished.rename(folder)


def _command(*command: str) -> None:
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise ServerError(
            f"the server environment cannot be built: `{' '.join(command)}` gave {run.returncode}. It needs the "
            f"network once (or a pip mirror), and Python's venv module.\n{(run.stderr or run.stdout).strip()[-2000:]}"
        )


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold an exclusive lock, which the kernel frees even if this process is killed."""
    with file.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
