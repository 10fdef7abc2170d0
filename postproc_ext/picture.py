"""Draws ``postproc_ext/steps.png``: every step of the box algorithm on a phantom.

    python postproc_ext/picture.py

The two maps stand in for a classifier's: a coarse blob on the planted mass, and the radiograph's edges, stronger there.
All that follows is done by the real functions, the candidates are the paper's; the gradient map is smoothed, which
leaves something to see.
"""

from pathlib import Path

import click
import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from crosseai.postproc import binarize, expand, fuse, maximal_rectangles, select
from crosseai.training.phantoms import draw_anatomy, draw_phantom

SIDE, COARSE = 224, 7
COLOURS = [f"C{i}" for i in (1, 2, 4, 8, 9, 6, 5, 0)]

Gray = npt.NDArray[np.uint8]
Heat = npt.NDArray[np.float32]


def phantom() -> tuple[Gray, npt.NDArray[np.float64]]:
    """A radiograph with a mass, and the mass's box."""
    rng = np.random.default_rng(5)
    drawn = draw_phantom(draw_anatomy(rng), ["Mass"], rng, size=SIDE)
    return (drawn.pixels // 16).astype(np.uint8), np.array(drawn.boxes_image_px["Mass"])


def maps_of(image: Gray, box: npt.NDArray[np.float64]) -> tuple[Heat, Gray]:
    """Heat map ``[7, 7]`` and gradient map ``[224, 224]`` of a classifier that found the mass, more or less."""
    x0, y0, x1, y1 = box
    y, x = np.indices((SIDE, SIDE))
    distance = 1.5 * np.hypot((x - (x0 + x1) / 2) / (x1 - x0), (y - (y0 + y1) / 2) / (y1 - y0))
    heatmap = cv2.resize(np.exp(-(distance**2)), (COARSE, COARSE), interpolation=cv2.INTER_AREA)
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1)
    edges = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))
    gradient = edges * (0.15 + np.exp(-(distance**2)))
    return heatmap.astype(np.float32), (255 * gradient / gradient.max()).astype(np.uint8)


def outline(axes: Axes, boxes: npt.NDArray[np.int32] | npt.NDArray[np.float64], colours: list[str]) -> None:
    """Draw the borders of boxes."""
    for (x0, y0, x1, y1), colour in zip(boxes, colours, strict=False):
        axes.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, color=colour, linewidth=1.4))


def draw() -> Figure:
    """The figure."""
    image, planted = phantom()
    heatmap, gradient_map = maps_of(image, planted)
    fused = fuse(heatmap, gradient_map, gradient_power=0.5, gradient_sigma=0.03)
    mask = binarize(fused, threshold=0.5)
    candidates = maximal_rectangles(mask)
    grown = expand(mask, candidates)
    index, _ = select(fused, mask, grown, area_power=0.5)

    figure = Figure(figsize=(10, 5.4), layout="constrained")
    axes = figure.subplots(2, 4).flat
    steps: list[tuple[str, npt.NDArray[np.generic], str]] = [
        ("radiograph: a phantom with a mass", image, "gray"),
        ("heat map, 7 x 7", heatmap, "inferno"),
        ("gradient map", gradient_map, "gray"),
        ("1-3  fuse", fused, "inferno"),
        ("4  binarize", mask, "gray"),
        ("5  maximal_rectangles", mask, "gray"),
        ("6  expand", mask, "gray"),
        ("7  select (white: the planted box)", image, "gray"),
    ]
    for axis, (title, pixels, colours) in zip(axes, steps, strict=True):
        axis.imshow(pixels, cmap=colours, extent=(-0.5, SIDE - 0.5, SIDE - 0.5, -0.5))
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    outline(figure.axes[5], candidates, COLOURS)
    outline(figure.axes[6], grown, COLOURS)
    outline(figure.axes[7], planted[None], ["white"])
    outline(figure.axes[7], grown[index : index + 1], [COLOURS[index]])
    return figure


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path(__file__).with_name("steps.png"))
def main(output: Path) -> None:
    """Draw the picture."""
    draw().savefig(output, dpi=80)


if __name__ == "__main__":
    main()
