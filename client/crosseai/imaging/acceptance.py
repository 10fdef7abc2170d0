"""Which DICOM objects are scored, which with a warning, and why others are not."""

from typing import Literal, TypeAlias

from pydicom.dataset import Dataset

from crosseai.contract import UnreadableImageError, UnsupportedImageError
from crosseai.imaging.policy import ReadPolicy

Warned: TypeAlias = Literal["burned-in annotation", "for processing", "unknown body part", "unknown view"]
"""What is scored, but deserves a look."""

MODALITIES = ("CR", "DX", "RG", "DR")
"""Projection radiography (PS3.3 C.7.3.1.1.1); DR is no defined term, but some consoles write it."""

CHEST = ("CHEST", "THORAX", "TORAX", "LUNG", "RIB")
"""A Body Part Examined that contains one of these shows the lungs."""

KEYWORDS = (
    "Modality",
    "BodyPartExamined",
    "ViewPosition",
    "ViewCodeSequence",
    "PatientOrientation",
    "PresentationIntentType",
    "BurnedInAnnotation",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PresentationLUTShape",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
)
"""The attributes that are looked at here."""

_SHAPE_OF = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}
"""The Presentation LUT Shape that goes with each Photometric Interpretation (PS3.3 C.8.11.3)."""

_FRONTAL_CODES = {"399348003": "AP", "R-10206": "AP", "272479007": "PA", "R-10214": "PA"}
"""SNOMED CT and SRT codes of the frontal views (PS3.16 CID 4010)."""

# Messages quote nothing else: a misplaced attribute may hold the patient's name.
_QUOTABLE = frozenset(
    """
    BI BMD CT CR DG DX ECG ES GM IO IVUS KO LS MG MR NM OP OPT PR PT PX RF RG RTDOSE RTIMAGE RTPLAN RTSTRUCT SC SEG
    SM SR US XA XC
    ABDOMEN ANKLE ARM BREAST CALCANEUS CLAVICLE COCCYX CSPINE ELBOW EXTREMITY FEMUR FINGER FOOT FOREARM HAND HEAD HEART
    HIP HUMERUS JAW KNEE LEG LSPINE NECK PELVIS RADIUS SACRUM SCAPULA SHOULDER SKULL SPINE SSPINE STERNUM THUMB TIBIA
    TOE TSPINE WRIST
    AP PA LL RL RLD LLD RLO LLO LAT LATERAL
    ARGB CMYK HSV RGB YBR_FULL YBR_FULL_422 YBR_ICT YBR_PARTIAL_420 YBR_RCT
    IDENTITY INVERSE
    """.split()  # noqa: SIM905 (eighty words are easier to read than eighty strings)
) | {"PALETTE COLOR", "WHOLE BODY", "LIN OD"}


def require_scorable(dataset: Dataset, policy: ReadPolicy) -> tuple[Warned, ...]:
    """Refuse what is not one grayscale chest radiograph in a wanted view; returns what to warn of.

    Raises
    ------
    UnreadableImageError
        If an attribute is missing or malformed.
    UnsupportedImageError
        If it is another kind of image.
    """
    _require_chest(dataset)
    view = view_position(dataset)
    if view and policy.views and view not in policy.views:
        raise UnsupportedImageError(f"DICOM: expected the view {' or '.join(policy.views)}, found {_quoted(view)}")
    _require_one_grayscale_frame(dataset, policy)
    warned: dict[Warned, bool] = {
        "burned-in annotation": text(dataset, "BurnedInAnnotation") == "YES",
        "for processing": text(dataset, "PresentationIntentType") == "FOR PROCESSING",
        "unknown body part": not text(dataset, "BodyPartExamined"),
        "unknown view": not view,
    }
    return tuple(name for name, applies in warned.items() if applies)


