"""From a file to the model's input."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from crosseai.client.discovery import image_id
from crosseai.contract import ImageFailure, ImageResult, InputError, ModelSpec, Stage, UnreadableImageError
from crosseai.imaging import DEFAULT_POLICY, Radiograph, ReadPolicy, decode_radiograph, naming, preprocess, read_content


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """A radiograph ready for the model.

    Parameters
    ----------
    path
        Relative to the scored directory.
    file
        The file itself.
    image_id
        Hash of the file.
    height, width
        Size of the original image in pixels.
    model_input
        uint8 ``[1,S,S]``.
    warnings
        What deserves a look, as :class:`crosseai.imaging.Radiograph` says it.
    radiograph
        The original image, where something is made of it.
    """

    path: str
    file: Path
    image_id: str
    height: int
    width: int
    model_input: npt.NDArray[np.uint8]
    warnings: tuple[str, ...] = ()
    radiograph: Radiograph | None = None


@dataclass(frozen=True, slots=True)
class MovedImage:
    """A file that an earlier run scored under another path.

    Parameters
    ----------
    result
        The earlier result, under the new path.
    moved_from
        The earlier path, where there is no file any more.
    """

    result: ImageResult
    moved_from: str


Prepared: TypeAlias = PreparedImage | MovedImage | ImageFailure


def prepare(
    path: Path,
    name: str,
    spec: ModelSpec,
    *,
    earlier: Callable[[str, str], ImageResult | None] = lambda _, __: None,
    reading: ReadPolicy = DEFAULT_POLICY,
    keep_radiograph: bool = False,
) -> Prepared:
    """Read and preprocess one file; what cannot be scored becomes a failure, never an exception.

    Parameters
    ----------
    path
        The file.
    name
        How results name it.
    spec
        Gives the model's input.
    earlier
        Gives the result of a file with this ``image_id`` that is no longer where it was, if it holds for this name.
    reading
        What is accepted and how it is shown.
    keep_radiograph
        Whether the original pixels are needed later.
    """
    stage: Stage = "read"
    try:
        with naming(path):
            content = read_content(path, reading)
            identity = image_id(content)
            if known := earlier(identity, name):
                return MovedImage(replace(known, path=name), moved_from=known.path)
            radiograph = decode_radiograph(content, reading)
            stage = "preprocess"
            model_input = preprocess(radiograph, spec)
        height, width = radiograph.pixels.shape
        kept = radiograph if keep_radiograph else None
        return PreparedImage(name, path, identity, height, width, model_input, radiograph.warnings, kept)
    except InputError as error:
        return failure(name, error, stage)
    except Exception as error:
        # Only the kind is told: the message may hold identifiers.
        return failure(name, UnreadableImageError(f"{path}: the decoder failed with {type(error).__name__}"), stage)


def failure(path: str, error: Exception, stage: Stage) -> ImageFailure:
    """The record of a file that could not be scored."""
    return ImageFailure(path=path, error=type(error).__name__, message=str(error), stage=stage)
