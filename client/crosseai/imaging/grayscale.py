"""DICOM's grayscale transform: what a stored value looks like on a screen (PS3.3 C.11.1, C.11.2, C.7.6.3.1.2)."""

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from crosseai.contract import InputError, UnreadableImageError, UnsupportedImageError

KEYWORDS = (
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
)
"""The attributes that are looked at here, besides those that say what a stored value is."""


def to_display_values(
    decoded: npt.NDArray[Any], dataset: Dataset, window: int | None = None
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
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
        Integers of 8 or 16 bits, shape ``(H, W)``; bits beyond ``BitsStored`` do not matter.
    dataset
        ``BitsStored``, ``PixelRepresentation`` and ``PhotometricInterpretation`` are checked by the caller.
    window
        Which window is shown in step 2 instead, counted from 1.

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
        If there is no such window, or all pixels are displayed alike.
    """
    native = np.ascontiguousarray(decoded, decoded.dtype.newbyteorder("=")).view(f"u{decoded.itemsize}")
    try:
        table = _display_table(native, dataset, window)
    except InputError:
        raise
    except Exception as error:  # pydicom raises anything on malformed sequences, and may quote them
        raise UnreadableImageError(f"DICOM: the grayscale transform is malformed ({type(error).__name__})") from None
    displayed: npt.NDArray[Any] = cv2.LUT(native, table)
    if displayed.min() == displayed.max():
        raise UnsupportedImageError("DICOM: expected an image, found that all pixels are displayed alike")
    return displayed


@np.errstate(over="ignore", invalid="ignore")  # numbers beyond all sense are refused below
def _display_table(native: npt.NDArray[Any], dataset: Dataset, window: int | None) -> npt.NDArray[Any]:
    """Display value of every value of ``native``'s dtype: uint8 or uint16, shape ``(256,)`` or ``(65536,)``."""
    bits, signed = dataset.BitsStored, dataset.PixelRepresentation
    sign_bit = signed << (bits - 1)
    # Stored values are counted from the smallest possible one. Old files keep an overlay above the high bit (retired,
    # PS3.5 section 8.1.2).
    counted = (np.arange(2 ** (8 * native.itemsize)) & (2**bits - 1)) ^ sign_bit
    values = _modality_values(np.arange(2.0**bits) - sign_bit, dataset)
    padding = _padding(dataset)
    of_interest = _values_of_interest(values, dataset, window)
    if of_interest is not None:
        values, black, white = of_interest
    else:
        shown = values if bits <= 8 else values[_occurring(native, counted, bits) & ~padding]
        black, white = (shown.min(), shown.max()) if shown.size else (0, 0)
    # Measured from the end that is displayed black, so that both polarities of an image round alike.
    inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    shares = (white - values if inverted else values - black) / ((white - black) or 1)
    shares[padding] = 0
    if not np.isfinite(shares).all():
        raise ValueError("expected finite numbers")
    dtype = np.uint8 if of_interest is None and bits <= 8 else np.uint16
    displayed: npt.NDArray[Any] = np.rint(np.clip(shares, 0, 1) * np.iinfo(dtype).max).astype(dtype)[counted]
    return displayed


def _modality_values(values: npt.NDArray[np.float64], dataset: Dataset) -> npt.NDArray[np.float64]:
    """Modality values of stored values (PS3.3 C.11.1)."""
    if dataset.get("ModalityLUTSequence"):
        return _look_up(values, dataset.ModalityLUTSequence[0], dataset)
    slope, intercept = _number(dataset.get("RescaleSlope")), _number(dataset.get("RescaleIntercept"))
    return values * (1 if slope is None else slope) + (0 if intercept is None else intercept)


def _values_of_interest(
    values: npt.NDArray[np.float64], dataset: Dataset, window: int | None
) -> tuple[npt.NDArray[np.float64], float, float] | None:
    """Values of interest of modality values, with those displayed black and white (PS3.3 C.11.2); None if unsaid."""
    if window is None and dataset.get("VOILUTSequence"):
        lut = dataset.VOILUTSequence[0]
        return _look_up(values, lut, dataset), 0.0, float(2 ** int(lut.LUTDescriptor[2]) - 1)
    function = dataset.get("VOILUTFunction") or "LINEAR"
    center_and_width = _window(dataset, 1 if window is None else window, narrowest=1 if function == "LINEAR" else 0)
    if center_and_width is None:
        if window is not None:
            raise UnsupportedImageError(f"DICOM: expected a window {window}, found none")
        return None
    center, width = center_and_width
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - center) / width)), 0.0, 1.0
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    return values, center - width / 2, center + width / 2


def _window(dataset: Dataset, number: int, *, narrowest: float) -> tuple[float, float] | None:
    """Center and width of a window, counted from 1; None if there is none wider than ``narrowest``."""
    center, width = (_number(dataset.get(keyword), number) for keyword in ("WindowCenter", "WindowWidth"))
    return None if center is None or width is None or width <= narrowest else (center, width)


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


def _number(value: Any, position: int = 1) -> float | None:
    """The number at a position, counted from 1, of none, one or several numbers."""
    values = list(value) if isinstance(value, MultiValue) else [value]
    if len(values) < position or values[position - 1] in (None, ""):
        return None
    if not math.isfinite(number := float(values[position - 1])):
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


def _occurring(native: npt.NDArray[Any], counted: npt.NDArray[np.int64], bits: int) -> npt.NDArray[np.bool_]:
    """Which stored values the image contains: bool, shape ``(2**bits,)``."""
    histogram = cv2.calcHist([native], [0], None, [counted.size], [0, counted.size])
    occurring = np.zeros(2**bits, bool)
    occurring[counted[histogram.ravel() > 0]] = True
    return occurring
