"""The DICOM objects of one scored image, from its file to files."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from crosseai.client.formats.dicom_context import DicomObject, read_context
from crosseai.client.formats.dicom_sr import structured_report
from crosseai.client.formats.gsps import presentation_state
from crosseai.client.formats.parametric_map import parametric_map
from crosseai.client.formats.secondary_capture import secondary_capture
from crosseai.client.records.files import atomic_path
from crosseai.contract import CrossEAIError, ImageResult, ModelIdentity, UnsupportedImageError
from crosseai.imaging.quiet import quiet_pydicom


def write_dicom_objects(
    radiograph: str | Path,
    output: Path,
    kinds: Iterable[DicomObject],
    result: ImageResult,
    model: ModelIdentity,
    overlay: Callable[[], npt.NDArray[np.uint8]],
    fused: Callable[[], Sequence[npt.NDArray[np.float32]]],
) -> None:
    """Write ``output/KIND/ID.dcm`` for each kind; nothing for an image without a box.

    Parameters
    ----------
    radiograph
        Where the scored DICOM file lies: patient and study are its own.
    output
        Folder of the run.
    kinds
        What to write.
    result, model
        What was found, and by which model.
    overlay
        Draws uint8 RGB ``[H, W, 3]`` for the secondary capture.
    fused
        Makes the fused map of each finding, float32 ``[S, S]``, for the parametric map.

    Raises
    ------
    UnsupportedImageError
        If the radiograph's header is not good enough to refer to it; no value of it is quoted.
    OutputError
        If a file cannot be written.
    """
    with quiet_pydicom():
        for kind, made in _make(kinds, radiograph, result, model, overlay, fused).items():
            if made is not None:
                (output / kind).mkdir(parents=True, exist_ok=True)
                with atomic_path(output / kind / f"{result.image_id}.dcm") as partial:
                    made.save_as(partial, enforce_file_format=True)


def _make(
    kinds: Iterable[DicomObject],
    radiograph: str | Path,
    result: ImageResult,
    model: ModelIdentity,
    overlay: Callable[[], npt.NDArray[np.uint8]],
    fused: Callable[[], Sequence[npt.NDArray[np.float32]]],
) -> dict[DicomObject, Dataset | None]:
    makers: dict[DicomObject, Callable[[Dataset], Dataset | None]] = {
        "dicom-sr": lambda context: structured_report(context, result, model),
        "gsps": lambda context: presentation_state(context, result, model),
        "secondary-capture": lambda context: secondary_capture(context, result, model, overlay()),
        "parametric-map": lambda context: parametric_map(context, result, model, fused()),
    }
    try:
        context = read_context(radiograph)
        return {kind: makers[kind](context) for kind in kinds}
    except CrossEAIError:
        raise
    except Exception as error:  # highdicom raises anything on odd headers, and its messages quote them
        reason = f"DICOM: no object can be made that refers to this header ({type(error).__name__})"
        raise UnsupportedImageError(reason) from error
