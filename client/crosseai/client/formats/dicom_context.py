"""What every DICOM object of ours takes from the radiograph that it speaks of: patient, study, identity."""

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Literal, TypeAlias

import pydicom
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.valuerep import validate_value

from crosseai.client.sources.storage import open_file
from crosseai.contract import Finding, ImageResult, ModelIdentity, UnsupportedImageError

DicomObject: TypeAlias = Literal["dicom-sr", "gsps", "secondary-capture", "parametric-map"]
"""What is made of a scored DICOM radiograph."""

MANUFACTURER = "CrossEAI"
SOFTWARE = f"crosseai {version('crosseai')}"

_REQUIRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns")
# Type 2 attributes of the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1): present, and empty where unknown.
_MAY_BE_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)

_CHECKED = ("AS", "CS", "DA", "DT", "LO", "PN", "SH", "TM", "UI")


def read_context(location: str | Path) -> Dataset:
    """Header of a radiograph, without its pixels, as a start for other objects of its study.

    Attributes of type 2 that it lacks are there and empty; values that their VR does not allow (pseudonymised files
    have hashes for dates) are emptied, because they must not be passed on.

    Raises
    ------
    UnsupportedImageError
        If it lacks what names the image or its study.
    """
    with open_file(str(location)) as file:
        context = pydicom.dcmread(file, stop_before_pixels=True)
    for element in context:
        if element.VR in _CHECKED and not _is_valid(element.VR, element.value):
            element.value = None
    missing = [keyword for keyword in _REQUIRED if not context.get(keyword)]
    if missing:
        raise UnsupportedImageError(f"DICOM: an object that refers to the image needs {', '.join(missing)}: found none")
    for keyword in _MAY_BE_EMPTY:
        if keyword not in context:
            setattr(context, keyword, None)
    return context


def _is_valid(vr: str, value: object) -> bool:
    try:
        validate_value(vr, str(value), config.RAISE)
    except ValueError:
        return False
    return True


def series_uid(context: Dataset, model: ModelIdentity, kind: str) -> str:
    """Series of the objects of one kind that a model makes for a study: always the same."""
    return _uid(context.StudyInstanceUID, model, kind)


def instance_uid(context: Dataset, model: ModelIdentity, kind: str, result: ImageResult) -> str:
    """Name of the object made of a result: another one only if the image, the model or the findings differ.

    Probabilities and scores count to the digits that objects show: the last bits of a probability depend on the images
    that shared its batch, and must not make another object of the same findings.
    """
    findings = [(f.disease, shown_probability(f), f.box_image_px, shown_score(f)) for f in result.localized]
    return _uid(context.SOPInstanceUID, model, kind, findings)


def shown_probability(finding: Finding) -> float:
    """A finding's probability, to four digits."""
    return round(finding.probability, 4)


def shown_score(finding: Finding) -> float:
    """A finding's box score, to one digit."""
    return round(finding.score, 1)


def frame_of_reference_uid(context: Dataset) -> str:
    """Frame of reference of what lies in the plane of an image."""
    return _uid(context.SOPInstanceUID, "plane")


def _uid(*facts: object) -> str:
    # The 2.25 root needs no registration (PS3.5 B.2).
    digest = hashlib.sha256("\0".join(map(repr, facts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"
