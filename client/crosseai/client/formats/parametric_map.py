"""Parametric map: the fused maps behind the boxes, in floating point."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TypeAlias

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from crosseai.client.formats.dicom_context import (
    MANUFACTURER,
    SOFTWARE,
    frame_of_reference_uid,
    instance_uid,
    series_uid,
)
from crosseai.contract import NO_BOX, Finding, ImageResult, ModelIdentity

_Direction: TypeAlias = tuple[float, float, float]

# Unit vectors of DICOM's patient coordinates: left, posterior, head (PS3.3 C.7.6.2.1.1).
_DIRECTIONS: Mapping[str, _Direction] = {
    "L": (1.0, 0.0, 0.0),
    "R": (-1.0, 0.0, 0.0),
    "P": (0.0, 1.0, 0.0),
    "A": (0.0, -1.0, 0.0),
    "H": (0.0, 0.0, 1.0),
    "F": (0.0, 0.0, -1.0),
}
_FUSED_MAP = hd.sr.CodedConcept("FUSEDMAP", "99CROSSEAI", "Fused map of heat map and gradient map, 0 to 255")


def parametric_map(
    context: Dataset, result: ImageResult, model: ModelIdentity, fused: Sequence[npt.NDArray[np.float32]]
) -> Dataset | None:
    """One frame for each finding that has a box, its fused map at the model's resolution; None without a box.

    A frame covers the whole radiograph, from outer edge to outer edge: its Pixel Spacing is the radiograph's, stretched
    as the image was for the model (1 mm a pixel of a radiograph that states none). The standard wants a frame of
    reference, which a radiograph has not: this is one of its own, the detector's plane. The Real World Value Mapping is
    the identity, without a unit, and its label names the disease.

    Parameters
    ----------
    context
        Header of the radiograph.
    result
        Its result.
    model
        The model that made the result.
    fused
        float32 ``[S, S]``, 0..255, one for each of ``result.findings``.
    """
    if not result.localized:
        return None
    maps = [values for finding, values in zip(result.findings, fused, strict=True) if finding.box_image_px != NO_BOX]
    made = hd.pm.ParametricMap(
        source_images=[_stretched(context, *maps[0].shape)],
        pixel_array=np.stack(maps, axis=-1)[np.newaxis],
        series_instance_uid=series_uid(context, model, "parametric-map"),
        series_number=9004,
        sop_instance_uid=instance_uid(context, model, "parametric-map", result),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=model.name,
        software_versions=SOFTWARE,
        device_serial_number=model.version,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[[_identity(finding)] for finding in result.localized],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=127.5, window_width=255)],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label="CROSSEAI",
        content_description=f"Fused maps by CrossEAI {model.version[:24]}, for research",
        series_description=f"CrossEAI fused maps, model {model.version}, for research",
    )
    made.Laterality = ""  # of type 2C
    return made


def _identity(finding: Finding) -> hd.pm.RealWorldValueMapping:
    return hd.pm.RealWorldValueMapping(
        lut_label=finding.disease[:16],
        lut_explanation=f"Fused map of {finding.disease}"[:64],
        unit=codes.UCUM.NoUnits,
        value_range=(0.0, 255.0),
        slope=1.0,
        intercept=0.0,
        quantity_definition=_FUSED_MAP,
    )


def _stretched(context: Dataset, height: int, width: int) -> Dataset:
    """The header, as if the radiograph had ``height x width`` pixels and lay in a frame of reference of its own."""
    stretched = deepcopy(context)
    row, column = _directions(context)
    spacing = context.get("PixelSpacing") or context.get("ImagerPixelSpacing")
    if not spacing or not all(spacing):
        spacing = (1.0, 1.0)
    stretched.PixelSpacing = [spacing[0] * context.Rows / height, spacing[1] * context.Columns / width]
    stretched.Rows, stretched.Columns = height, width
    stretched.FrameOfReferenceUID = frame_of_reference_uid(context)
    stretched.ImagePositionPatient = [0.0, 0.0, 0.0]
    stretched.ImageOrientationPatient = [*row, *column]
    stretched.SliceThickness = None
    return stretched


def _directions(context: Dataset) -> tuple[_Direction, _Direction]:
    """Directions of rows and columns, from the radiograph's Patient Orientation, else those of a frontal view."""
    row, column = (_DIRECTIONS.get(str(letters)[:1]) for letters in context.get("PatientOrientation") or ("", ""))
    if row is None or column is None or np.dot(row, column) != 0:
        return _DIRECTIONS["L"], _DIRECTIONS["F"]
    return row, column
