"""DICOM to radiograph: which objects are accepted, and why others are not."""

import io

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID

from crosseai.contract import UnreadableImageError, UnsupportedImageError
from crosseai.imaging.codestream import DECODERS, decode_pixel_data
from crosseai.imaging.grayscale import to_display_values
from crosseai.imaging.quiet import quiet_pydicom
from crosseai.imaging.radiograph import MAX_PIXELS, Radiograph, RadiographMetadata

MODALITIES = ("CR", "DX", "RG", "DR")
"""Projection radiography (PS3.3 C.7.3.1.1.1); DR is no defined term, but some consoles write it."""

CHEST = ("CHEST", "THORAX", "TORAX", "LUNG", "RIB")
"""A Body Part Examined that contains one of these shows the lungs."""

_SHAPE_OF = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}
"""The Presentation LUT Shape that goes with each Photometric Interpretation (PS3.3 C.8.11.3)."""

# Nothing else is parsed, so what identifies the patient reaches neither results nor messages.
_KEYWORDS = [
    "Modality",
    "BodyPartExamined",
    "ViewPosition",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "PresentationLUTShape",
    "PixelData",
]


def decode_dicom(content: bytes) -> Radiograph:
    """Decode a single-frame grayscale chest radiograph; its pixels are display values.

    A missing Body Part Examined is accepted, another one than the chest is not. See
    :func:`crosseai.imaging.grayscale.to_display_values` for the transform.

    Raises
    ------
    UnreadableImageError
        If the file is truncated or corrupt.
    UnsupportedImageError
        If it is not one grayscale chest radiograph, or has no contrast.
    """
    with quiet_pydicom():
        dataset = _parse(content)
        _require_chest(dataset)
        _require_one_grayscale_frame(dataset)
        pixels = to_display_values(decode_pixel_data(dataset), dataset)
        metadata = RadiographMetadata(
            source_format="dicom",
            bits_stored=_integer(dataset, "BitsStored"),
            modality=_text(dataset, "Modality"),
            body_part=_text(dataset, "BodyPartExamined"),
            view_position=_text(dataset, "ViewPosition"),
            photometric_interpretation=_text(dataset, "PhotometricInterpretation"),
            transfer_syntax=str(dataset.file_meta.TransferSyntaxUID),
        )
    return Radiograph(pixels, (0.0, float(np.iinfo(pixels.dtype).max)), metadata)


def _parse(content: bytes) -> Dataset:
    stream = io.BytesIO(content)
    stream.seek(132)
    try:
        # The transfer syntax is checked first: a deflated data set would inflate without a limit.
        meta = read_dataset(stream, is_implicit_VR=False, is_little_endian=True, stop_when=_after_file_meta)
        syntax = str(meta.get("TransferSyntaxUID") or "")
        if syntax in DECODERS:
            stream.seek(0)
            dataset = pydicom.dcmread(stream, specific_tags=list(_KEYWORDS))
            if len(dataset):
                return dataset
    except Exception as error:  # pydicom raises anything on malformed input
        raise UnreadableImageError(f"DICOM: the header cannot be parsed ({type(error).__name__})") from error
    if syntax in DECODERS:
        raise UnreadableImageError("DICOM: expected the attributes of an image, found none: cut short, or no image")
    if not UID(syntax).is_valid:
        raise UnreadableImageError("DICOM: expected a Transfer Syntax UID (0002,0010), found none")
    raise UnsupportedImageError(f"DICOM: the transfer syntax {syntax!r} is not supported")


def _after_file_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag.group != 2


def _require_chest(dataset: Dataset) -> None:
    modality, body_part = _text(dataset, "Modality"), _text(dataset, "BodyPartExamined")
    if modality not in MODALITIES:
        raise UnsupportedImageError(f"DICOM: expected the modality {', '.join(MODALITIES)}, found {modality!r}")
    if body_part and not any(name in body_part.upper() for name in CHEST):
        raise UnsupportedImageError(f"DICOM: expected a chest, found the body part {body_part!r}")


def _require_one_grayscale_frame(dataset: Dataset) -> None:
    if "PixelData" not in dataset:
        raise UnsupportedImageError("DICOM: expected Pixel Data (7FE0,0010), found none")
    photometric, shape = _text(dataset, "PhotometricInterpretation"), _text(dataset, "PresentationLUTShape")
    if photometric not in _SHAPE_OF or (samples := _integer(dataset, "SamplesPerPixel")) != 1:
        found = photometric if photometric not in _SHAPE_OF else f"{samples} samples a pixel"
        raise UnsupportedImageError(f"DICOM: expected MONOCHROME1 or MONOCHROME2, found {found!r}")
    if shape and shape != _SHAPE_OF[photometric]:
        raise UnsupportedImageError(f"DICOM: {photometric} and the Presentation LUT Shape {shape!r} contradict")
    if "NumberOfFrames" in dataset and (frames := _integer(dataset, "NumberOfFrames")) != 1:
        raise UnsupportedImageError(f"DICOM: expected one frame, found {frames}")
    rows, columns = _integer(dataset, "Rows"), _integer(dataset, "Columns")
    if not 0 < rows * columns <= MAX_PIXELS:
        raise UnsupportedImageError(f"DICOM: expected 1 to {MAX_PIXELS} pixels, found {columns} x {rows}")
    allocated, stored, high, signed = (
        _integer(dataset, keyword) for keyword in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    )
    if allocated not in (8, 16) or not 1 < stored <= allocated or high != stored - 1 or signed not in (0, 1):
        raise UnsupportedImageError(
            "DICOM: expected 8 or 16 bits allocated, 2 or more of them stored and ending at the high bit, found "
            f"{allocated} allocated, {stored} stored, high bit {high}, pixel representation {signed}"
        )


def _text(dataset: Dataset, keyword: str) -> str:
    try:
        text = str(dataset.get(keyword) or "").strip()
    except Exception as error:  # as in _parse: elements are converted when they are first asked for
        raise UnreadableImageError(f"DICOM: {keyword} cannot be parsed") from error
    # An element of corrupt length may have swallowed others, the patient's name among them.
    if not text.isprintable() or len(text) > 64:
        raise UnreadableImageError(f"DICOM: {keyword} is corrupt")
    return text


def _integer(dataset: Dataset, keyword: str) -> int:
    try:
        return int(dataset[keyword].value)
    except Exception as error:
        raise UnreadableImageError(f"DICOM: expected an integer {keyword}, found none") from error
