"""What scoring an image yields."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from crosseai.contract.boxes import NO_BOX, Box

RESEARCH_NOTICE = "Research software, not a medical device."
"""What every report says."""

Stage: TypeAlias = Literal["read", "preprocess", "infer", "write"]
"""Where in the pipeline an image can fail."""


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model found it: name, version in the registry, and SHA-256 of its graph."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One explained disease of one image.

    Parameters
    ----------
    disease
        Class name.
    probability
        Calibrated probability (:meth:`ModelSpec.probabilities`), 0..1.
    box_image_px
        Bounding box in pixels of the original image; ``NO_BOX`` when the maps hold none.
    box_model_px
        The same box in pixels of the model's square input.
    score
        Mean fused intensity of the box, 0..255 (the box algorithm's criterion).
    """

    disease: str
    probability: float
    box_image_px: Box = NO_BOX
    box_model_px: Box = NO_BOX
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class ImageResult:
    """One scored image.

    Parameters
    ----------
    image_id
        Hash of the file's content.
    path
        The file, relative to the scored directory.
    width, height
        Size of the original image in pixels.
    model_version
        Version of the model that answered.
    probabilities
        Probability for every class of the model.
    positive
        Whether each class reaches its operating point.
    findings
        The explained classes.
    warnings
        What deserves a look before the result is used, in fixed words that never name the patient.
    """

    image_id: str
    path: str
    width: int
    height: int
    model_version: str
    probabilities: Mapping[str, float]
    positive: Mapping[str, bool]
    findings: tuple[Finding, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def localized(self) -> tuple[Finding, ...]:
        """The findings that have a box."""
        return tuple(finding for finding in self.findings if finding.box_image_px != NO_BOX)


@dataclass(frozen=True, slots=True)
class ImageFailure:
    """One file that could not be scored.

    Parameters
    ----------
    path
        The file, relative to the scored directory.
    error
        Class name of the error.
    message
        What was expected and what was found; never a patient identifier.
    stage
        Where it failed.
    """

    path: str
    error: str
    message: str
    stage: Stage
