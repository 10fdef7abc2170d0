"""DICOM structured report of the findings: TID 1500 in a Comprehensive 3D SR."""

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from crosseai.client.formats.codes import snomed_ct
from crosseai.client.formats.dicom_context import (
    MANUFACTURER,
    SOFTWARE,
    instance_uid,
    series_uid,
    shown_probability,
    shown_score,
)
from crosseai.contract import Finding, ImageResult, ModelIdentity

TITLE = hd.sr.CodedConcept("RESEARCH", "99CROSSEAI", "Imaging Measurement Report, for research")
_PROCEDURE = hd.sr.CodedConcept("399208008", "SCT", "Plain chest X-ray")
_BOX_SCORE = hd.sr.CodedConcept("BOXSCORE", "99CROSSEAI", "Score of the bounding box, 0 to 255")


def structured_report(context: Dataset, result: ImageResult, model: ModelIdentity) -> Dataset | None:
    """A report with one measurement group for each finding that has a box; None without a box.

    A group holds the coded finding, the box as a closed polyline on the image (from the outer edges of its pixels,
    PS3.3 C.18.6.1.1), the disease's probability, the box's score, and the algorithm with version and hash.

    Parameters
    ----------
    context
        Header of the radiograph, from :func:`~crosseai.client.formats.dicom_context.read_context`.
    result
        Its result.
    model
        The model that made the result.
    """
    if not result.localized:
        return None
    observer = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=series_uid(context, model, "device"), name=MANUFACTURER, model_name=model.name
        ),
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=_PROCEDURE,
        imaging_measurements=[
            _group(context, number, finding, model) for number, finding in enumerate(result.localized, 1)
        ],
        title=TITLE,
    )
    return hd.sr.Comprehensive3DSR(
        evidence=[context],
        content=content,
        series_instance_uid=series_uid(context, model, "dicom-sr"),
        series_number=9001,
        sop_instance_uid=instance_uid(context, model, "dicom-sr", result),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=model.name,
        software_versions=SOFTWARE,
        series_description=f"CrossEAI findings, model {model.version}, for research",
        is_complete=True,
    )


def _group(
    context: Dataset, number: int, finding: Finding, model: ModelIdentity
) -> hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    x0, y0, x1, y1 = finding.box_image_px
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], np.float64)
    source = hd.sr.SourceImageForRegion(context.SOPClassUID, context.SOPInstanceUID)
    tracking = f"{finding.disease} {number}"
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=series_uid(context, model, f"{context.SOPInstanceUID} {tracking}"), identifier=tracking
        ),
        referenced_region=hd.sr.ImageRegion(hd.sr.GraphicTypeValues.POLYLINE, corners, source),
        finding_type=_coded(finding.disease),
        algorithm_id=hd.sr.AlgorithmIdentification(model.name, model.version, [f"model SHA-256 {model.sha256}"]),
        measurements=[
            hd.sr.Measurement(codes.DCM.Probability, shown_probability(finding), codes.UCUM.NoUnits),
            hd.sr.Measurement(_BOX_SCORE, shown_score(finding), codes.UCUM.NoUnits),
        ],
    )


def _coded(disease: str) -> hd.sr.CodedConcept:
    coded = snomed_ct(disease)
    if coded is None:
        return hd.sr.CodedConcept(disease[:16], "99CROSSEAI", disease[:64])
    return hd.sr.CodedConcept(coded[0], "SCT", coded[1])
