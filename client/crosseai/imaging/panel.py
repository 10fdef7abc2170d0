"""How a box came about, in one row of pictures: figure 3 of the CrossEAI paper (arXiv 2310.19835)."""

import io
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from crosseai.contract import NO_BOX, Box, BoxParameters, Finding
from crosseai.imaging.overlay import NOTICE
from crosseai.imaging.preprocess import to_display
from crosseai.imaging.radiograph import Radiograph

PanelFormat: TypeAlias = Literal["png", "pdf"]

_LineStyle: TypeAlias = str | tuple[int, tuple[int, int]]

rcParams["pdf.fonttype"] = 42  # TrueType: journals refuse Matplotlib's default, Type 3

_DPI = 200
_COLOURS = "inferno"  # perceptually uniform, and black where nothing was found
_GRAY = "0.35"

# Colours of Okabe and Ito: told apart with every common colour blindness.
_FUSED_MAP = "#E69F00"
_HEATMAP_ONLY = "#56B4E9"
_GROUND_TRUTH = "white"

# Inches.
_PICTURE_WIDTH = 2.3
_GAP = 0.08
_TOP = 0.53
_BOTTOM = 0.52


def draw_panel(
    radiograph: Radiograph,
    heatmap: npt.NDArray[np.float32],
    gradient_map: npt.NDArray[np.uint8],
    fused: npt.NDArray[np.float32],
    finding: Finding,
    *,
    model_version: str,
    parameters: BoxParameters,
    ground_truth: Sequence[tuple[float, float, float, float]] = (),
    heatmap_box: Box | None = None,
) -> Figure:
    """Radiograph, heat map, gradient map, fused map and box of one finding, side by side.

    The three maps share one colour scale, 0..255. The contour in the fused map bounds the mask: the pixels above
    ``threshold`` times its maximum.

    Parameters
    ----------
    radiograph
        The image as it was read.
    heatmap
        Heat map, float32, shape ``(h, w)``, unscaled.
    gradient_map
        Gradient map, uint8, shape ``(S, S)``.
    fused
        Fused map, float32, shape ``(S, S)``, 0..255.
    finding
        The disease, its probability and its box.
    model_version
        Version of the model that found it.
    parameters
        Parameters of the box algorithm.
    ground_truth
        Boxes drawn by radiologists, ``(x0, y0, x1, y1)`` in image pixels.
    heatmap_box
        Box that the heat map alone gives, in image pixels, for comparison.

    Returns
    -------
    Figure
        For :func:`encode_panel`, or by ``Figure.savefig`` in any of Matplotlib's formats.
    """
    figure, axes = _row_of_pictures(radiograph.height / radiograph.width)
    frame = (0, radiograph.width, radiograph.height, 0)
    gray = _at_print_size(to_display(radiograph))
    for axis in (axes[0], axes[4]):
        axis.imshow(gray, cmap="gray", vmin=0, vmax=255, extent=frame)
    maps: tuple[npt.NDArray[Any], ...] = (_scaled(heatmap, gradient_map.shape), gradient_map, fused)
    for axis, values in zip(axes[1:4], maps, strict=True):
        axis.imshow(values, cmap=_COLOURS, vmin=0, vmax=255, extent=frame)
    if fused.max() > 0:
        axes[3].contour(
            fused, levels=[parameters.threshold * fused.max()], extent=frame, origin="upper", colors="w", linewidths=0.5
        )
    for axis in (axes[1], axes[4]):
        _outline(axis, heatmap_box, "heat map only", _HEATMAP_ONLY, (0, (3, 2)))
    for axis in (axes[3], axes[4]):
        _outline(axis, finding.box_image_px, "fused map", _FUSED_MAP)
    for box in ground_truth:
        _outline(axes[4], box, "ground truth", _GROUND_TRUTH)
    _add_colour_scale(figure, axes[1], axes[3])
    _add_legend(figure, axes[4])
    _add_captions(figure, axes, finding, parameters, model_version)
    return figure


def encode_panel(panel: Figure, file_format: PanelFormat = "png") -> bytes:
    """A panel as the content of a file: a PNG, or a PDF whose text and lines are not pixels."""
    content = io.BytesIO()
    options: dict[str, Any] = {
        "png": {"pil_kwargs": {"compress_level": 3}},
        "pdf": {"metadata": {"CreationDate": None}},
    }
    panel.savefig(content, format=file_format, dpi=_DPI, **options[file_format])
    return content.getvalue()


