"""DICOM to radiograph: which objects are accepted, and how stored values become display values."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi
from pydicom.pixels.utils import pixel_array

from crosseai.contract import UnreadableImageError, UnsupportedImageError
from crosseai.imaging.radiograph import MAX_PIXELS, Radiograph, RadiographMetadata

MODALITIES = ("CR", "DX", "RG", "DR")
"""Projection radiography (PS3.3 C.7.3.1.1.1); DR is no defined term, but some consoles write it."""

CHEST = ("CHEST", "THORAX", "TORAX", "LUNG", "RIB")
"""A Body Part Examined that contains one of these shows the lungs."""

_DECODERS = {
    "1.2.840.10008.1.2": "",  # implicit VR little endian
    "1.2.840.10008.1.2.1": "",  # explicit VR little endian
    "1.2.840.10008.1.2.2": "",  # explicit VR big endian
    "1.2.840.10008.1.2.5": "pydicom",  # RLE
    "1.2.840.10008.1.2.4.50": "gdcm",  # JPEG baseline
    "1.2.840.10008.1.2.4.51": "gdcm",  # JPEG extended
    "1.2.840.10008.1.2.4.57": "gdcm",  # JPEG lossless
    "1.2.840.10008.1.2.4.70": "gdcm",  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.80": "gdcm",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.81": "gdcm",  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.4.90": "gdcm",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.91": "gdcm",  # JPEG 2000
}
"""Accepted transfer syntaxes and the one decoder of each, so that every machine decodes the same pixels."""

# Nothing else is parsed: what identifies the patient never enters this process's data structures.
_TAGS = [
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
    """Decode a single-frame grayscale chest radiograph.

    Stored values pass the Modality LUT or rescale, then the first VOI LUT, else the first window, and MONOCHROME1 is
    inverted last (PS3.3 C.11.1, C.11.2, C.7.6.3.1.2). Without either, 8-bit images show 0..255 and deeper ones their
    minimum..maximum. Pixel padding counts for nothing and is shown black.

    Raises
    ------
    UnreadableImageError
        If the file is truncated or corrupt.
    UnsupportedImageError
        If it is not one grayscale chest radiograph, or has no contrast.
    """
    dataset = _parse(content)
    _require_chest_radiograph(dataset)
    stored = _stored_values(dataset)
    table = _display_table(dataset, stored)
    pixels = np.take(table, stored)
    if pixels.min() == pixels.max():
        raise UnsupportedImageError("DICOM: expected an image, found that all pixels are displayed alike")
    metadata = RadiographMetadata(
        source_format="dicom",
        bits_stored=_integer(dataset, "BitsStored"),
        modality=_text(dataset, "Modality"),
        body_part=_text(dataset, "BodyPartExamined"),
        view_position=_text(dataset, "ViewPosition"),
        photometric_interpretation=_text(dataset, "PhotometricInterpretation"),
        transfer_syntax=str(dataset.file_meta.TransferSyntaxUID),
    )
    return Radiograph(pixels, (0.0, float(np.iinfo(table.dtype).max)), metadata)


def _parse(content: bytes) -> Dataset:
    try:
        dataset = pydicom.dcmread(io.BytesIO(content), specific_tags=list(_TAGS))
    except Exception as error:  # pydicom raises anything on malformed input
        raise UnreadableImageError(f"DICOM: the header cannot be parsed ({type(error).__name__})") from error
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if not syntax:
        raise UnreadableImageError("DICOM: expected a Transfer Syntax UID (0002,0010), found none")
    if syntax not in _DECODERS:
        raise UnsupportedImageError(f"DICOM: transfer syntax {syntax} is not supported")
    return dataset


def _require_chest_radiograph(dataset: Dataset) -> None:
    """Refuse everything else, with the reason."""
    modality = _text(dataset, "Modality")
    if modality not in MODALITIES:
        raise UnsupportedImageError(f"DICOM: expected the modality {', '.join(MODALITIES)}, found {modality!r}")
    body_part = _text(dataset, "BodyPartExamined")
    if body_part and not any(name in body_part.upper() for name in CHEST):
        raise UnsupportedImageError(f"DICOM: expected a chest, found the body part {body_part!r}")
    if "PixelData" not in dataset:
        raise UnsupportedImageError("DICOM: expected Pixel Data (7FE0,0010), found none")
    photometric, shape = _text(dataset, "PhotometricInterpretation"), _text(dataset, "PresentationLUTShape")
    if photometric not in ("MONOCHROME1", "MONOCHROME2") or _integer(dataset, "SamplesPerPixel", 1) != 1:
        raise UnsupportedImageError(f"DICOM: expected MONOCHROME1 or MONOCHROME2, found {photometric!r}")
    if shape not in ("", "INVERSE" if photometric == "MONOCHROME1" else "IDENTITY"):
        raise UnsupportedImageError(f"DICOM: {photometric} contradicts the Presentation LUT Shape {shape!r}")
    if (frames := _integer(dataset, "NumberOfFrames", 1)) != 1:
        raise UnsupportedImageError(f"DICOM: expected one frame, found {frames}")
    rows, columns = _integer(dataset, "Rows"), _integer(dataset, "Columns")
    if not 0 < rows * columns <= MAX_PIXELS:
        raise UnsupportedImageError(f"DICOM: expected 1 to {MAX_PIXELS} pixels, found {columns} x {rows}")
    allocated, stored = _integer(dataset, "BitsAllocated"), _integer(dataset, "BitsStored")
    high = _integer(dataset, "HighBit", stored - 1)
    if allocated not in (8, 16) or not 1 < stored <= allocated or high != stored - 1:
        raise UnsupportedImageError(
            "DICOM: expected 8 or 16 bits allocated, 2 or more stored, the high bit the last of them; "
            f"found {allocated} allocated, {stored} stored, high bit {high}"
        )


def _stored_values(dataset: Dataset) -> npt.NDArray[np.uint16]:
    """Stored values counted from the smallest possible one: uint16, shape ``(H, W)``, 0..2**bits - 1."""
    bits, signed = _integer(dataset, "BitsStored"), _integer(dataset, "PixelRepresentation", 0)
    try:
        decoded = pixel_array(dataset, raw=True, decoding_plugin=_DECODERS[dataset.file_meta.TransferSyntaxUID])
    except Exception as error:  # as do the decoders behind it
        raise UnreadableImageError(f"DICOM: the pixel data cannot be decoded ({type(error).__name__})") from error
    # Bits above the high bit may carry an overlay (retired, PS3.5 section 8.1.2): mask them.
    unsigned: npt.NDArray[np.uint16] = decoded.astype(np.uint16) & (2**bits - 1)
    return unsigned ^ np.uint16(signed << (bits - 1))


def _display_table(dataset: Dataset, stored: npt.NDArray[np.uint16]) -> npt.NDArray[Any]:
    """Display value, 0 = black, of every possible stored value: uint8 or uint16, shape ``(2**bits,)``."""
    bits, signed = _integer(dataset, "BitsStored"), _integer(dataset, "PixelRepresentation", 0)
    padding = _padding(dataset, bits, signed)
    try:
        values = apply_modality_lut(np.arange(2**bits) - (signed << (bits - 1)), dataset)
        shares = _voi(values, dataset)
    except Exception as error:
        raise UnreadableImageError(f"DICOM: the grayscale transform is malformed ({type(error).__name__})") from error
    dtype: type[np.uint8 | np.uint16] = np.uint16
    if shares is None:
        if bits <= 8:
            dtype, low, high = np.uint8, values.min(), values.max()
        else:
            present = np.zeros(2**bits, bool)
            present[stored] = True
            present &= ~padding
            if not present.any():
                raise UnsupportedImageError("DICOM: expected an image, found pixel padding only")
            low, high = values[present].min(), values[present].max()
        shares = (values - low) / max(high - low, 1)
    shares = np.clip(shares, 0, 1)
    if _text(dataset, "PhotometricInterpretation") == "MONOCHROME1":
        shares = 1 - shares
    shares[padding] = 0
    return np.rint(shares * np.iinfo(dtype).max).astype(dtype)


def _voi(values: npt.NDArray[Any], dataset: Dataset) -> npt.NDArray[np.float64] | None:
    """Values of interest as shares of the full display range (PS3.3 C.11.2); None when the file names none."""
    if dataset.get("VOILUTSequence"):
        depth = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        shares: npt.NDArray[np.float64] = apply_voi(values, dataset) / (2**depth - 1)
        return shares
    center, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    function = _text(dataset, "VOILUTFunction") or "LINEAR"
    if center is None or width is None or width <= (function == "LINEAR"):
        return None
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - center) / width))
    if function == "LINEAR_EXACT":
        return (values - center) / width + 0.5
    return (values - (center - 0.5)) / (width - 1) + 0.5


def _padding(dataset: Dataset, bits: int, signed: int) -> npt.NDArray[np.bool_]:
    """Which stored values are padding (PS3.3 C.7.5.1.1.2): bool, shape ``(2**bits,)``."""
    mask = np.zeros(2**bits, bool)
    if "PixelPaddingValue" in dataset:
        # Whether the attribute was read as signed or not, its low bits are the stored ones.
        ends = [
            (_integer(dataset, name) & (2**bits - 1)) ^ (signed << (bits - 1))
            for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")
            if name in dataset
        ]
        mask[min(ends) : max(ends) + 1] = True
    return mask


def _first(value: Any) -> float | None:
    """First of one or several numbers."""
    if value is None or value == "":
        return None
    return float(value[0] if isinstance(value, pydicom.multival.MultiValue) else value)


def _text(dataset: Dataset, keyword: str) -> str:
    try:
        value = dataset.get(keyword)
    except Exception as error:
        raise UnreadableImageError(f"DICOM: {keyword} cannot be parsed") from error
    return str(value or "").strip()


def _integer(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    try:
        value = dataset.get(keyword)
        if value is None and default is not None:
            return default
        return int(value)
    except Exception as error:
        raise UnreadableImageError(f"DICOM: expected {keyword} to be an integer") from error
