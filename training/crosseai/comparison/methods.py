"""The methods by name."""

from collections.abc import Mapping, Sequence

from crosseai.comparison.constant import ConstantBox
from crosseai.comparison.gradcam import CrossEAI
from crosseai.comparison.method import Method
from crosseai.comparison.scalp import ScalpContours
from crosseai.comparison.wang import Wang2017
from crosseai.contract import InputError

REFERENCE = "crosseai"
"""What the others are tested against."""

ALL = "all"


def all_methods() -> Mapping[str, Method]:
    """Every method, in the order of the table."""
    methods: tuple[Method, ...] = (
        ConstantBox(),
        Wang2017(),
        CrossEAI("scalp", "SCALP, rectangles", "scalp"),
        ScalpContours("scalp-contours", "SCALP, contours"),
        CrossEAI(REFERENCE, "CrossEAI", "crosseai"),
        CrossEAI("crosseai-tuned", "CrossEAI, tuned", "tuned"),
    )
    return {method.name: method for method in methods}


def methods_named(names: str) -> list[Method]:
    """Methods by their names, joined by commas, or ``all``.

    Raises
    ------
    InputError
        If a name is unknown.
    """
    known = all_methods()
    wanted: Sequence[str] = list(known) if names == ALL else [name.strip() for name in names.split(",")]
    if unknown := [name for name in wanted if name not in known]:
        raise InputError(f"methods: expected {ALL}, or names of {', '.join(known)}; found {', '.join(unknown)}")
    return [method for name, method in known.items() if name in wanted]
