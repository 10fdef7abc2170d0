"""A radiograph in memory: what every reader yields and every later step takes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from crosseai.contract import InputError


@dataclass(frozen=True, slots=True)
class RadiographMetadata:
    """What is known about an image besides its pixels; never who the patient is.

    Parameters
    ----------
    source_format
        Container that the image came from.
    bits_stored
        Significant bits of a stored value.
    modality, body_part, view_position
        The DICOM attributes (0008,0060), (0018,0015) and (0018,5101), the last also as other attributes tell it; empty
        when absent.
    photometric_interpretation
        DICOM attribute (0028,0004); empty for PNG and JPEG. The pixels of a radiograph are 0 = black whatever it says.
    transfer_syntax
        UID of the DICOM transfer syntax; empty for PNG and JPEG.
    """

    source_format: Literal["dicom", "png", "jpeg"]
    bits_stored: int
    modality: str = ""
    body_part: str = ""
    view_position: str = ""
    photometric_interpretation: str = ""
    transfer_syntax: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Radiograph:
    """One grayscale image, 0 = black, in the orientation in which it is displayed.

    Parameters
    ----------
    pixels
        uint8, uint16 or float32, shape ``(H, W)``, C-contiguous.
    display_range
        ``(low, high)``: the pixel values shown as black and as white; values beyond are clipped.
    metadata
        Where the image came from.
    warnings
        What deserves a look, in fixed words that never name the patient: ``burned-in annotation``, ``for processing``
        (raw detector values), ``unknown body part``, ``unknown view``.
    identifiers
        Who and which study it is, by DICOM keyword; empty unless asked for (``ReadPolicy.with_identifiers``).

    Raises
    ------
    InputError
        If dtype, shape, memory layout or display range is not as described.
    """

    pixels: npt.NDArray[Any]
    display_range: tuple[float, float]
    metadata: RadiographMetadata
    warnings: tuple[str, ...] = ()
    identifiers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pixels, (low, high) = self.pixels, self.display_range
        if pixels.dtype not in (np.uint8, np.uint16, np.float32) or pixels.ndim != 2 or not pixels.size:
            found = f"{pixels.dtype}{list(pixels.shape)}"
            raise InputError(f"radiograph: expected uint8, uint16 or float32 pixels of shape (H, W), found {found}")
        if not pixels.flags.c_contiguous:
            raise InputError(f"radiograph: expected C-contiguous pixels, found strides {pixels.strides}")
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InputError(f"radiograph: expected a display range low < high, found {self.display_range}")

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.pixels.shape[1])