def _row_of_pictures(aspect: float) -> tuple[Figure, list[Axes]]:
    """Five frameless axes of the radiograph's aspect; no pyplot, so that threads can draw at once."""
    width = 5 * _PICTURE_WIDTH + 6 * _GAP
    height = _TOP + _PICTURE_WIDTH * aspect + _BOTTOM
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = []
    for column in range(5):
        left = _GAP + column * (_PICTURE_WIDTH + _GAP)
        axis = figure.add_axes(
            (left / width, _BOTTOM / height, _PICTURE_WIDTH / width, _PICTURE_WIDTH * aspect / height)
        )
        axis.set_axis_off()
        axes.append(axis)
    return figure, axes


def _at_print_size(gray: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    width = round(2 * _PICTURE_WIDTH * _DPI)
    if gray.shape[1] <= width:
        return gray
    height = round(gray.shape[0] * width / gray.shape[1])
    return np.asarray(cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _scaled(heatmap: npt.NDArray[np.float32], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The heat map as the fusion sees it: bilinear to the model's size, minimum..maximum as 0..255."""
    enlarged = np.asarray(cv2.resize(heatmap, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)
    low, span = float(enlarged.min()), float(np.ptp(enlarged))
    return (enlarged - low) * (255 / span) if span > 0 else np.zeros_like(enlarged)


def _outline(
    axis: Axes, box_image_px: tuple[float, ...] | None, label: str, colour: str, style: _LineStyle = "-"
) -> None:
    if box_image_px is None or box_image_px == NO_BOX:
        return
    x0, y0, x1, y1 = box_image_px
    halo = withStroke(linewidth=2.6, foreground="black")
    axis.add_patch(
        Rectangle(
            (x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linestyle=style, linewidth=1.5, label=label,
            path_effects=[halo],
        )
    )  # fmt: skip


def _add_colour_scale(figure: Figure, first: Axes, last: Axes) -> None:
    """One scale under the three maps."""
    height = figure.get_figheight()
    left, right = first.get_position().x0, last.get_position().x1
    middle, width = (left + right) / 2, (right - left) / 3
    axis = figure.add_axes((middle - width / 2, (_BOTTOM - 0.16) / height, width, 0.08 / height))
    bar = figure.colorbar(ScalarMappable(Normalize(0, 255), _COLOURS), cax=axis, orientation="horizontal")
    bar.set_ticks([0, 255])
    bar.ax.tick_params(labelsize=7, length=2, pad=1)
    bar.outline.set_linewidth(0.4)


def _add_legend(figure: Figure, axis: Axes) -> None:
    """Name the boxes of a picture below it."""
    lines = [
        Line2D([], [], color=box.get_edgecolor(), linestyle=box.get_linestyle(), linewidth=1.5, label=label,
               path_effects=box.get_path_effects())
        for label, box in {box.get_label(): box for box in axis.patches}.items()
    ]  # fmt: skip
    corner = (axis.get_position().x1, (_BOTTOM - 0.02) / figure.get_figheight())
    figure.legend(
        handles=lines, loc="upper right", bbox_to_anchor=corner, ncols=3, fontsize=7, frameon=False, handlelength=1.5,
        columnspacing=0.9, handletextpad=0.5, borderpad=0, borderaxespad=0.5,
    )  # fmt: skip


def _add_captions(
    figure: Figure, axes: list[Axes], finding: Finding, parameters: BoxParameters, model_version: str
) -> None:
    titles = (
        "Radiograph",
        "Heat map",
        "Gradient map",
        f"Fused, {parameters.t:.0%} heat map",
        "Box on the radiograph" if finding.box_image_px != NO_BOX else "No box",
    )
    for letter, title, axis in zip("abcde", titles, axes, strict=True):
        axis.set_title(f"({letter}) {title}", fontsize=8.5, loc="left", pad=3)
    height, left = figure.get_figheight(), axes[0].get_position().x0
    probability = f"probability {finding.probability:.2f}, box score {finding.score:.0f}"
    shown = {"t": parameters.t, "threshold": parameters.threshold, **parameters.departures()}
    settings = ", ".join(f"{name} = {value}" for name, value in shown.items())
    origin = f"CrossEAI, model version {model_version}; preset {parameters.preset}: {settings}. {NOTICE}."
    figure.text(left, 1 - 0.24 / height, finding.disease, fontsize=12, weight="bold")
    figure.text(axes[4].get_position().x1, 1 - 0.24 / height, probability, fontsize=9, ha="right")
    figure.text(left, 0.1 / height, origin, fontsize=7, color=_GRAY)
