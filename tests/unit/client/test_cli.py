"""Exit statuses and messages of ``crosseai-client``."""

from pathlib import Path

import click
import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from crosseai.client.cli import main


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.arange(64, dtype=np.uint8).reshape(8, 8))
    return folder


@pytest.mark.parametrize("command", [(), ("run",), ("evaluate",)])
def test_every_command_and_option_has_help(command: tuple) -> None:
    for flag in ("-h", "--help"):
        assert invoke(*command, flag).exit_code == 0
    for name, sub in main.commands.items():
        assert sub.help, name
        assert all(option.help for option in sub.params if isinstance(option, click.Option)), name


def test_usage_errors_come_before_any_server(images: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    out = ("--output", tmp_path / "out")
    for arguments, message in (
        ((tmp_path / "absent", *out), "found nothing"),
        ((empty, *out), "at least one file"),
        ((images, "--output", images), "other than the directory"),
        ((images, *out, "--explain", tmp_path / "absent.csv"), "cannot be read"),
        ((images, *out, "--explain", "nope"), "expected positive, top:K"),
        ((images, *out, "--timeout", "nan"), "found nan"),
        ((images, *out, "--model-version", 3), "model_version: expected server"),
        ((images, *out, "--server", "grpcs://localhost:1", "--tls-cert", tmp_path), "found only one of them"),
        ((images, *out, "--write", "mural"), "mural"),
        ((images, *out, "--batch-size", 0), "batch_size"),
        ((images, *out, "--server", "nonsense"), "grpc://HOST:PORT"),
        ((images, *out, "--server", "localhost:1", "--model", "x"), "found both"),
        ((images, *out, "--preset", "best"), "best"),
    ):
        result = invoke("run", *arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert message in result.output


def test_an_unreachable_server_is_three(images: Path, tmp_path: Path) -> None:
    result = invoke("run", images, "--output", tmp_path / "out", "--server", "127.0.0.1:1", "--wait", 0.2)
    assert result.exit_code == 3
    assert "127.0.0.1:1" in result.output
    assert "continues" not in result.output, "nothing was scored"


def test_an_unwritable_output_is_one(images: Path) -> None:
    result = invoke("run", images, "--output", "/proc/out", "--server", "127.0.0.1:1", "--wait", 0.2)
    assert result.exit_code == 1
    assert "/proc/out" in result.output


def test_evaluate_needs_the_output_of_a_run(tmp_path: Path) -> None:
    result = invoke("evaluate", tmp_path, "--boxes", tmp_path / "boxes.csv")
    assert result.exit_code == 2
    assert "expected the output of crosseai-client run" in result.output
