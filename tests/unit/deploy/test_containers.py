"""The container files: what they copy exists, what they install and start is ours, and nothing runs as root."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pybind11
import pytest

from crosseai.serve.container import container_command
from crosseai.serve.environment import ServerEnvironment, environment_folder
from tests.deployed import DEPLOY, DOCKERFILES, containers, parse, resources, values, words

DEFAULTS = ("/opt/nvidia/nvidia_entrypoint.sh", "tritonserver")


@pytest.fixture(scope="module")
def context(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the images of the client and of the agent are built from."""
    folder = tmp_path_factory.mktemp("context")
    text = (DEPLOY / "containers/client.Dockerfile").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE):
        *sources, target = line.split()
        tracked = subprocess.run(
            ["git", "ls-files", *sources], cwd=repository, check=True, capture_output=True, text=True
        )
        for name in tracked.stdout.splitlines():
            assert len(sources) > 1 or name.startswith(f"{target}/")
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((repository / name).read_bytes())
    return folder


@pytest.mark.parametrize("image", DOCKERFILES)
def test_nothing_runs_as_root(image):
    assert values(image, "USER")[-1] == "1000:1000"
    assert not values(image, "ADD")


@pytest.mark.parametrize("file", ["server", "client"])
def test_versions_are_said_once(file):
    text = (DEPLOY / f"containers/{file}.Dockerfile").read_text(encoding="utf-8")
    (name, version), *more = re.findall(r"^ARG (\w+)=([\d.]+)$", text, re.MULTILINE)
    assert not more
    assert version[0].isdigit()
    outside = [base for base in re.findall(r"^FROM (\S+)", text, re.MULTILINE) if "/" in base or ":" in base]
    assert outside
    assert all(f":${{{name}}}" in base for base in outside)


def test_the_build_context_is_whole(context):
    """CMake finds every source, and the metadata every file, in what is copied."""
    command = ["cmake", "-S", context, "-B", context / "build", "-G", "Ninja", "-D", "SKBUILD=ON"]
    command += ["-D", f"pybind11_DIR={pybind11.get_cmake_dir()}", "-D", f"Python_EXECUTABLE={sys.executable}"]
    finished = subprocess.run(command, check=False, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    project = tomllib.loads((context / "pyproject.toml").read_text(encoding="utf-8"))
    folders = project["tool"]["scikit-build"]["wheel"]["packages"].values()
    assert all((context / folder / "py.typed").is_file() for folder in folders)
    assert all((context / name).is_file() for name in (*project["project"]["license-files"], "README.md"))


def test_the_context_leaves_out_all_else(context):
    """The ignore file lets through what is copied, and no more."""
    ignore = (DEPLOY / "containers/client.Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignore[0] == "*"
    let_through = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    assert let_through == {path.name for path in context.iterdir() if path.name != "build"}


def test_extras_and_constraints_exist(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (DEPLOY / "containers/client.Dockerfile").read_text(encoding="utf-8")
    installed = re.findall(r"pip install --no-cache-dir --constraint (\S+) '\.\[(\w+)\]'", text)
    assert [extra for _, extra in installed] == ["client", "serve"]
    assert {extra for _, extra in installed} <= set(project["optional-dependencies"])
    assert all((repository / constraints).is_file() for constraints, _ in installed)
    python = re.search(r"^ARG PYTHON=(.*)$", text, re.MULTILINE).group(1)
    assert f"Programming Language :: Python :: {python}" in project["classifiers"]


def test_entrypoints_are_our_commands(repository):
    scripts = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    for image in ("crosseai-client", "crosseai-agent"):
        entrypoint, command = words(image, "ENTRYPOINT"), words(image, "CMD")
        assert entrypoint[0] in scripts
        parse([*entrypoint, *command])


def test_triton_is_started_as_by_the_printed_command():
    """`crosseai-serve up --image` and the image differ in what the image does without: it waits for its model."""
    assert tuple(words("crosseai-server", "ENTRYPOINT")[:2]) == DEFAULTS
    options = set(words("crosseai-server", "ENTRYPOINT")[2:])
    printed = shlex.split(container_command(Path("/r"), ["crosseai"], image="i").replace("\\\n", " "))
    assert options - {"--exit-on-error=false"} == set(printed[printed.index("tritonserver") + 1 :])
    assert f"--user={values('crosseai-server', 'USER')[-1]}" in printed


@pytest.mark.skipif(not environment_folder().is_dir(), reason="the server environment is not built")
def test_triton_knows_every_option():
    environment = ServerEnvironment(environment_folder())
    usage = subprocess.run(
        [environment.tritonserver, "--help"], env=environment.variables(), check=False, capture_output=True, text=True
    )
    known = set(re.findall(r"^\s+(--[\w-]+)", usage.stdout + usage.stderr, re.MULTILINE))
    pod = containers(resources("base")["Deployment", "crosseai-server"]["spec"]["template"])
    used = [*words("crosseai-server", "ENTRYPOINT")[2:], *pod["server"]["args"]]
    assert {option.partition("=")[0] for option in used} <= known
