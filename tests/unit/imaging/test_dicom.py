"""Which DICOM objects are accepted, and what is said about the others."""

import logging
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.misc import warn_and_log
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes

from crosseai.contract import InputError, UnreadableImageError, UnsupportedImageError
from crosseai.imaging import ReadPolicy, acceptance, decode_radiograph
from crosseai.imaging.quiet import quiet_pydicom
from tests.unit.imaging.conftest import MakeDicom


def test_metadata_says_what_the_image_is_and_not_who(make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16]) -> None:
    radiograph = decode_radiograph(make_dicom(gradient, Modality="CR", ViewPosition="PA"))
    metadata = radiograph.metadata
    assert (metadata.source_format, metadata.modality, metadata.body_part) == ("dicom", "CR", "CHEST")
    assert (metadata.view_position, metadata.photometric_interpretation) == ("PA", "MONOCHROME2")
    assert (metadata.bits_stored, metadata.transfer_syntax) == (16, uid.ExplicitVRLittleEndian)
    assert (radiograph.height, radiograph.width) == gradient.shape
    assert "secret" not in repr(metadata).lower()


@pytest.mark.parametrize(
    "attributes",
    [
        {"Modality": "RG"},
        {"BodyPartExamined": None},
        {"BodyPartExamined": ""},
        {"BodyPartExamined": "THORAX AP"},
        {"NumberOfFrames": 1},
        {"PresentationLUTShape": "IDENTITY"},
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
    ],
)
def test_accepted(make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16], attributes: dict[str, Any]) -> None:
    assert decode_radiograph(make_dicom(gradient, **attributes)).pixels.shape == gradient.shape


def test_spelling_does_not_matter(make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16]) -> None:
    content = make_dicom(gradient, ViewPosition="PA").replace(b"CHEST ", b"Chest ").replace(b"CS\2\0PA", b"CS\2\0pa")
    metadata = decode_radiograph(content, ReadPolicy(views=("PA",))).metadata
    assert (metadata.body_part, metadata.view_position) == ("Chest", "PA")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"Modality": "CT"}, "expected the modality CR, DX, RG, DR, found 'CT'"),
        ({"Modality": None}, "expected the modality .*, found none"),
        ({"BodyPartExamined": "HIP"}, "expected a chest, found the body part 'HIP'"),
        ({"ViewPosition": "LL"}, "expected the view PA or AP, found 'LL'"),
        ({"PatientOrientation": ["A", "F"]}, "expected the view PA or AP, found 'LATERAL'"),
        ({"NumberOfFrames": 3}, "expected one frame, found several"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "found 'RGB'"),
        ({"SamplesPerPixel": 3}, "found several samples a pixel"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "found 'PALETTE COLOR'"),
        ({"PresentationLUTShape": "INVERSE"}, "MONOCHROME2 and the Presentation LUT Shape 'INVERSE' contradict"),
        ({"PixelData": None}, "expected Pixel Data"),
        ({"Rows": 0}, "expected 1 to [0-9]+ pixels, found 64 x 0"),
        ({"Rows": 60000, "Columns": 60000}, "found 60000 x 60000"),
        ({"BitsStored": 17}, "17 stored"),
        ({"HighBit": 12}, "high bit 12"),
        ({"BitsAllocated": 32}, "32 allocated"),
    ],
)
def test_unsupported(
    make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnsupportedImageError, match=message) as caught:
        decode_radiograph(_without_writing_pixels(make_dicom, gradient, attributes))
    assert "secret" not in str(caught.value).lower()


def _without_writing_pixels(
    make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16], attributes: dict[str, Any]
) -> bytes:
    if attributes.get("PixelData", b"") is not None:
        return make_dicom(gradient, **attributes)
    content = make_dicom(gradient)
    return content[: content.index(b"\xe0\x7f\x10\x00")]


@pytest.mark.parametrize("keyword", ["Rows", "BitsStored", "PixelRepresentation"])
def test_a_missing_attribute_is_named(make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16], keyword: str) -> None:
    with pytest.raises(UnreadableImageError, match=f"expected an integer {keyword}"):
        decode_radiograph(make_dicom(gradient, **{keyword: None}))


@pytest.mark.parametrize(
    ("views", "view", "accepted"),
    [
        (("PA",), "AP", False),
        (("LL", "RL"), "LL", True),
        ((), "LL", True),
        (("PA", "AP"), None, True),
    ],
)
def test_the_caller_says_which_views_are_wanted(
    make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16], views: tuple[str, ...], view: str | None, accepted: bool
) -> None:
    content = make_dicom(gradient, ViewPosition=view)
    with nullcontext() if accepted else pytest.raises(UnsupportedImageError, match="expected the view"):
        decode_radiograph(content, ReadPolicy(views=views))


@pytest.mark.parametrize(
    ("code", "scheme", "view"), [("R-10206", "SRT", "AP"), ("272479007", "SCT", "PA"), ("399067008", "SCT", "OTHER")]
)
def test_the_view_code_counts_where_there_is_no_view_position(
    make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16], code: str, scheme: str, view: str
) -> None:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = code, scheme
    content = make_dicom(gradient, ViewCodeSequence=Sequence([item]))
    assert decode_radiograph(content, ReadPolicy(views=())).metadata.view_position == view


