"""Grayscale softcopy presentation state: the boxes drawn over the radiograph by the viewer itself."""

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset

from crosseai.client.formats.dicom_context import MANUFACTURER, SOFTWARE, instance_uid, series_uid
from crosseai.contract import Finding, ImageResult, ModelIdentity

_PIXEL = hd.pr.AnnotationUnitsValues.PIXEL


def presentation_state(context: Dataset, result: ImageResult, model: ModelIdentity) -> Dataset | None:
    """One closed polyline and one text a box, in pixels of the image (PS3.3 C.10.5); None without a box.

    Parameters
    ----------
    context
        Header of the radiograph.
    result
        Its result.
    model
        The model that made the result.
    """
    if not result.localized:
        return None
    layer = hd.pr.GraphicLayer("CROSSEAI", order=1, description=f"CrossEAI, model {model.version}")
    annotation = hd.pr.GraphicAnnotation(
        referenced_images=[context],
        graphic_layer=layer,
        graphic_objects=[_outline(finding) for finding in result.localized],
        text_objects=[_label(finding, model) for finding in result.localized],
    )
    state = hd.pr.GrayscaleSoftcopyPresentationState(
        referenced_images=[context],
        series_instance_uid=series_uid(context, model, "gsps"),
        series_number=9002,
        sop_instance_uid=instance_uid(context, model, "gsps", result),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=model.name,
        software_versions=SOFTWARE,
        device_serial_number=model.version,
        content_label="CROSSEAI",
        content_description=f"Boxes by CrossEAI {model.version[:24]}, for research",
        graphic_annotations=[annotation],
        graphic_layers=[layer],
        series_description=f"CrossEAI boxes, model {model.version}, for research",
    )
    state.Laterality = ""  # of type 2C
    return state


def _outline(finding: Finding) -> hd.pr.GraphicObject:
    x0, y0, x1, y1 = finding.box_image_px
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], np.float64)
    return hd.pr.GraphicObject(hd.pr.GraphicTypeValues.POLYLINE, corners, _PIXEL)


def _label(finding: Finding, model: ModelIdentity) -> hd.pr.TextObject:
    x0, y0, *_ = finding.box_image_px
    text = f"{finding.disease} {finding.probability:.2f} (CrossEAI {model.version}, research)"
    return hd.pr.TextObject(text, _PIXEL, anchor_point=(float(x0), float(y0)), anchor_point_visible=False)
