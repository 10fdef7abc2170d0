"""The command for NVIDIA's container, as a shell would read it."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from crosseai.serve.cli import main
from crosseai.serve.repository import place_version
from tests.tiny_model import write_tiny_model

IMAGE = "nvcr.io/nvidia/tritonserver:25.01-py3"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    place_version(tmp_path / "models", write_tiny_model(tmp_path / "source"), 3)
    return tmp_path / "models"


def printed(*arguments: object) -> str:
    result = CliRunner().invoke(main, ["up", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def run_by_a_shell(command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a ``docker`` that prints its arguments, one a line."""
    (folder / "docker").write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    (folder / "docker").chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    return subprocess.run(
        ["/bin/sh", "-c", command], env={"PATH": path, **variables}, capture_output=True, text=True, check=False
    )


def test_the_command(models):
    words = shlex.split(printed("--repository", models, "--image", IMAGE).replace("\\\n", " "))
    assert words[:3] == ["docker", "run", "--rm"]
    assert words[words.index("--gpus") + 1] == "all"
    published = {f"127.0.0.1:{port}:{port}" for port in (8000, 8001, 8002)}
    assert {*published, f"{models}:/models:ro", "--user=1000:1000", "--read-only", IMAGE} <= set(words)
    assert "--load-model=crosseai" in words
    assert not [word for word in words if "restricted" in word]


def test_an_exposed_container_wants_the_key(models, tmp_path):
    where = ["--repository", models, "--image", IMAGE, "--gpus", "device=1", "--host", "10.0.0.5", "--grpc-port", 9001]
    where += ["--metrics-port", 9002]
    command = printed(*where)
    without = run_by_a_shell(command, tmp_path)
    assert without.returncode != 0
    assert "CROSSEAI_ADMIN_KEY" in without.stderr
    words = run_by_a_shell(command, tmp_path, CROSSEAI_ADMIN_KEY="open sesame").stdout.splitlines()
    closed = "model-repository,shared-memory,trace,logging:crosseai-admin-key=open sesame"
    assert {f"--grpc-restricted-protocol={closed}", f"--http-restricted-api={closed}"} <= set(words)
    assert {"device=1", "10.0.0.5:9001:8001", "10.0.0.5:9002:8002"} <= set(words)


def test_names_are_quoted(models, tmp_path):
    words = run_by_a_shell(printed("--repository", models, "--image", "a; touch b"), tmp_path).stdout.splitlines()
    assert "a; touch b" in words


@pytest.mark.parametrize("arguments", [["--gpus", "all"], ["--image", IMAGE]])
def test_usage(arguments):
    result = CliRunner().invoke(main, ["up", *arguments])
    assert result.exit_code == 2
    assert "--gpus needs --image, and --image needs --repository" in result.output
