"""Who the patient is stays in the file."""

import logging
import traceback
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import uid

from crosseai.contract import InputError
from crosseai.imaging import ReadPolicy, decode_radiograph
from tests.unit.imaging.conftest import MakeDicom

MARK = "QZXJ"
"""In every planted identifier, and in nothing else."""

PLACES = {
    "PatientName": "PN",
    "PatientID": "LO",
    "PatientAddress": "LO",
    "OtherPatientIDs": "LO",
    "AccessionNumber": "SH",
    "InstitutionName": "LO",
    "ReferringPhysicianName": "PN",
    "StudyDescription": "LO",
    "Modality": "CS",
    "BodyPartExamined": "CS",
    "ViewPosition": "CS",
    "PatientOrientation": "CS",
    "PresentationIntentType": "CS",
    "BurnedInAnnotation": "CS",
    "PhotometricInterpretation": "CS",
    "PresentationLUTShape": "CS",
    "VOILUTFunction": "CS",
    "WindowCenter": "LO",
    "WindowWidth": "LO",
    "RescaleSlope": "LO",
    "NumberOfFrames": "LO",
    "Rows": "LO",
    "PixelPaddingValue": "LO",
}
"""Where identifiers belong, and where a careless console or a shifted header puts them."""

identifiers = st.text("ABCDEFGHIKLMNOPRSTUVW 0123456789_", max_size=10).map(lambda text: f"{text}{MARK}")


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    planted=st.dictionaries(st.sampled_from(list(PLACES)), identifiers, min_size=1, max_size=6),
    syntax=st.sampled_from([uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian, uid.RLELossless]),
    cut=st.floats(0, 1) | st.just(1.0),
    flipped=st.none() | st.floats(0, 1),
    window=st.none() | st.integers(1, 2),
)
def test_identifiers_reach_no_message_no_log_and_no_terminal(
    make_dicom: MakeDicom,
    gradient: npt.NDArray[np.uint16],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    planted: dict[str, str],
    syntax: str,
    cut: float,
    flipped: float | None,
    window: int | None,
) -> None:
    content = bytearray(planted_file(make_dicom, gradient, planted, syntax))
    if flipped is not None:
        content[132 + int(flipped * (min(len(content), 1000) - 133))] ^= 0xFF
    content = content[: 132 + int(cut * (len(content) - 132))]
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        told = outcome(bytes(content), ReadPolicy(window=window))
    spoken = [told, caplog.text, *map(str, caught), *capfd.readouterr()]
    assert not [text for text in spoken if MARK in text]


def planted_file(make_dicom: MakeDicom, pixels: npt.NDArray[np.uint16], planted: dict[str, str], syntax: str) -> bytes:
    """A file with identifiers in the given attributes; where one is no text, its VR lies."""
    frame = b"no run lengths" if syntax == uid.RLELossless else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make_dicom(pixels, syntax=syntax, frame=frame, elements={k: (PLACES[k], v) for k, v in planted.items()})


def outcome(content: bytes, policy: ReadPolicy) -> str:
    """Everything that a caller could print: warnings, or the error with its causes."""
    try:
        radiograph = decode_radiograph(content, policy)
    except InputError as error:
        return "".join(traceback.format_exception(error))
    return f"{radiograph.warnings} {radiograph.identifiers}"


def test_identifiers_are_told_on_request(make_dicom: MakeDicom, gradient: npt.NDArray[np.uint16]) -> None:
    attributes: dict[str, Any] = {"AccessionNumber": "A-17", "StudyInstanceUID": "2.25.9"}
    expected = {
        "PatientID": "secret-0815", "AccessionNumber": "A-17", "StudyInstanceUID": "2.25.9", "SOPInstanceUID": "2.25.1",
    }  # fmt: skip
    policy = ReadPolicy(with_identifiers=True)
    assert decode_radiograph(make_dicom(gradient, **attributes)).identifiers == {}
    assert decode_radiograph(make_dicom(gradient, **attributes), policy).identifiers == expected
    refused = make_dicom(gradient, Modality="CT", **attributes)
    with pytest.raises(InputError, match=r"found 'CT' .*PatientID 'secret-0815', AccessionNumber 'A-17'"):
        decode_radiograph(refused, policy)
    with pytest.raises(InputError, match=r"found 'CT'$"):
        decode_radiograph(refused)
