"""DICOM to radiograph."""

import io
import zlib

import numpy as np
import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from crosseai.contract import InputError, UnreadableImageError, UnsupportedImageError
from crosseai.imaging import acceptance, grayscale
from crosseai.imaging.acceptance import integer, require_scorable, text, view_position
from crosseai.imaging.codestream import DECODERS, decode_pixel_data
from crosseai.imaging.policy import DEFAULT_POLICY, ReadPolicy
from crosseai.imaging.quiet import quiet_pydicom
from crosseai.imaging.radiograph import Radiograph, RadiographMetadata

IDENTIFIERS = ("PatientID", "AccessionNumber", "StudyInstanceUID", "SOPInstanceUID")
"""What finds an image again in an archive."""


def decode_dicom(content: bytes, policy: ReadPolicy = DEFAULT_POLICY) -> Radiograph:
    """Decode a single-frame grayscale chest radiograph; its pixels are display values.

    What is accepted, and what warned of, is in :mod:`crosseai.imaging.acceptance`, the transform in
    :func:`crosseai.imaging.grayscale.to_display_values`.

    Raises
    ------
    UnreadableImageError
        If the file is truncated or corrupt.
    UnsupportedImageError
        If it is not one grayscale chest radiograph in a wanted view, or has no contrast.
    """
    with quiet_pydicom():
        dataset = _parse(content, policy)
        if not policy.with_identifiers:
            return _decode(dataset, policy, {})
        identifiers = {keyword: text(dataset, keyword) for keyword in IDENTIFIERS}
        try:
            return _decode(dataset, policy, identifiers)
        except InputError as error:
            named = ", ".join(f"{keyword} {value!r}" for keyword, value in identifiers.items())
            raise type(error)(f"{error} ({named})") from error


def _decode(dataset: Dataset, policy: ReadPolicy, identifiers: dict[str, str]) -> Radiograph:
    warnings = require_scorable(dataset, policy)
    pixels = grayscale.to_display_values(decode_pixel_data(dataset), dataset, policy.window)
    metadata = RadiographMetadata(
        source_format="dicom",
        bits_stored=integer(dataset, "BitsStored"),
        modality=text(dataset, "Modality"),
        body_part=text(dataset, "BodyPartExamined"),
        view_position=view_position(dataset),
        photometric_interpretation=text(dataset, "PhotometricInterpretation"),
        transfer_syntax=str(dataset.file_meta.TransferSyntaxUID),
    )
    return Radiograph(pixels, (0.0, float(np.iinfo(pixels.dtype).max)), metadata, warnings, identifiers)


def _parse(content: bytes, policy: ReadPolicy) -> Dataset:
    """The attributes that matter. Nothing else is parsed, so what identifies the patient reaches no result."""
    keywords = [*acceptance.KEYWORDS, *grayscale.KEYWORDS, *(IDENTIFIERS if policy.with_identifiers else ())]
    stream = io.BytesIO(content)
    stream.seek(132)
    try:
        meta = read_dataset(stream, is_implicit_VR=False, is_little_endian=True, stop_when=_after_file_meta)
        syntax = UID(str(meta.get("TransferSyntaxUID") or ""))
        if syntax == DeflatedExplicitVRLittleEndian:
            dataset = _inflate(content[stream.tell() :], keywords, policy)
            dataset.file_meta = FileMetaDataset(meta)
        elif syntax in DECODERS:
            stream.seek(0)
            dataset = pydicom.dcmread(stream, specific_tags=keywords)
        else:
            dataset = Dataset()
    except InputError:
        raise
    except Exception as error:  # pydicom raises anything on malformed input, and may quote it
        raise UnreadableImageError(f"DICOM: the header cannot be parsed ({type(error).__name__})") from None
    if not syntax.is_valid:
        raise UnreadableImageError("DICOM: expected a Transfer Syntax UID (0002,0010), found none")
    if syntax not in DECODERS:
        name = "an unknown one" if syntax.name == syntax else repr(syntax.name)
        raise UnsupportedImageError(f"DICOM: the transfer syntax is not supported: {name}")
    if not len(dataset):
        raise UnreadableImageError("DICOM: expected the attributes of an image, found none: cut short, or no image")
    return dataset


def _inflate(deflated: bytes, keywords: list[str], policy: ReadPolicy) -> Dataset:
    """Parse a deflated data set (PS3.5 section A.5) that does not inflate beyond the limit.

    Raises
    ------
    UnsupportedImageError
        If it would.
    """
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(deflated, policy.max_file_bytes + 1)
    if len(inflated) > policy.max_file_bytes:
        raise UnsupportedImageError(f"DICOM: expected to inflate to at most {policy.max_file_bytes} bytes, found more")
    tags: list[BaseTag | int] = [BaseTag(tag) for tag in map(tag_for_keyword, keywords) if tag is not None]
    return read_dataset(io.BytesIO(inflated), is_implicit_VR=False, is_little_endian=True, specific_tags=tags)


def _after_file_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag.group != 2
