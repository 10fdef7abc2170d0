"""A phantom as a DICOM object: Digital X-Ray Image Storage - For Presentation (PS3.3 A.26)."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from crosseai.training.phantoms.cohort import Visit
from crosseai.training.phantoms.geometry import FIELD_MM
from crosseai.training.phantoms.phantom import WHITE, Phantom

_IMPLEMENTATION = generate_uid(entropy_srcs=["crosseai.training.phantoms"])
_LOW, _HIGH = 300, 3600
"""Stored values shown as black and white: the window must be applied to see the picture."""


def write_dicom(path: Path, phantom: Phantom, visit: Visit, *, seed: int, inverted: bool) -> None:
    """Write one phantom.

    Parameters
    ----------
    path
        The file.
    phantom, visit
        The image and whose it is.
    seed
        Seed of the set: the UIDs are derived from it and from the visit.
    inverted
        MONOCHROME1 (low values white) instead of MONOCHROME2.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = _uid(seed, visit, "instance")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _IMPLEMENTATION
    header = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID = meta.MediaStorageSOPClassUID
    header.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    _describe_patient(header, phantom, visit, seed)
    _describe_acquisition(header, phantom)
    _describe_pixels(header, phantom, inverted=inverted)
    pydicom.dcmwrite(path, header, enforce_file_format=True)


def _uid(seed: int, visit: Visit, what: str) -> pydicom.uid.UID:
    return generate_uid(entropy_srcs=["crosseai phantom", str(seed), visit.stem, what])


def _describe_patient(header: Dataset, phantom: Phantom, visit: Visit, seed: int) -> None:
    """Patient, study, series and equipment: all invented."""
    header.PatientName = f"PHANTOM^{visit.patient:04d}"
    header.PatientID = f"PHANTOM-{visit.patient:04d}"
    header.PatientBirthDate = ""
    header.PatientSex = visit.anatomy.sex
    header.PatientAge = f"{visit.anatomy.age:03d}Y"
    header.StudyInstanceUID = _uid(seed, visit, "study")
    header.SeriesInstanceUID = _uid(seed, visit, "series")
    header.StudyDate = header.ContentDate = header.AcquisitionDate = f"2000{visit.follow_up + 1:02d}01"
    header.StudyTime = header.ContentTime = header.AcquisitionTime = "120000"
    header.AccessionNumber = ""
    header.ReferringPhysicianName = ""
    header.StudyID = "1"
    header.SeriesNumber = 1
    header.InstanceNumber = 1
    header.Manufacturer = "CrossEAI"
    header.ManufacturerModelName = "Chest phantom"
    header.DeviceSerialNumber = str(seed)
    header.SoftwareVersions = "1"
    header.ImageComments = f"Drawn phantom, no patient: {', '.join(phantom.boxes_image_px) or 'No Finding'}"


def _describe_acquisition(header: Dataset, phantom: Phantom) -> None:
    """Body part, projection and detector."""
    header.Modality = "DX"
    header.PresentationIntentType = "FOR PRESENTATION"
    header.ImageType = ["ORIGINAL", "PRIMARY", ""]
    header.BodyPartExamined = "CHEST"
    header.ViewPosition = phantom.view
    # What the image's right and lower edges point to: the patient's left and feet.
    header.PatientOrientation = ["L", "F"]
    header.ImageLaterality = "U"
    header.AnatomicRegionSequence = [_code("51185008", "SCT", "Chest")]
    header.ViewCodeSequence = [
        _code("399348003", "SCT", "antero-posterior")
        if phantom.view == "AP"
        else _code("272479007", "SCT", "postero-anterior")
    ]
    header.ViewCodeSequence[0].ViewModifierCodeSequence = []
    header.AcquisitionContextSequence = []
    header.PositionerType = "NONE"
    header.DetectorType = "DIRECT"
    header.ImagerPixelSpacing = [FIELD_MM / phantom.pixels.shape[0]] * 2
    header.BurnedInAnnotation = "NO"
    header.LossyImageCompression = "00"


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _describe_pixels(header: Dataset, phantom: Phantom, *, inverted: bool) -> None:
    """12 bit stored in 16, and the window that shows the picture (PS3.3 C.11.2.1.2: LINEAR)."""
    stored = np.round(_LOW + phantom.pixels * ((_HIGH - _LOW) / WHITE)).astype(np.uint16)
    low, high = _LOW, _HIGH
    if inverted:
        stored, low, high = WHITE - stored, WHITE - _HIGH, WHITE - _LOW
    header.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    header.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    header.SamplesPerPixel = 1
    header.Rows, header.Columns = stored.shape
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
    header.PixelRepresentation = 0
    header.PixelIntensityRelationship = "LOG"
    header.PixelIntensityRelationshipSign = 1 if inverted else -1
    header.RescaleIntercept, header.RescaleSlope, header.RescaleType = "0", "1", "US"
    header.WindowCenter = (low + high + 1) / 2
    header.WindowWidth = high - low + 1
    header.VOILUTFunction = "LINEAR"
    header.PixelData = stored.astype("<u2").tobytes()
