"""The model spec: everything that a client, a server and an exporter must agree on."""

import json
import math
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from crosseai.contract.boxes import BoxParameters, box_preset
from crosseai.contract.errors import ContractError, reason
from crosseai.contract.labels import CHESTXRAY8
from crosseai.contract.tensors import TensorSpec

SPEC_FILENAME = "model_spec.json"
MODEL_FILENAME = "model.onnx"
SCHEMA_VERSION = 1

Precision: TypeAlias = Literal["fp32", "fp16"]
"""Arithmetic inside an exported graph."""

HeatmapMethod: TypeAlias = Literal["gradcam++", "gradcam", "layercam", "cam"]
"""How heat maps are made: Grad-CAM++, Grad-CAM, LayerCAM, CAM."""

GradientMethod: TypeAlias = Literal["guided", "deconvnet", "plain"]
"""Rule of every ReLU on the way back to the image: Guided Backpropagation, deconvolution, the true gradient."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """How ``crosseai.training.build_model`` made the network.

    Parameters
    ----------
    name
        Registry name, for example ``resnet50``.
    triplet_attention
        Whether every residual block ends in triplet attention.
    width
        Channels of the stem; 64 is the published network.
    """

    name: str = "resnet50"
    triplet_attention: bool = True
    width: int = 64


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A classifier as it is trained, exported, served and scored.

    Parameters
    ----------
    name
        Model name in the registry and in Triton.
    classes
        Disease of each logit, in order.
    calibration_slopes, calibration_intercepts
        From each class's logit to its probability, in the order of ``classes``: see :meth:`probabilities`. Empty
        means slope 1 and intercept 0, the plain sigmoid.
    operating_points
        Probability at and above which each class is called positive, in the order of ``classes``; empty means
        0.5 for every class.
    positive_rates
        Share of the validation images that reach each class's operating point, in the order of ``classes``: what a
        stream of images is compared with to see whether it drifts. Empty means not known.
    input_size
        Side ``S`` of the square input, in model pixels.
    channels
        Channels of the network's own input, 1 or 3 (the gray image is repeated).
    mean, std
        Normalisation ``(gray / 255 - mean) / std``, one value a channel.
    resize
        How an image becomes ``S x S``. ``stretch-area``: the whole image, area interpolation, no crop.
    layer
        Layer that the heat maps are of.
    heatmap
        How the served heat maps are made.
    gradient
        How the served gradient maps are made.
    feature_shape
        ``(D, h, w)`` of that layer's activations.
    boxes
        Parameters of the box algorithm recommended for this model: what a client uses unless told otherwise.
    architecture
        How to rebuild the network, or None for a network that is not ours.
    precision
        Arithmetic inside the exported graph. Inputs and outputs have the same dtypes at every precision.
    weights_sha256
        SHA-256 of the weights file that was exported, or empty.
    schema_version
        Version of this schema.
    """

    name: str = "crosseai"
    classes: tuple[str, ...] = CHESTXRAY8
    calibration_slopes: tuple[float, ...] = ()
    calibration_intercepts: tuple[float, ...] = ()
    operating_points: tuple[float, ...] = ()
    positive_rates: tuple[float, ...] = ()
    input_size: int = 224
    channels: int = 1
    mean: tuple[float, ...] = (0.449,)
    std: tuple[float, ...] = (0.226,)
    resize: Literal["stretch-area"] = "stretch-area"
    layer: str = "layer4"
    heatmap: HeatmapMethod = "gradcam++"
    gradient: GradientMethod = "guided"
    feature_shape: tuple[int, int, int] = (2048, 7, 7)
    boxes: BoxParameters = field(default_factory=lambda: box_preset("tuned"))
    architecture: Architecture | None = None
    precision: Precision = "fp32"
    weights_sha256: str = ""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        for name, usual in (("calibration_slopes", 1.0), ("calibration_intercepts", 0.0), ("operating_points", 0.5)):
            if not getattr(self, name):
                object.__setattr__(self, name, (usual,) * len(self.classes))
        for rule, holds in (
            (f"schema_version is {SCHEMA_VERSION}", self.schema_version == SCHEMA_VERSION),
            ("classes are given, unique and not empty", len(set(self.classes)) == len(self.classes) > 0),
            ("there is one calibration slope a class", len(self.calibration_slopes) == len(self.classes)),
            ("calibration slopes are positive and finite", all(0 < a < math.inf for a in self.calibration_slopes)),
            ("there is one calibration intercept a class", len(self.calibration_intercepts) == len(self.classes)),
            ("calibration intercepts are finite", all(map(math.isfinite, self.calibration_intercepts))),
            ("there is one operating point a class", len(self.operating_points) == len(self.classes)),
            ("operating points lie in 0..1", all(0 <= p <= 1 for p in self.operating_points)),
            ("positive_rates are empty or one a class", len(self.positive_rates) in (0, len(self.classes))),
            ("positive rates lie in 0..1", all(0 <= p <= 1 for p in self.positive_rates)),
            ("input_size is positive", self.input_size > 0),
            ("channels is 1 or 3", self.channels in (1, 3)),
            ("mean and std have one value a channel", len(self.mean) == len(self.std) == self.channels),
            ("mean is finite", all(map(math.isfinite, self.mean))),
            ("std is positive and finite", all(0 < s < math.inf for s in self.std)),
            ("resize is 'stretch-area'", self.resize == "stretch-area"),
            (f"heatmap is one of {get_args(HeatmapMethod)}", self.heatmap in get_args(HeatmapMethod)),
            (f"gradient is one of {get_args(GradientMethod)}", self.gradient in get_args(GradientMethod)),
            ("precision is 'fp32' or 'fp16'", self.precision in get_args(Precision)),
            ("feature_shape is (D, h, w), positive", len(self.feature_shape) == 3 and min(self.feature_shape) > 0),
        ):
            if not holds:
                raise ContractError(f"model spec {self.name!r}: expected that {rule}; found {self!r}")

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Input tensors of the served model."""
        side = self.input_size
        return (TensorSpec("image", "uint8", ("N", 1, side, side)), TensorSpec("targets", "int64", ("N", "K")))

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Output tensors of the served model, the light ones first."""
        side, (depth, height, width) = self.input_size, self.feature_shape
        return (
            TensorSpec("logits", "float32", ("N", len(self.classes))),
            TensorSpec("explained", "int64", ("N", "K")),
            TensorSpec("heatmaps", "float32", ("N", "K", height, width)),
            TensorSpec("gradient_maps", "uint8", ("N", "K", side, side)),
            TensorSpec("activations", "float32", ("N", depth, height, width)),
            TensorSpec("activation_gradients", "float32", ("N", "K", depth, height, width)),
            TensorSpec("input_gradients", "float32", ("N", "K", 1, side, side)),
        )

    def calibrated(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """``slope * logit + intercept`` for each class, float32 ``[..., C]``: what ranks the classes of an image."""
        slopes, intercepts = (np.array(v, np.float32) for v in (self.calibration_slopes, self.calibration_intercepts))
        calibrated: npt.NDArray[np.float32] = logits * slopes + intercepts
        return calibrated

    def probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Calibrated probabilities of logits, ``1 / (1 + exp(-(slope * logit + intercept)))`` for each class.

        The one way from logits to probabilities. Accurate at both ends, without overflow.

        Parameters
        ----------
        logits
            float32 ``[..., C]``.

        Returns
        -------
        ndarray
            float32, same shape, 0..1; NaN where the logit is NaN.
        """
        with np.errstate(invalid="ignore"):  # a NaN needs no warning: it stays one
            probabilities: npt.NDArray[np.float32] = np.exp(-np.logaddexp(np.float32(0), -self.calibrated(logits)))
        return probabilities

    def positive(self, probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """Which classes reach their operating points; probabilities float32 ``[..., C]``, result the same shape."""
        return probabilities >= np.array(self.operating_points, np.float32)

    def to_json(self) -> str:
        """This spec as JSON; the same spec always gives the same text."""
        return json.dumps(asdict(self), indent=2, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "ModelSpec":
        """Read a spec written by :meth:`to_json`.

        Raises
        ------
        ContractError
            If the text is not JSON, or a field is missing, unknown, of another type or out of range.
        """
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise ContractError(f"model spec: expected JSON, found {text[:40]!r}") from error
        spec: ModelSpec = _typed(cls, raw, "model spec")
        return spec

    @classmethod
    def load(cls, path: Path) -> "ModelSpec":
        """Read ``model_spec.json``, or the one in a folder.

        Raises
        ------
        ContractError
            If the file is missing or not a model spec.
        """
        file = path / SPEC_FILENAME if path.is_dir() else path
        try:
            return cls.from_json(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ContractError(f"model spec: expected a file {file}: {reason(error)}") from error

    def save(self, folder: Path) -> Path:
        """Write ``model_spec.json`` into a folder and return its path."""
        file = folder / SPEC_FILENAME
        file.write_text(self.to_json() + "\n", encoding="utf-8")
        return file


def _typed(kind: Any, raw: Any, name: str) -> Any:
    """What JSON says as the annotated type: JSON knows neither tuples nor dataclasses, and 1 may be a float.

    Raises
    ------
    ContractError
        If it is of another type; the message begins with the name.
    """
    arguments = get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        kinds = get_type_hints(kind)
        if not isinstance(raw, dict) or set(raw) != set(kinds):
            found = sorted(raw) if isinstance(raw, dict) else type(raw).__name__
            raise ContractError(f"{name}: expected the fields {sorted(kinds)}, found {found}")
        return kind(**{key: _typed(kinds[key], value, f"{name}, {key}") for key, value in raw.items()})
    if type(None) in arguments:
        return None if raw is None else _typed(arguments[0], raw, name)
    if get_origin(kind) is tuple and isinstance(raw, list):
        elements = arguments[:1] * len(raw) if arguments[-1] is Ellipsis else arguments
        if len(elements) == len(raw):
            return tuple(_typed(element, value, name) for element, value in zip(elements, raw, strict=True))
    elif raw in arguments or type(raw) is kind or (kind is float and type(raw) is int):
        return raw
    raise ContractError(f"{name}: expected {kind.__name__ if isinstance(kind, type) else kind}, found {raw!r}")
