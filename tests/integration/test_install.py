"""What `pip install .` puts on a machine."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

PACKAGES = ("client", "contract", "export", "imaging", "postproc", "serve", "training")


@pytest.fixture(scope="module")
def installed(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the source distribution, installed into an empty folder."""
    distributions, target = tmp_path_factory.mktemp("distributions"), tmp_path_factory.mktemp("installed")
    build = (sys.executable, "-m", "build", "--no-isolation", "--outdir", str(distributions), str(repository))
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = distributions.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    subprocess.run([*pip, "--no-deps", "--target", target, wheel], check=True)
    return target


def run_installed(installed: Path, program: str) -> str:
    """Run a program that sees the installed project and its dependencies, and not the checkout (-S: no .pth files)."""
    path = f"import sys; sys.path[:0] = {[str(installed), sysconfig.get_path('purelib')]!r}\n"
    command = [sys.executable, "-I", "-S", "-c", path + program]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=installed).stdout


def test_all_seven_packages_are_installed_and_typed(installed: Path) -> None:
    program = "import importlib\n" + "\n".join(
        f"print(importlib.import_module('crosseai.{name}').__file__)" for name in PACKAGES
    )
    files = [Path(line) for line in run_installed(installed, program).split()]
    assert [file.parent for file in files] == [installed / "crosseai" / name for name in PACKAGES]
    assert all((file.parent / "py.typed").exists() for file in files)
    assert not (installed / "crosseai" / "__init__.py").exists()
    assert {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")} <= {"bin", "crosseai"}


def test_the_installed_extension_computes(installed: Path) -> None:
    program = """
import numpy as np
from crosseai.postproc import maximal_rectangles
print(maximal_rectangles(np.ones((3, 5), np.uint8)).tolist())
"""
    assert run_installed(installed, program).strip() == "[[0, 0, 5, 3]]"


def test_the_installed_packages_pass_their_unit_tests(installed: Path, repository: Path) -> None:
    suites = [str(repository / "tests" / "unit" / name) for name in ("contract", "postproc")]
    program = f"import pytest; raise SystemExit(pytest.main(['-q', '-p', 'no:cacheprovider', *{suites!r}]))"
    report = run_installed(installed, program)
    assert "passed" in report.splitlines()[-1]


def test_the_installed_server_finds_its_backend(installed: Path) -> None:
    program = "from crosseai.serve.environment import BACKENDS, KERNELS; print(BACKENDS, KERNELS, sep='\\n')"
    backends, kernels = map(Path, run_installed(installed, program).splitlines())
    assert backends.is_relative_to(installed)
    assert (backends / "onnxruntime" / "model.py").is_file()
    assert kernels.is_relative_to(installed)
    assert kernels.is_file()


def test_an_editable_install_gives_the_checkout(repository: Path) -> None:
    program = "\n".join(f"import crosseai.{name}; print(crosseai.{name}.__file__)" for name in PACKAGES)
    command = [sys.executable, "-c", program]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stdout
    assert all(Path(line).is_relative_to(repository) for line in output.split())
