"""From a radiograph to the model's input, and from the model's boxes back to the radiograph."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from crosseai.contract import NO_BOX, Box, InputError, ModelSpec
from crosseai.imaging.radiograph import Radiograph


def preprocess(radiograph: Radiograph, spec: ModelSpec) -> npt.NDArray[np.uint8]:
    """The model's input; the one function for it, in training and in scoring.

    ``stretch-area``: the whole image is resized to the model's square by OpenCV's ``INTER_AREA`` (each model pixel is
    the mean of the area it covers; bilinear where the image is smaller than the model's input), then the display
    range becomes 0..255, rounded to nearest. No crop, no padding: the aspect ratio is not kept.

    Parameters
    ----------
    radiograph
        Image of any size.
    spec
        Gives the side ``S`` of the input.

    Returns
    -------
    ndarray
        uint8, shape ``(1, S, S)``, 0 = black.
    """
    side = spec.input_size
    resized = cv2.resize(radiograph.pixels, (side, side), interpolation=cv2.INTER_AREA)
    return _window(resized, radiograph.display_range)[np.newaxis]


def to_display(radiograph: Radiograph) -> npt.NDArray[np.uint8]:
    """The radiograph as a screen shows it: uint8, shape ``(H, W)``, the display range as 0..255.

    An 8-bit radiograph that is shown as it is shares its memory with the result.
    """
    return _window(radiograph.pixels, radiograph.display_range)


def box_to_image_px(box_model_px: Box, input_size: int, height: int, width: int) -> Box:
    """Map a box from model pixels to pixels of the original image.

    The result is the smallest box of whole image pixels that covers the area of the given one, so the whole model
    frame maps to the whole image, and no box becomes empty.

    Parameters
    ----------
    box_model_px
        Half-open ``(x0, y0, x1, y1)`` within the model's square; ``NO_BOX`` stays ``NO_BOX``.
    input_size
        Side ``S`` of the model's square, in model pixels.
    height, width
        Size of the original image, in image pixels.

    Returns
    -------
    Box
        Half-open ``(x0, y0, x1, y1)`` in image pixels, within the image.

    Raises
    ------
    InputError
        If the box is empty or leaves the model's square.

    Examples
    --------
    >>> box_to_image_px((56, 112, 168, 224), input_size=224, height=1024, width=896)
    (224, 512, 672, 1024)
    """
    if tuple(box_model_px) == NO_BOX:
        return NO_BOX
    x0, y0, x1, y1 = (int(edge) for edge in box_model_px)
    if not (0 <= x0 < x1 <= input_size and 0 <= y0 < y1 <= input_size):
        raise InputError(f"box: expected 0 <= x0 < x1 <= {input_size} (y alike) in model pixels, found {box_model_px}")
    return (
        x0 * width // input_size,
        y0 * height // input_size,
        -(-x1 * width // input_size),
        -(-y1 * height // input_size),
    )


def _window(pixels: npt.NDArray[Any], display_range: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """``display_range`` as 0..255, rounded to nearest, clipped."""
    low, high = display_range
    if pixels.dtype == np.uint8 and display_range == (0, 255):
        return pixels
    levels = np.rint((pixels.astype(np.float32) - np.float32(low)) / np.float32((high - low) / 255))
    shown: npt.NDArray[np.uint8] = np.clip(levels, 0, 255).astype(np.uint8)
    return shown
