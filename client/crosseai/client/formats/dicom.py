"""The DICOM objects of one scored image, from its file to files."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from crosseai.client.files import atomic_path
from crosseai.client.formats.dicom_context import DicomObject, ModelIdentity, read_context
from crosseai.client.formats.dicom_sr import structured_report
from crosseai.client.formats.gsps import presentation_state
from crosseai.client.formats.secondary_capture import secondary_capture
from crosseai.contract import CrossEAIError, ImageResult, UnsupportedImageError
from crosseai.imaging.quiet import quiet_pydicom


def write_dicom_objects(
    radiograph: Path,
    output: Path,
    kinds: Iterable[DicomObject],
    result: ImageResult,
    model: ModelIdentity,
    overlay: npt.NDArray[np.uint8],
) -> None:
    """Write ``output/KIND/ID.dcm`` for each kind; nothing for an image without a box.

    Parameters
    ----------
    radiograph
        The scored DICOM file: patient and study are its own.
    output
        Folder of the run.
    kinds
        What to write.
    result, model
        What was found, and by which model.
    overlay
        uint8 RGB ``[H, W, 3]`` for the secondary capture.

    Raises
    ------
    UnsupportedImageError
        If the radiograph's header is not good enough to refer to it; no value of it is quoted.
    OutputError
        If a file cannot be written.
    """
    with quiet_pydicom():
        for kind in kinds:
            made = _make(kind, radiograph, result, model, overlay)
            if made is not None:
                (output / kind).mkdir(parents=True, exist_ok=True)
                with atomic_path(output / kind / f"{result.image_id}.dcm") as partial:
                    made.save_as(partial, enforce_file_format=True)


def _make(
    kind: DicomObject, radiograph: Path, result: ImageResult, model: ModelIdentity, overlay: npt.NDArray[np.uint8]
) -> Dataset | None:
    try:
        context = read_context(radiograph)
        if kind == "dicom-sr":
            return structured_report(context, result, model)
        if kind == "gsps":
            return presentation_state(context, result, model)
        return secondary_capture(context, result, model, overlay)
    except CrossEAIError:
        raise
    except Exception as error:  # highdicom raises anything on odd headers, and its messages quote them
        reason = f"DICOM: no {kind} can be made of this header ({type(error).__name__})"
        raise UnsupportedImageError(reason) from error
