"""The methods by name."""

from collections.abc import Mapping, Sequence

from crosseai.comparison.chexradinet import ChexRadiNet
from crosseai.comparison.constant import ConstantBox
from crosseai.comparison.gradcam import CrossEAI
from crosseai.comparison.li import Li2018
from crosseai.comparison.method import Method
from crosseai.comparison.scalp import ScalpContours
from crosseai.comparison.wang import Wang2017
from crosseai.contract import InputError
from crosseai.contract.spec import HeatmapMethod
from crosseai.export.sources import GRADIENTS, HEATMAPS, GradientSource

REFERENCE = "crosseai"
"""What the others are tested against."""

ALL = "all"


def all_methods(heatmap: HeatmapMethod = "gradcam++", gradient: GradientSource = "guided") -> Mapping[str, Method]:
    """Every method, in the order of the table.

    Parameters
    ----------
    heatmap, gradient
        Sources of CrossEAI's two maps, the paper's unless given.

    Raises
    ------
    InputError
        If there is no such source.
    """
    if heatmap not in HEATMAPS or gradient not in GRADIENTS:
        raise InputError(
            f"maps: expected a heat map of {', '.join(HEATMAPS)} and a gradient of {', '.join(GRADIENTS)}; "
            f"found {heatmap!r} and {gradient!r}"
        )
    methods: tuple[Method, ...] = (
        ConstantBox(),
        Wang2017(),
        Li2018(),
        Li2018(uses_boxes=False),
        CrossEAI("scalp", "SCALP, rectangles", "scalp"),
        ScalpContours("scalp-contours", "SCALP, contours"),
        ChexRadiNet(),
        CrossEAI(REFERENCE, "CrossEAI", "crosseai", heatmap=heatmap, gradient=gradient),
        CrossEAI("crosseai-tuned", "CrossEAI, tuned", "tuned", heatmap=heatmap, gradient=gradient),
    )
    return {method.name: method for method in methods}


def methods_named(
    names: str, heatmap: HeatmapMethod = "gradcam++", gradient: GradientSource = "guided"
) -> list[Method]:
    """Methods by their names, joined by commas, or ``all``; other arguments as of :func:`all_methods`.

    Raises
    ------
    InputError
        If a name or a source is unknown.
    """
    known = all_methods(heatmap, gradient)
    wanted: Sequence[str] = list(known) if names == ALL else [name.strip() for name in names.split(",")]
    if unknown := [name for name in wanted if name not in known]:
        raise InputError(f"methods: expected {ALL}, or names of {', '.join(known)}; found {', '.join(unknown)}")
    return [method for name, method in known.items() if name in wanted]
