"""Findings drawn on the radiograph, at its full resolution."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from crosseai.contract import NO_BOX, Box, Finding
from crosseai.imaging.palette import Rgb, disease_colour
from crosseai.imaging.preprocess import to_display
from crosseai.imaging.radiograph import Radiograph

NOTICE = "Research use only"

_BLACK: Rgb = (0, 0, 0)
_WHITE: Rgb = (255, 255, 255)


def draw_overlay(radiograph: Radiograph, findings: Sequence[Finding], *, model_version: str) -> npt.NDArray[np.uint8]:
    """Draw the box and the label of every finding, and a footer.

    A label reads disease, probability, box score. Findings without a box are listed in the top-left corner. Lines and
    letters grow with the image.

    Parameters
    ----------
    radiograph
        The image as it was read.
    findings
        The explained diseases, with boxes in pixels of this image.
    model_version
        Version of the model that found them.

    Returns
    -------
    ndarray
        RGB, uint8, shape ``(H, W, 3)``.
    """
    canvas = np.asarray(cv2.cvtColor(to_display(radiograph), cv2.COLOR_GRAY2RGB), np.uint8)
    text = _Text(canvas)
    for finding in findings:
        if finding.box_image_px != NO_BOX:
            _outline(canvas, finding.box_image_px, disease_colour(finding.disease), text.size)
    for finding in findings:
        label = f"{finding.disease} {finding.probability:.2f}"
        if finding.box_image_px == NO_BOX:
            text.tag(f"{label}  no box", 0, 0, disease_colour(finding.disease))
        else:
            x0, y0, _, _ = finding.box_image_px
            text.tag(f"{label}  score {finding.score:.0f}", x0, y0 - text.line, disease_colour(finding.disease))
    text.footer(f"CrossEAI, model version {model_version}. {NOTICE}.")
    return canvas


def _outline(canvas: npt.NDArray[np.uint8], box_image_px: Box, colour: Rgb, size: int) -> None:
    """The box's edge, just inside it, between black ones that set it off from bright bone."""
    x0, y0, x1, y1 = box_image_px
    width, margin = max(2, round(size / 8)), max(1, round(size / 16))
    for inset, shade in ((0, _BLACK), (margin, colour), (margin + width, _BLACK)):
        line = width if shade == colour else margin
        for edge in range(inset, inset + line):
            cv2.rectangle(canvas, (x0 + edge, y0 + edge), (x1 - 1 - edge, y1 - 1 - edge), shade)


class _Text:
    """Writes on a canvas: tags that avoid each other, and a footer.

    ``size`` is the letters' height in pixels, ``line`` that of a tag.
    """

    def __init__(self, canvas: npt.NDArray[np.uint8]) -> None:
        self.canvas = canvas
        self.height, self.width = canvas.shape[:2]
        self.size = max(9, round(min(self.height, self.width) / 40))
        self.line = round(1.6 * self.size)
        self.font = cv2.FontFace("sans")
        self.taken: list[Box] = []

    def tag(self, text: str, x: int, y: int, colour: Rgb) -> None:
        """Write on a filled rectangle, inside the image, as near to ``(x, y)`` as no other tag is in the way."""
        width = self._width(text, self.size) + self.size
        x = max(0, min(x, self.width - width))
        y = max(0, min(y, self.height - 2 * self.line))
        while any(x < x1 and x0 < x + width and y < y1 and y0 < y + self.line for x0, y0, x1, y1 in self.taken):
            y += self.line
        self.taken.append((x, y, x + width, y + self.line))
        cv2.rectangle(self.canvas, (x, y), (x + width - 1, y + self.line - 1), colour, cv2.FILLED)
        self._write(text, x + self.size // 2, y, self.size, _BLACK if _luminance(colour) > 110 else _WHITE)

    def footer(self, text: str) -> None:
        """Write along the darkened bottom edge, in letters small enough for the image's width."""
        size = max(5, min(self.size, self.size * (self.width - self.size) // max(1, self._width(text, self.size))))
        top = self.height - self.line
        self.canvas[top:] //= 4
        self._write(text, size // 2, top, size, _WHITE)

    def _width(self, text: str, size: int) -> int:
        return int(cv2.getTextSize((self.width, self.height), text, (0, 0), self.font, size, 500)[2])

    def _write(self, text: str, x: int, top: int, size: int, colour: Rgb) -> None:
        baseline = top + (self.line + round(0.72 * size)) // 2
        cv2.putText(self.canvas, text, (x, baseline), colour, self.font, size, 500)


def _luminance(colour: Rgb) -> float:
    red, green, blue = colour
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
