"""What a training run computes: one dataclass, and the files it is read from."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from crosseai.contract import Architecture, InputError, reason

RECIPES = ("paper", "scalp", "phantoms")
"""Configurations that come with the package: ``recipes/NAME.toml``."""

PHANTOMS_FILENAME = "phantoms.json"
"""Beside the listing of phantoms: how they were drawn."""


def usual_recipe(folder: Path) -> str:
    """Name of the configuration for a data set, unless told otherwise: the paper's, and a small one for phantoms."""
    return "phantoms" if (folder / PHANTOMS_FILENAME).is_file() else "paper"


def _setting(default: Any, meaning: str) -> Any:
    return field(default=default, metadata={"help": meaning})


@dataclass(frozen=True, slots=True)
class FitConfig:
    """Everything, beside the data, that decides what a training run computes. The defaults are the paper's.

    What CrossEAI (arXiv 2310.19835, section 4.2) does not say is taken from the public code of SCALP (Jaiswal et al.,
    ICDM 2021), which it trains by: SGD with momentum 0.9, a tenth of the learning rate after every seventh epoch, 20
    epochs, temperature 0.5. Where the two differ the paper wins; the recipe ``scalp`` has the other choice.

    A field's meaning is its ``help``; ``crosseai-train fit --help`` lists them all.

    Raises
    ------
    InputError
        If a value is of another type than its default, or out of range.
    """

    architecture: str = _setting("resnet50", "Network.")
    triplet_attention: bool = _setting(True, "Triplet attention at the end of every residual block.")
    width: int = _setting(64, "Channels of the stem; the published networks have 64.")
    input_size: int = _setting(224, "Side of the square input, in pixels.")
    epochs: int = _setting(20, "Passes over the training part, at most.")
    batch_size: int = _setting(128, "Images a step, over all processes and accumulated parts.")
    accumulate: int = _setting(1, "Parts a batch is computed in; contrastive pairs are sought within a part.")
    optimizer: Literal["sgd", "adamw"] = _setting("sgd", "SGD with momentum 0.9, or AdamW.")
    learning_rate: float = _setting(0.01, "Learning rate; of one-cycle, its peak.")
    schedule: Literal["step", "one-cycle", "constant"] = _setting(
        "step", "A tenth after every seventh epoch, one cycle (Smith & Topin 2019), or constant."
    )
    weight_decay: float = _setting(1e-4, "Weight decay of the classifier.")
    projection_weight_decay: float = _setting(1e-6, "Weight decay of the contrastive projection head.")
    cross_entropy_weight: float = _setting(0.8, "Lambda of equation 3; 1 trains without the contrastive term.")
    class_reduction: Literal["sum", "mean"] = _setting("sum", "Cross-entropy over diseases: equation 2 sums.")
    contrast: Literal["disease", "patient"] = _setting(
        "disease",
        "Positive pairs share patient and disease, negatives the disease alone (equation 1); or pairs share the "
        "patient, and every other image of the batch is a negative.",
    )
    positive_in_denominator: bool = _setting(True, "Count the positive in the denominator of equation 1, too.")
    temperature: float = _setting(0.5, "Tau of equation 1.")
    balance: bool = _setting(False, "Weigh positives of a disease by its negatives over its positives.")
    label_smoothing: float = _setting(0.0, "Share of a label that is moved towards 0.5.")
    average_decay: float = _setting(0.0, "Decay a step of an exponential moving average of the weights; 0 is off.")
    sensitivity: float = _setting(
        0.0, "Sensitivity that operating points must have on the validation part; 0 chooses Youden's."
    )
    patience: int = _setting(0, "Stop after so many epochs without a better validation AUC; 0 is never.")
    precision: Literal["fp32", "bf16", "fp16"] = _setting("fp32", "Arithmetic of the forward pass (autocast).")
    compile: bool = _setting(False, "Compile the network with torch.compile.")
    deterministic: bool = _setting(False, "Only deterministic kernels: bit-equal runs on a GPU, too, but slower.")
    seed: int = _setting(0, "Decides split, fresh weights, order, augmentation.")

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            _check_type(name, getattr(self, name), kind)
        for rule, holds in (
            ("input_size >= 1", self.input_size >= 1),
            ("width >= 1", self.width >= 1),
            ("epochs >= 1", self.epochs >= 1),
            ("batch_size >= 2", self.batch_size >= 2),
            ("1 <= accumulate <= batch_size / 2", 1 <= self.accumulate <= self.batch_size // 2),
            ("learning_rate > 0", 0 < self.learning_rate < math.inf),
            ("weight_decay >= 0", 0 <= self.weight_decay < math.inf),
            ("projection_weight_decay >= 0", 0 <= self.projection_weight_decay < math.inf),
            ("cross_entropy_weight in 0..1", 0 <= self.cross_entropy_weight <= 1),
            ("temperature > 0", 0 < self.temperature < math.inf),
            ("label_smoothing in 0..1", 0 <= self.label_smoothing <= 1),
            ("average_decay >= 0 and below 1", 0 <= self.average_decay < 1),
            ("patience >= 0", self.patience >= 0),
            ("sensitivity in 0..1", 0 <= self.sensitivity <= 1),
        ):
            if not holds:
                raise InputError(f"training: expected {rule}, found {getattr(self, _subject(rule))}")

    @property
    def network(self) -> Architecture:
        """How ``build_model`` makes the network."""
        return Architecture(self.architecture, self.triplet_attention, self.width)

    def changed(self, settings: Mapping[str, Any]) -> "FitConfig":
        """This configuration with some fields replaced.

        Raises
        ------
        InputError
            If a field is unknown or its value impossible.
        """
        known = [f.name for f in fields(self)]
        if unknown := sorted(set(settings) - set(known)):
            raise InputError(f"training: unknown settings {unknown}; known: {known}")
        return replace(self, **settings)

    @classmethod
    def load(cls, recipe: str | Path) -> "FitConfig":
        """Read a configuration: the name of a recipe, or a TOML file of fields; those it lacks are the paper's.

        Raises
        ------
        InputError
            If the file cannot be read, is not TOML, or has an unknown field or an impossible value.
        """
        named = recipe in RECIPES
        file = files("crosseai.training") / "recipes" / f"{recipe}.toml" if named else Path(recipe)
        try:
            settings = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"configuration {recipe}: expected one of {RECIPES} or a TOML file: {reason(error)}"
            ) from error
        try:
            return cls().changed(settings)
        except InputError as error:
            raise InputError(f"configuration {recipe}: {error}") from error


def _check_type(name: str, value: Any, kind: Any) -> None:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise InputError(f"training: expected {name} to be one of {get_args(kind)}, found {value!r}")
    elif type(value) is not kind and not (kind is float and type(value) is int):
        raise InputError(f"training: expected {name} of type {kind.__name__}, found {value!r}")


def _subject(rule: str) -> str:
    return next(word for word in rule.split() if word in FitConfig.__slots__)