def test_the_codes_of_frontal_views_are_the_standards() -> None:
    assert acceptance._FRONTAL_CODES[codes.cid4010.AnteroPosterior.value] == "AP"
    assert acceptance._FRONTAL_CODES[codes.cid4010.PosteroAnterior.value] == "PA"


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"ViewPosition": "PA"}, ()),
        ({}, ("unknown view",)),
        ({"ViewPosition": "PA", "BodyPartExamined": None}, ("unknown body part",)),
        ({"ViewPosition": "AP", "BurnedInAnnotation": "YES"}, ("burned-in annotation",)),
        ({"ViewPosition": "AP", "BurnedInAnnotation": "NO"}, ()),
        ({"ViewPosition": "AP", "PresentationIntentType": "FOR PROCESSING"}, ("for processing",)),
        (
            {"BurnedInAnnotation": "YES", "BodyPartExamined": ""},
            ("burned-in annotation", "unknown body part", "unknown view"),
        ),
    ],
)
def test_warnings(
    make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16], attributes: dict[str, Any], expected: tuple[str, ...]
) -> None:
    assert decode_radiograph(make_dicom(gradient, **attributes)).warnings == expected


def test_unknown_transfer_syntaxes_are_named(make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16]) -> None:
    content = make_dicom(gradient, syntax=uid.MPEG2MPML, frame=bytes(10))
    with pytest.raises(UnsupportedImageError, match="transfer syntax is not supported: 'MPEG2 Main Profile"):
        decode_radiograph(content)
    private = make_dicom(gradient).replace(uid.ExplicitVRLittleEndian.encode(), b"1.2.840.999.88.1.99")
    with pytest.raises(UnsupportedImageError, match="transfer syntax is not supported: an unknown one"):
        decode_radiograph(private)


def test_deflated(make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16]) -> None:
    attributes = {"ViewPosition": "PA", "WindowCenter": 2000, "WindowWidth": 4000}
    plain = decode_radiograph(make_dicom(gradient, **attributes))
    deflated = decode_radiograph(make_dicom(gradient, syntax=uid.DeflatedExplicitVRLittleEndian, **attributes))
    np.testing.assert_array_equal(deflated.pixels, plain.pixels)
    assert deflated.warnings == plain.warnings
    assert replace(deflated.metadata, transfer_syntax=plain.metadata.transfer_syntax) == plain.metadata


def test_a_deflated_bomb_is_refused(make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16]) -> None:
    policy = ReadPolicy(max_pixels=gradient.size)
    bomb = bytes(policy.max_file_bytes + 10**6)
    content = make_dicom(gradient, syntax=uid.DeflatedExplicitVRLittleEndian, PixelData=bomb)
    assert len(content) < 100_000
    with pytest.raises(UnsupportedImageError, match="expected to inflate to at most"):
        decode_radiograph(content, policy)


def test_the_limit_on_pixels_is_the_callers(make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16]) -> None:
    content = make_dicom(gradient)
    assert decode_radiograph(content, ReadPolicy(max_pixels=gradient.size)).pixels.size == gradient.size
    with pytest.raises(UnsupportedImageError, match="expected 1 to 3071 pixels, found 64 x 48"):
        decode_radiograph(content, ReadPolicy(max_pixels=gradient.size - 1))


def test_cut_anywhere_a_file_gives_a_clean_error(make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16]) -> None:
    content = make_dicom(gradient, WindowCenter=2000, WindowWidth=4000)
    for length in range(0, len(content) - 1, 37):
        with pytest.raises(InputError):
            decode_radiograph(content[:length])


def test_a_flipped_byte_gives_a_radiograph_or_a_clean_error(
    make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16]
) -> None:
    content = make_dicom(gradient, WindowCenter=2000, WindowWidth=4000, PixelPaddingValue=7)
    for position in range(132, content.index(b"\xe0\x7f\x10\x00") + 12):
        broken = bytearray(content)
        broken[position] ^= 0xFF
        assert "secret" not in outcome(bytes(broken)).lower()


def outcome(content: bytes) -> str:
    try:
        return repr(decode_radiograph(content).metadata)
    except InputError as error:
        return str(error)


def test_odd_headers_neither_warn_nor_log(
    make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16], caplog: pytest.LogCaptureFixture
) -> None:
    content = make_dicom(gradient).replace(b"CHEST ", b"chest\\")
    with caplog.at_level(logging.DEBUG, logger="pydicom"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decode_radiograph(content)
    assert not caught
    assert not caplog.records


def test_pydicom_speaks_again_afterwards(caplog: pytest.LogCaptureFixture) -> None:
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with quiet_pydicom():
            inside.set()
            leave.wait(10)

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(hold)
        inside.wait(10)
        with quiet_pydicom():
            pass
        logging.getLogger("pydicom").warning("dropped: the other thread is still inside")
        leave.set()
        held.result()
    assert not caplog.records
    with pytest.warns(UserWarning, match="heard"):
        warn_and_log("heard")
    assert [record.message for record in caplog.records] == ["heard"]


def test_threads_decode_the_same_pixels(make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16]) -> None:
    filters = list(warnings.filters)
    contents = [make_dicom(np.roll(gradient, shift, axis=1)) for shift in range(8)]
    alone = [decode_radiograph(content).pixels for content in contents]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(decode_radiograph, contents * 5))
    for position, radiograph in enumerate(together):
        np.testing.assert_array_equal(radiograph.pixels, alone[position % 8])
    assert list(warnings.filters) == filters


def test_pydicom_needs_no_preparation() -> None:
    """The import leaves pydicom's process-wide settings as they are."""
    assert pydicom.config.settings.reading_validation_mode == pydicom.config.WARN