def view_position(dataset: Dataset) -> str:
    """View Position in capitals, else what View Code Sequence and Patient Orientation tell of it; empty if nothing."""
    if view := text(dataset, "ViewPosition").upper():
        return view
    try:
        if dataset.get("ViewCodeSequence"):
            return _FRONTAL_CODES.get(str(dataset.ViewCodeSequence[0].CodeValue), "OTHER")
        rows_run_to = str((dataset.get("PatientOrientation") or [""])[0])
    except Exception:
        raise UnreadableImageError("DICOM: the view cannot be parsed") from None
    return "LATERAL" if rows_run_to in ("A", "P") else ""


def text(dataset: Dataset, keyword: str) -> str:
    """A text attribute; empty if it is missing.

    Raises
    ------
    UnreadableImageError
        If it cannot be text of one attribute.
    """
    try:
        value = str(dataset.get(keyword) or "").strip()
    except Exception:  # elements are converted when they are first asked for, and pydicom raises anything
        raise UnreadableImageError(f"DICOM: {keyword} cannot be parsed") from None
    # An element of corrupt length may have swallowed others, the patient's name among them.
    if not value.isprintable() or len(value) > 64:
        raise UnreadableImageError(f"DICOM: {keyword} is corrupt")
    return value


def integer(dataset: Dataset, keyword: str) -> int:
    """An integer attribute.

    Raises
    ------
    UnreadableImageError
        If it is missing or no integer.
    """
    try:
        return int(dataset[keyword].value)
    except Exception:
        raise UnreadableImageError(f"DICOM: expected an integer {keyword}, found none") from None


def _require_chest(dataset: Dataset) -> None:
    modality, body_part = text(dataset, "Modality"), text(dataset, "BodyPartExamined")
    if modality not in MODALITIES:
        raise UnsupportedImageError(f"DICOM: expected the modality {', '.join(MODALITIES)}, found {_quoted(modality)}")
    if body_part and not any(name in body_part.upper() for name in CHEST):
        raise UnsupportedImageError(f"DICOM: expected a chest, found the body part {_quoted(body_part)}")


def _require_one_grayscale_frame(dataset: Dataset, policy: ReadPolicy) -> None:
    if "PixelData" not in dataset:
        raise UnsupportedImageError("DICOM: expected Pixel Data (7FE0,0010), found none")
    photometric, shape = text(dataset, "PhotometricInterpretation"), text(dataset, "PresentationLUTShape")
    if photometric not in _SHAPE_OF or integer(dataset, "SamplesPerPixel") != 1:
        found = _quoted(photometric) if photometric not in _SHAPE_OF else "several samples a pixel"
        raise UnsupportedImageError(f"DICOM: expected MONOCHROME1 or MONOCHROME2, found {found}")
    if shape and shape != _SHAPE_OF[photometric]:
        raise UnsupportedImageError(f"DICOM: {photometric} and the Presentation LUT Shape {_quoted(shape)} contradict")
    if "NumberOfFrames" in dataset and integer(dataset, "NumberOfFrames") != 1:
        raise UnsupportedImageError("DICOM: expected one frame, found several")
    rows, columns = integer(dataset, "Rows"), integer(dataset, "Columns")
    if not 0 < rows * columns <= policy.max_pixels:
        raise UnsupportedImageError(f"DICOM: expected 1 to {policy.max_pixels} pixels, found {columns} x {rows}")
    allocated, stored, high, signed = (
        integer(dataset, keyword) for keyword in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    )
    if allocated not in (8, 16) or not 1 < stored <= allocated or high != stored - 1 or signed not in (0, 1):
        raise UnsupportedImageError(
            "DICOM: expected 8 or 16 bits allocated, 2 or more of them stored and ending at the high bit, found "
            f"{allocated} allocated, {stored} stored, high bit {high}, pixel representation {signed}"
        )


def _quoted(value: str) -> str:
    if not value:
        return "none"
    return repr(value) if value.upper() in _QUOTABLE else "another one"
