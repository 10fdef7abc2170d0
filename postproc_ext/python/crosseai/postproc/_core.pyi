from typing import Literal

import numpy as np
import numpy.typing as npt

def localize(
    heatmaps: npt.NDArray[np.float32],
    gradient_maps: npt.NDArray[np.uint8] | npt.NDArray[np.float32],
    *,
    t: float = 0.3,
    threshold: float = 0.35,
    gradient_positive: bool = False,
    gradient_percentile: float = 100.0,
    gradient_power: float = 1.0,
    gradient_sigma: float = 0.0,
    closing: float = 0.0,
    candidates: Literal["greedy", "components", "all"] = "greedy",
    max_candidates: int = 8,
    min_area: int = 1,
    min_area_share: float = 0.0,
    area_power: float = 0.0,
    threads: int = 0,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]: ...
def localize_many(
    heatmaps: npt.NDArray[np.float32],
    gradient_maps: npt.NDArray[np.uint8] | npt.NDArray[np.float32],
    *,
    t: float = 0.3,
    threshold: float = 0.35,
    gradient_positive: bool = False,
    gradient_percentile: float = 100.0,
    gradient_power: float = 1.0,
    gradient_sigma: float = 0.0,
    closing: float = 0.0,
    candidates: Literal["greedy", "components", "all"] = "greedy",
    max_candidates: int = 8,
    min_area: int = 1,
    min_area_share: float = 0.0,
    area_power: float = 0.0,
    threads: int = 0,
    score_ratio: float = 0.5,
    max_boxes: int = 8,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.int64]]: ...
def fuse(
    heatmap: npt.NDArray[np.float32],
    gradient_map: npt.NDArray[np.uint8] | npt.NDArray[np.float32],
    *,
    t: float = 0.3,
    gradient_positive: bool = False,
    gradient_percentile: float = 100.0,
    gradient_power: float = 1.0,
    gradient_sigma: float = 0.0,
) -> npt.NDArray[np.float32]: ...
def binarize(
    fused: npt.NDArray[np.float32], *, threshold: float = 0.35, closing: float = 0.0
) -> npt.NDArray[np.uint8]: ...
def maximal_rectangles(
    mask: npt.NDArray[np.uint8],
    *,
    candidates: Literal["greedy", "components", "all"] = "greedy",
    max_candidates: int = 8,
    min_area: int = 1,
    min_area_share: float = 0.0,
) -> npt.NDArray[np.int32]: ...
def expand(mask: npt.NDArray[np.uint8], rectangles: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]: ...
def select(
    fused: npt.NDArray[np.float32],
    mask: npt.NDArray[np.uint8],
    rectangles: npt.NDArray[np.int32],
    *,
    area_power: float = 0.0,
) -> tuple[int, float]: ...
