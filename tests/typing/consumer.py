"""A user's program for mypy under strict: the public functions are typed, and a wrong dtype is an error.

A `type: ignore` that ignores nothing is an error under strict, so every one of them shows a call that is refused.
"""

from pathlib import Path
from typing import assert_type

import numpy as np
import numpy.typing as npt

from crosseai.client import RunSummary, score_directory
from crosseai.contract import Finding, ImageResult, ModelSpec, box_preset
from crosseai.imaging import Radiograph, preprocess, read_radiograph
from crosseai.postproc import binarize, expand, fuse, localize, maximal_rectangles, select

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]


def box_of_one_map(heatmap: F32, gradient_map: U8) -> float:
    """The algorithm step by step."""
    fused = fuse(heatmap, gradient_map, t=0.3)
    mask = binarize(fused, threshold=0.35)
    rectangles = expand(mask, maximal_rectangles(mask, max_candidates=8))
    index, score = select(fused, mask, rectangles)
    assert_type(fused, F32)
    assert_type(mask, U8)
    assert_type(rectangles, I32)
    assert_type(index, int)
    return score


def boxes_of_a_batch(heatmaps: F32, gradient_maps: F32) -> tuple[I32, F32]:
    """Float maps are taken, too."""
    return localize(heatmaps, gradient_maps, **box_preset("tuned").keywords())


def model_input(path: Path, spec: ModelSpec) -> U8:
    """What the model sees."""
    radiograph = read_radiograph(path)
    assert_type(radiograph, Radiograph)
    return preprocess(radiograph, spec)


def findings(result: ImageResult) -> tuple[Finding, ...]:
    """What was found."""
    return result.findings


def score(directory: Path) -> RunSummary:
    """The whole job."""
    return score_directory(directory, directory / "out", explain="top:3")


def refused(fused: F32, mask: U8, wide: npt.NDArray[np.float64], path: Path) -> None:
    """Calls that a type checker must not accept."""
    binarize(wide)  # type: ignore[arg-type]
    maximal_rectangles(fused)  # type: ignore[arg-type]
    expand(mask, mask)  # type: ignore[arg-type]
    localize(wide, mask)  # type: ignore[arg-type]
    fuse(fused, mask, 0.3)  # type: ignore[call-arg]
    preprocess(path, ModelSpec())  # type: ignore[arg-type]
