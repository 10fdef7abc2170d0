"""DICOM files made in memory."""

import io
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from tests.oracles.grayscale import Lut, Transform

MakeDicom = Callable[..., bytes]


@pytest.fixture(scope="session")
def make_dicom() -> MakeDicom:
    """Content of a DICOM file with the given pixels; keywords set, or with None remove, attributes.

    ``elements`` are attributes by keyword, with whatever VR and value.
    """

    def make(
        pixels: npt.NDArray[Any],
        *,
        transform: Transform | None = None,
        syntax: str = uid.ExplicitVRLittleEndian,
        frame: bytes | None = None,
        elements: Mapping[str, tuple[str, str]] = MappingProxyType({}),
        **attributes: Any,
    ) -> bytes:
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.file_meta.MediaStorageSOPClassUID = uid.DigitalXRayImageStorageForPresentation
        dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
        bits = transform.bits if transform else 8 * pixels.dtype.itemsize
        standard = {
            "SOPClassUID": uid.DigitalXRayImageStorageForPresentation,
            "SOPInstanceUID": "2.25.1",
            "PatientName": "Identifier^Secret",
            "PatientID": "secret-0815",
            "Modality": "DX",
            "BodyPartExamined": "CHEST",
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "Rows": pixels.shape[0],
            "Columns": pixels.shape[1],
            "BitsAllocated": 8 * pixels.dtype.itemsize,
            "BitsStored": bits,
            "HighBit": bits - 1,
            "PixelRepresentation": int(pixels.dtype.kind == "i"),
            "PixelData": encapsulate([frame]) if frame is not None else _padded(pixels),
        }
        for keyword, value in {**standard, **(_attributes(transform) if transform else {}), **attributes}.items():
            if value is not None:
                setattr(dataset, keyword, value)
        for keyword, (vr, value) in elements.items():
            tag = tag_for_keyword(keyword)
            dataset[tag] = DataElement(tag, vr, value)
        dataset["PixelData"].VR = "OB" if frame is not None else "OW"
        dataset["PixelData"].is_undefined_length = frame is not None
        stream = io.BytesIO()
        dataset.save_as(stream, enforce_file_format=True)
        return stream.getvalue()

    return make


def _padded(pixels: npt.NDArray[Any]) -> bytes:
    content = pixels.tobytes()
    return content + b"\0" * (len(content) % 2)


def _attributes(transform: Transform) -> Mapping[str, Any]:
    attributes: dict[str, Any] = {
        "PhotometricInterpretation": "MONOCHROME1" if transform.inverted else "MONOCHROME2",
    }
    if transform.modality_lut:
        attributes["ModalityLUTSequence"] = _sequence(transform.modality_lut)
    else:
        attributes |= {"RescaleSlope": transform.slope, "RescaleIntercept": transform.intercept}
    if transform.voi_lut:
        attributes["VOILUTSequence"] = _sequence(transform.voi_lut)
    if transform.window:
        center, width = transform.window
        attributes |= {"WindowCenter": center, "WindowWidth": width, "VOILUTFunction": transform.function}
    if transform.padding:
        attributes["PixelPaddingValue"], attributes["PixelPaddingRangeLimit"] = transform.padding
    return attributes


def _sequence(lut: Lut) -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if lut.first < 0 else "US", [len(lut.entries), lut.first, lut.bits])
    item.add_new("LUTData", "US", list(lut.entries))
    return Sequence([item])


@pytest.fixture(scope="session")
def gradient() -> npt.NDArray[np.uint16]:
    """A 12-bit ramp, uint16, shape ``(48, 64)``."""
    return np.linspace(0, 4095, 48 * 64).astype(np.uint16).reshape(48, 64)
