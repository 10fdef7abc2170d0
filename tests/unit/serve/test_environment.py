"""Where the server's environment is, and what is said when it cannot be made."""

import platform
import sys
from pathlib import Path

import pytest

from crosseai.contract import ServerError
from crosseai.serve import environment


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CROSSEAI_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_cache_folder(monkeypatch, tmp_path):
    assert environment.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("CROSSEAI_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert environment.cache_folder() == tmp_path / "xdg" / "crosseai"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert environment.cache_folder() == tmp_path / "home" / ".cache" / "crosseai"


def test_other_requirements_or_another_python_make_another_environment(monkeypatch):
    folder = environment.environment_folder()
    assert environment.environment_folder() == folder
    monkeypatch.setattr(environment, "REQUIREMENTS", ("numpy==1.26.3",))
    other_requirements = environment.environment_folder()
    monkeypatch.setattr(sys, "base_prefix", "/elsewhere")
    assert len({folder, other_requirements, environment.environment_folder()}) == 3


def test_requirements_are_complete_and_exact():
    assert all(requirement.count("==") == 1 for requirement in environment.REQUIREMENTS)
    (numpy,) = [r for r in environment.REQUIREMENTS if r.startswith("numpy==")]
    assert numpy.startswith("numpy==1."), "Triton's Python stub reads zeros under NumPy 2"


@pytest.mark.parametrize(
    ("target", "function", "value", "message"),
    [
        (platform, "system", "Darwin", "system: expected Linux, found Darwin"),
        (platform, "machine", "riscv64", "processor: expected x86_64 or aarch64, found riscv64"),
        (platform, "libc_ver", ("glibc", "2.31"), "C library: expected glibc >= 2.35, found glibc 2.31"),
        (platform, "libc_ver", ("", ""), "C library: expected glibc >= 2.35, found"),
    ],
)
def test_unsupported_machines(monkeypatch, target, function, value, message):
    monkeypatch.setattr(target, function, lambda: value)
    with pytest.raises(ServerError, match=message):
        environment.server_environment()


def test_unsupported_python(monkeypatch):
    monkeypatch.setattr(environment, "PYTHONS", ((3, 8),))
    with pytest.raises(ServerError, match=r"Python: expected 3\.8, found 3\."):
        environment.check_platform()


def test_a_cache_folder_with_a_space(monkeypatch, tmp_path):
    monkeypatch.setenv("CROSSEAI_CACHE_DIR", str(tmp_path / "my cache"))
    with pytest.raises(ServerError, match=r"cache folder: expected a path without spaces, found .*/my cache"):
        environment.check_platform()


def test_without_the_network_the_message_says_what_to_do(monkeypatch, cache):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setattr(environment, "REQUIREMENTS", ("crosseai-no-such-package==1",))
    with pytest.raises(ServerError, match=r"cannot be built: .*needs the network once") as error:
        environment.server_environment()
    assert "crosseai-no-such-package" in str(error.value)
    assert not environment.environment_folder().exists()


def test_a_damaged_environment_is_named(cache):
    folder = environment.environment_folder()
    folder.mkdir(parents=True)
    with pytest.raises(ServerError, match=f"server environment {folder}: .*delete the folder"):
        environment.server_environment()


def test_our_backend_is_found():
    assert (environment.BACKENDS / "onnxruntime" / "model.py").is_file()


def test_a_missing_library_of_kernels_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "KERNELS", tmp_path / "absent.so")
    with pytest.raises(ServerError, match=r"absent\.so: expected the library"):
        environment.ServerEnvironment(tmp_path).place_backends(tmp_path / "backends")
