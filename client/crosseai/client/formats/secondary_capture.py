"""Secondary capture: the overlay as a colour image that every viewer shows."""

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from crosseai.client.formats.dicom_context import MANUFACTURER, SOFTWARE, instance_uid, series_uid
from crosseai.contract import ImageResult, ModelIdentity


def secondary_capture(
    context: Dataset, result: ImageResult, model: ModelIdentity, overlay: npt.NDArray[np.uint8]
) -> Dataset | None:
    """The overlay in the study of the radiograph; None without a box.

    Parameters
    ----------
    context
        Header of the radiograph.
    result
        Its result.
    model
        The model that made the result.
    overlay
        uint8 RGB ``[H, W, 3]``, as :func:`crosseai.imaging.draw_overlay` makes it.
    """
    if not result.localized:
        return None
    capture = hd.sc.SCImage.from_ref_dataset(
        context,
        pixel_array=overlay,
        photometric_interpretation=hd.PhotometricInterpretationValues.RGB,
        bits_allocated=8,
        coordinate_system=hd.CoordinateSystemNames.PATIENT,
        patient_orientation=tuple(context.get("PatientOrientation") or ()) or ("L", "F"),
        series_instance_uid=series_uid(context, model, "secondary-capture"),
        series_number=9003,
        sop_instance_uid=instance_uid(context, model, "secondary-capture", result),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=model.name,
        software_versions=SOFTWARE,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description=f"CrossEAI overlay, model {model.version}, for research",
    )
    capture.Laterality = ""  # of type 2C
    if "BurnedInAnnotation" in context:
        capture.BurnedInAnnotation = context.BurnedInAnnotation
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = context.SOPClassUID, context.SOPInstanceUID
    capture.SourceImageSequence = [source]
    return capture
