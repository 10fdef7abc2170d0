"""What the parts of CrossEAI agree on: tensors, model spec, results, labels and errors.

Conventions, stated once:

- images are ``(H, W)``, batches ``(N, C, H, W)``, all C-contiguous, 0 is black;
- masks are uint8 in {0, 1};
- boxes are int32, half-open ``(x0, y0, x1, y1)`` in pixels, origin at the top-left corner, and their name says
  the frame: ``box_model_px`` (the model's square input) or ``box_image_px`` (the original image).
"""

from crosseai.contract.boxes import NIH_BOX_SIDE_PX, NO_BOX, PRESETS, Box, BoxParameters, box_preset
from crosseai.contract.errors import (
    AccessRefused,
    ContractError,
    CrossEAIError,
    InferenceTimeout,
    InputError,
    InvalidMapError,
    InvalidMaskError,
    OutputError,
    PostprocError,
    ServerError,
    ServerUnavailable,
    UnreadableImageError,
    UnsupportedImageError,
    reason,
)
from crosseai.contract.labels import CHESTXRAY8, NO_FINDING, UNCERTAIN, canonical_label, class_index
from crosseai.contract.registry import (
    CANDIDATE,
    CHAMPION,
    DEPLOYMENT_ERROR_TAG,
    GOLDEN_FILENAME,
    GOLDEN_SHA256_TAG,
    ONNX_SHA256_TAG,
    PARITY_TAG,
    PREVIOUS,
    mlflow_environment,
    tracking_uri,
)
from crosseai.contract.results import RESEARCH_NOTICE, Finding, ImageFailure, ImageResult, ModelIdentity, Stage
from crosseai.contract.spec import MODEL_FILENAME, SPEC_FILENAME, Architecture, ModelSpec
from crosseai.contract.tensors import TensorSpec

__all__ = [
    "CANDIDATE",
    "CHAMPION",
    "CHESTXRAY8",
    "DEPLOYMENT_ERROR_TAG",
    "GOLDEN_FILENAME",
    "GOLDEN_SHA256_TAG",
    "MODEL_FILENAME",
    "NIH_BOX_SIDE_PX",
    "NO_BOX",
    "NO_FINDING",
    "ONNX_SHA256_TAG",
    "PARITY_TAG",
    "PRESETS",
    "PREVIOUS",
    "RESEARCH_NOTICE",
    "SPEC_FILENAME",
    "UNCERTAIN",
    "AccessRefused",
    "Architecture",
    "Box",
    "BoxParameters",
    "ContractError",
    "CrossEAIError",
    "Finding",
    "ImageFailure",
    "ImageResult",
    "InferenceTimeout",
    "InputError",
    "InvalidMapError",
    "InvalidMaskError",
    "ModelIdentity",
    "ModelSpec",
    "OutputError",
    "PostprocError",
    "ServerError",
    "ServerUnavailable",
    "Stage",
    "TensorSpec",
    "UnreadableImageError",
    "UnsupportedImageError",
    "box_preset",
    "canonical_label",
    "class_index",
    "mlflow_environment",
    "reason",
    "tracking_uri",
]
