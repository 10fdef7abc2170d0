"""From a file to the model's input."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from crosseai.client.sources.discovery import image_id
from crosseai.client.sources.storage import ImageFile, read_file
from crosseai.contract import ImageFailure, ImageResult, InputError, ModelSpec, Stage, UnreadableImageError
from crosseai.imaging import DEFAULT_POLICY, Radiograph, ReadPolicy, decode_radiograph, naming, preprocess


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """A radiograph ready for the model.

    Parameters
    ----------
    path
        Relative to the scored directory.
    location
        Where the file lies.
    image_id
        Hash of the file.
    height, width
        Size of the original image in pixels.
    model_input
        uint8 ``[1,S,S]``.
    warnings
        What deserves a look, as :class:`crosseai.imaging.Radiograph` says it.
    """

    path: str
    location: str
    image_id: str
    height: int
    width: int
    model_input: npt.NDArray[np.uint8]
    warnings: tuple[str, ...] = ()


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
    file: ImageFile,
    spec: ModelSpec,
    *,
    earlier: Callable[[str, str], ImageResult | None] = lambda _, __: None,
    reading: ReadPolicy = DEFAULT_POLICY,
) -> Prepared:
    """Read and preprocess one file; what cannot be scored becomes a failure, never an exception.

    Parameters
    ----------
    file
        The file.
    spec
        Gives the model's input.
    earlier
        Gives the result of a file with this ``image_id`` that is no longer where it was, if it holds for this name.
    reading
        What is accepted and how it is shown.
    """
    stage: Stage = "read"
    try:
        with naming(file.location):
            content = read_file(file.location, reading)
            identity = image_id(content)
            _require_unchanged(file, identity)
            if known := earlier(identity, file.name):
                return MovedImage(replace(known, path=file.name), moved_from=known.path)
            radiograph = decode_radiograph(content, reading)
            stage = "preprocess"
            model_input = preprocess(radiograph, spec)
        height, width = radiograph.pixels.shape
        return PreparedImage(file.name, file.location, identity, height, width, model_input, radiograph.warnings)
    except InputError as error:
        return failure(file.name, error, stage)
    except Exception as error:
        # Only the kind is told: the message may hold identifiers.
        reason = f"{file.location}: the decoder failed with {type(error).__name__}"
        return failure(file.name, UnreadableImageError(reason), stage)


def _require_unchanged(file: ImageFile, identity: str) -> None:
    if file.image_id not in (None, identity):
        raise InputError(f"expected the content that was indexed, {file.image_id}, found {identity}: index it again")


def read_again(location: str, expected: str, reading: ReadPolicy) -> Radiograph:
    """The original image of a file that was scored.

    Parameters
    ----------
    location
        Where the file lies.
    expected
        Its ``image_id``.
    reading
        As for :func:`prepare`.

    Raises
    ------
    InputError
        If the file cannot be read any more, or is another one now.
    """
    with naming(location):
        content = read_file(location, reading)
        if (found := image_id(content)) != expected:
            raise InputError(f"expected the content that was scored, {expected}, found {found}")
        return decode_radiograph(content, reading)


def failure(path: str, error: Exception, stage: Stage) -> ImageFailure:
    """The record of a file that could not be scored."""
    return ImageFailure(path=path, error=type(error).__name__, message=str(error), stage=stage)
