"""How the commands of training and export end."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from crosseai.contract import Architecture, ModelSpec
from crosseai.export.cli import main as export
from crosseai.training import save_checkpoint
from crosseai.training.cli import main as train
from tests.unit.export import networks

SPEC = ModelSpec(input_size=32, architecture=Architecture("resnet14", triplet_attention=False, width=4))


@pytest.fixture
def impossible(tmp_path: Path) -> Path:
    """A folder that cannot be made, because its parent is a file."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "folder"


def refused(command, output, cannot_be_made, *arguments):
    result = CliRunner().invoke(command, [*map(str, arguments), "--output", str(output)])
    assert result.exit_code == 2, result.output
    assert result.stderr.endswith(f"Error: {cannot_be_made}: Not a directory\n")


def test_phantoms_in_an_impossible_folder(impossible):
    refused(train, impossible, impossible / "images", "phantoms", "--count", 1)


def test_an_export_to_an_impossible_folder(impossible, tmp_path):
    save_checkpoint(networks.residual(triplet_attention=False), SPEC, tmp_path / "checkpoint")
    refused(export, impossible, impossible, "onnx", "--model", tmp_path / "checkpoint", "--no-register")
