"""The defaults are the paper's, and nothing impossible gets in."""

import math
from pathlib import Path
from typing import Any

import pytest

from crosseai.contract import Architecture, InputError
from crosseai.training.config import PHANTOMS_FILENAME, RECIPES, FitConfig, usual_recipe


def test_the_defaults_are_the_papers() -> None:
    """ArXiv 2310.19835, section 4.2."""
    config = FitConfig()
    assert config.network == Architecture("resnet50", triplet_attention=True, width=64)
    assert (config.input_size, config.batch_size, config.learning_rate) == (224, 128, 0.01)
    assert (config.weight_decay, config.projection_weight_decay) == (1e-4, 1e-6)
    assert config.cross_entropy_weight == 0.8
    assert FitConfig.load("paper") == config


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_can_be_read(name: str) -> None:
    assert (FitConfig.load(name) == FitConfig()) == (name == "paper")


def test_a_file_of_settings(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("width = 8\nlearning_rate = 1\nbalance = true\nschedule = 'constant'\n")
    assert FitConfig.load(file) == FitConfig(width=8, learning_rate=1, balance=True, schedule="constant")
    assert FitConfig.load(str(file)).changed({"width": 16}).width == 16


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("widths = 8", r"configuration .*own\.toml: training: unknown settings \['widths'\]"),
        ("width = '8'", r"own\.toml: training: expected width of type int, found '8'"),
        ("width = true", "expected width of type int"),
        ("schedule = 'cosine'", "expected schedule to be one of"),
        ("epochs = 0", "expected epochs >= 1, found 0"),
        ("width", "expected one of .* or a TOML file"),
    ],
)
def test_files_that_say_something_else_are_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        FitConfig.load(file)


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected one of .* or a TOML file: No such file or directory$"):
        FitConfig.load(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"batch_size": 1},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"weight_decay": -1.0},
        {"projection_weight_decay": math.inf},
        {"cross_entropy_weight": 1.1},
        {"temperature": 0.0},
        {"label_smoothing": -0.1},
        {"average_decay": 1.0},
        {"patience": -1},
        {"accumulate": 65},
        {"seed": 1.5},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"training: expected .*{next(iter(change))}"):
        FitConfig(**change)


def test_phantoms_have_a_recipe_of_their_own(tmp_path: Path) -> None:
    assert usual_recipe(tmp_path) == "paper"
    (tmp_path / PHANTOMS_FILENAME).touch()
    assert usual_recipe(tmp_path) == "phantoms"
