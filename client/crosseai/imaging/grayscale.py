"""DICOM's grayscale transform: what a stored value looks like on a screen (PS3.3 C.11.1, C.11.2, C.7.6.3.1.2)."""

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from crosseai.contract import UnreadableImageError, UnsupportedImageError


def to_display_values(decoded: npt.NDArray[Any], dataset: Dataset) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Transform decoded pixels to display values, 0 = black.

    The transform is computed once for every value that ``BitsStored`` allows and then looked up. Stored values pass

    1. the Modality LUT, else rescale slope and intercept;
    2. the first VOI LUT, else the first window, else 0..255 for images of up to 8 bits and minimum..maximum for
       deeper ones (pixel padding left out);
    3. the inversion, for MONOCHROME1.

    Pixel padding is shown black.

    Parameters
    ----------
    decoded
        Integers as the decoder yields them, shape ``(H, W)``.
    dataset
        ``BitsStored``, ``PixelRepresentation`` and ``PhotometricInterpretation`` are checked by the caller.

    Returns
    -------
    ndarray
        Shape ``(H, W)``: uint8 where the 8 bits of the file are display values already, else uint16. The whole range
        of the dtype is the display range.

    Raises
    ------
    UnreadableImageError
        If a LUT or window is malformed.
    UnsupportedImageError
        If all pixels are displayed alike.
    """
    stored = _stored_values(decoded, dataset.BitsStored, dataset.PixelRepresentation)
    try:
        table = _display_table(stored, dataset)
    except Exception as error:  # pydicom raises anything on malformed sequences
        raise UnreadableImageError(f"DICOM: the grayscale transform is malformed ({type(error).__name__})") from error
    displayed: npt.NDArray[Any] = cv2.LUT(stored, table)
    if displayed.min() == displayed.max():
        raise UnsupportedImageError("DICOM: expected an image, found that all pixels are displayed alike")
    return displayed


def _stored_values(decoded: npt.NDArray[Any], bits: int, signed: int) -> npt.NDArray[Any]:
    """Stored values counted from the smallest possible one: uint8 or uint16, 0..2**bits - 1."""
    dtype = np.uint8 if bits <= 8 else np.uint16
    # Old files keep an overlay above the high bit (retired, PS3.5 section 8.1.2).
    within_bits = np.bitwise_and(decoded.astype(dtype), dtype(2**bits - 1))
    counted: npt.NDArray[Any] = np.bitwise_xor(within_bits, dtype(signed << (bits - 1)), out=within_bits)
    return counted


def _display_table(stored: npt.NDArray[Any], dataset: Dataset) -> npt.NDArray[Any]:
    """Display value of every value of ``stored``'s dtype: uint8 or uint16, shape ``(256,)`` or ``(65536,)``."""
    bits, signed = dataset.BitsStored, dataset.PixelRepresentation
    values = _modality_values(np.arange(2.0**bits) - (signed << (bits - 1)), dataset)
    padding = _padding(dataset)
    of_interest = _values_of_interest(values, dataset)
    if of_interest is not None:
        values, black, white = of_interest
    else:
        shown = values if bits <= 8 else values[_occurring(stored, bits) & ~padding]
        black, white = (shown.min(), shown.max()) if shown.size else (0, 0)
    # Measured from the end that is displayed black, so that both polarities of an image round alike.
    inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    shares = (white - values if inverted else values - black) / ((white - black) or 1)
    shares[padding] = 0
    dtype = np.uint8 if of_interest is None and bits <= 8 else np.uint16
    table = np.zeros(256 if stored.dtype == np.uint8 else 65536, dtype)
    table[: 2**bits] = np.rint(np.clip(shares, 0, 1) * np.iinfo(dtype).max)
    return table


def _modality_values(values: npt.NDArray[np.float64], dataset: Dataset) -> npt.NDArray[np.float64]:
    """Modality values of stored values (PS3.3 C.11.1)."""
    if dataset.get("ModalityLUTSequence"):
        return _look_up(values, dataset.ModalityLUTSequence[0], dataset)
    slope, intercept = _first_number(dataset.get("RescaleSlope")), _first_number(dataset.get("RescaleIntercept"))
    return values * (1 if slope is None else slope) + (0 if intercept is None else intercept)


def _values_of_interest(
    values: npt.NDArray[np.float64], dataset: Dataset
) -> tuple[npt.NDArray[np.float64], float, float] | None:
    """Values of interest of modality values, with those displayed black and white (PS3.3 C.11.2); None if unsaid."""
    if dataset.get("VOILUTSequence"):
        lut = dataset.VOILUTSequence[0]
        return _look_up(values, lut, dataset), 0.0, float(2 ** int(lut.LUTDescriptor[2]) - 1)
    center, width = _first_number(dataset.get("WindowCenter")), _first_number(dataset.get("WindowWidth"))
    function = dataset.get("VOILUTFunction") or "LINEAR"
    if center is None or width is None or width <= (1 if function == "LINEAR" else 0):
        return None
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-4 * (values - center) / width)), 0.0, 1.0
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    return values, center - width / 2, center + width / 2


def _look_up(values: npt.NDArray[np.float64], lut: Dataset, dataset: Dataset) -> npt.NDArray[np.float64]:
    """Entries of a lookup table; values beyond its ends get the first and the last one (PS3.3 C.11.1.1.1)."""
    count, first, depth = (int(number) for number in lut.LUTDescriptor)
    count = count % 65536 or 65536
    entries = lut.LUTData
    if isinstance(entries, bytes):
        little_endian = dataset.file_meta.TransferSyntaxUID.is_little_endian
        word = ("<u2" if little_endian else ">u2") if len(entries) >= 2 * count else "u1"
        entries = np.frombuffer(entries, word)
    entries = np.asarray(entries, np.float64)[:count]
    if not 8 <= depth <= 16 or entries.size != count:
        raise ValueError(f"expected {count} entries of 8 to 16 bits, found {entries.size} of {depth}")
    looked_up: npt.NDArray[np.float64] = entries[np.clip(np.floor(values) - first, 0, count - 1).astype(np.intp)]
    return looked_up


def _first_number(value: Any) -> float | None:
    """The first of none, one or several numbers."""
    if isinstance(value, MultiValue):
        value = value[0] if value else None
    if value in (None, ""):
        return None
    if not math.isfinite(number := float(value)):
        raise ValueError(f"expected a number, found {number}")
    return number


def _padding(dataset: Dataset) -> npt.NDArray[np.bool_]:
    """Which stored values are padding (PS3.3 C.7.5.1.1.2): bool, shape ``(2**bits,)``."""
    bits, signed = dataset.BitsStored, dataset.PixelRepresentation
    mask = np.zeros(2**bits, bool)
    if dataset.get("PixelPaddingValue") is not None:
        first = dataset.PixelPaddingValue
        last = dataset.get("PixelPaddingRangeLimit", first)
        # Whether the attributes were read as signed or not, their low bits are the stored ones.
        first, last = ((int(end) & (2**bits - 1)) ^ (signed << (bits - 1)) for end in (first, last))
        mask[min(first, last) : max(first, last) + 1] = True
    return mask


def _occurring(stored: npt.NDArray[Any], bits: int) -> npt.NDArray[np.bool_]:
    """Which stored values the image contains: bool, shape ``(2**bits,)``."""
    histogram = cv2.calcHist([stored], [0], None, [2**bits], [0, 2**bits])
    occurring: npt.NDArray[np.bool_] = histogram.ravel() > 0
    return occurring
