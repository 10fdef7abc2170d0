"""Boxes, and the named parameter sets of the algorithm that finds them."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

from crosseai.contract.errors import ContractError, InputError

Box: TypeAlias = tuple[int, int, int, int]
"""``(x0, y0, x1, y1)`` in pixels, half-open, origin at the top-left corner; all zero means no box."""

NO_BOX: Box = (0, 0, 0, 0)

CandidateRule: TypeAlias = Literal["greedy", "components", "all"]
"""How ``crosseai.postproc.localize`` finds its candidates."""

NIH_BOX_SIDE_PX = 1024
"""Side of the square frame in which ``BBox_List_2017.csv`` gives its boxes, whatever the image's own size."""


@dataclass(frozen=True, slots=True)
class BoxParameters:
    """Parameters of ``crosseai.postproc.localize``, under the name that outputs carry.

    The defaults are the paper's (arXiv 2310.19835, section 4.2).

    Parameters
    ----------
    preset
        Name of this set.
    t
        Share of the heat map in the fused map (equation 4), 0..1.
    threshold
        Share of the fused map's maximum above which a pixel belongs to the mask, 0..1.
    gradient_percentile
        Percentile of the gradient map at which it is clipped; not in the paper, 100 is none.
    gradient_power
        Power to which the scaled gradient map is raised; not in the paper, 1 is none.
    gradient_sigma
        Standard deviation of the Gaussian that smooths the gradient map, as a share of its side; not in the paper,
        0 is none.
    closing
        Radius to which gaps in the mask are closed, as a share of its side; not in the paper, 0 is none.
    candidates
        ``greedy``, the paper's largest rectangles one after the other; boxes around connected ``components``; or
        ``all`` maximal rectangles.
    max_candidates
        Greatest number of candidates considered.
    min_area
        Smallest area of a candidate, in model pixels.
    min_area_share
        The same as a share of the map's area; both must hold.
    area_power
        The candidate of the highest mean intensity times ``area ** area_power`` wins; not in the paper, 0 is its rule.
    """

    preset: str = "crosseai"
    t: float = 0.30
    threshold: float = 0.35
    gradient_percentile: float = 100.0
    gradient_power: float = 1.0
    gradient_sigma: float = 0.0
    closing: float = 0.0
    candidates: CandidateRule = "greedy"
    max_candidates: int = 8
    min_area: int = 1
    min_area_share: float = 0.0
    area_power: float = 0.0

    def __post_init__(self) -> None:
        for rule, holds in (
            ("0 <= t <= 1", 0 <= self.t <= 1),
            ("0 <= threshold <= 1", 0 <= self.threshold <= 1),
            ("0 < gradient_percentile <= 100", 0 < self.gradient_percentile <= 100),
            ("gradient_power > 0", 0 < self.gradient_power < math.inf),
            ("0 <= gradient_sigma <= 1", 0 <= self.gradient_sigma <= 1),
            ("0 <= closing <= 1", 0 <= self.closing <= 1),
            (f"candidates is one of {get_args(CandidateRule)}", self.candidates in get_args(CandidateRule)),
            ("max_candidates >= 1", self.max_candidates >= 1),
            ("min_area >= 1", self.min_area >= 1),
            ("0 <= min_area_share <= 1", 0 <= self.min_area_share <= 1),
            ("0 <= area_power <= 1", 0 <= self.area_power <= 1),
        ):
            if not holds:
                raise ContractError(f"box parameters {self.preset!r}: expected that {rule}; found {self!r}")

    def keywords(self) -> dict[str, Any]:
        """Keyword arguments for ``crosseai.postproc.localize``."""
        keywords = asdict(self)
        del keywords["preset"]
        return keywords

    def departures(self) -> dict[str, Any]:
        """Keyword arguments that are not the paper's."""
        paper = BoxParameters().keywords()
        return {name: value for name, value in self.keywords().items() if value != paper[name]}

    def fusion_keywords(self) -> dict[str, Any]:
        """Keyword arguments for ``crosseai.postproc.fuse``."""
        return {name: value for name, value in asdict(self).items() if name == "t" or name.startswith("gradient_")}


PRESETS: Mapping[str, BoxParameters] = {
    parameters.preset: parameters
    for parameters in (
        BoxParameters(),
        BoxParameters(preset="scalp", t=1.0),
        BoxParameters(
            preset="tuned", t=0.5, threshold=0.5, gradient_percentile=95.0, candidates="components", area_power=0.25
        ),
    )
}
"""``crosseai`` is the paper's algorithm, ``scalp`` the heat map alone, ``tuned`` the winner of
``benchmarks/presets.md``."""


def box_preset(name: str) -> BoxParameters:
    """The preset of that name.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
