"""The folders, what may import what, and what must import without the heavy libraries."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

FOLDERS = {
    "contract": "export/crosseai/contract",
    "imaging": "client/crosseai/imaging",
    "training": "training/crosseai/training",
    "export": "export/crosseai/export",
    "serve": "triton_models/crosseai/serve",
    "postproc": "postproc_ext/python/crosseai/postproc",
    "client": "client/crosseai/client",
    "comparison": "training/crosseai/comparison",
}
MAY_IMPORT = {
    "contract": set(),
    "imaging": {"contract"},
    "training": {"contract", "imaging"},
    "export": {"contract", "training"},
    "serve": {"contract"},
    "postproc": {"contract"},
    "client": {"contract", "imaging", "postproc"},
    "comparison": {"client", "contract", "export", "imaging", "postproc", "training"},
}


def imported_packages(file: Path) -> set[str]:
    """Second component of every ``crosseai.X`` import of a module."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names.add(node.module or "")
    return {name.split(".")[1] for name in names if name.startswith("crosseai.")}


@pytest.mark.parametrize("package", FOLDERS)
def test_import_rules(package: str, repository: Path) -> None:
    folder = repository / FOLDERS[package]
    assert (folder / "py.typed").exists()
    modules = list(folder.rglob("*.py"))
    assert modules
    for module in modules:
        assert imported_packages(module) <= MAY_IMPORT[package] | {package}, module


def test_crosseai_is_a_namespace_package(repository: Path) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=repository, check=True, capture_output=True, text=True).stdout
    assert not [name for name in tracked.split() if name.endswith("crosseai/__init__.py")]


def test_only_named_modules_import_mlflow(repository: Path) -> None:
    importing = {
        str(file.relative_to(repository))
        for folder in FOLDERS.values()
        for file in (repository / folder).rglob("*.py")
        if any(line.strip().startswith(("import mlflow", "from mlflow")) for line in file.read_text().splitlines())
    }
    assert importing == {
        "client/crosseai/client/promotion/mlflow_plugin.py",
        "client/crosseai/client/promotion/registry.py",
        "export/crosseai/export/register.py",
        "training/crosseai/training/tracking.py",
        "triton_models/crosseai/serve/registry.py",
    }


def test_client_imports_without_torch_onnx_mlflow_and_ray() -> None:
    program = """
import sys
for name in ("torch", "onnx", "onnxruntime", "mlflow", "ray"):
    sys.modules[name] = None
import crosseai.client
import crosseai.client.cli
import crosseai.imaging
"""
    finished = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
