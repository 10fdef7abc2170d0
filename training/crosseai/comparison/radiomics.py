"""Radiomic features of a region: gray values, shape and texture, as PyRadiomics defines them.

PyRadiomics (van Griethuysen et al., Cancer Research 2017) does not build with today's NumPy; this stands in for it.
Covered are its classes ``firstorder``, ``shape2D`` and ``glcm``, with its default settings: bins of 25 gray values, a
symmetric co-occurrence matrix of direct neighbours in each of the four directions of the plane, texture features
averaged over the directions. Its documentation has every formula. Not covered are the classes of gray level runs,
zones, dependences and neighbourhoods (``glrlm``, ``glszm``, ``gldm``, ``ngtdm``), the maximal correlation coefficient,
and what equals another feature here: total energy (pixels have no size), the sum average, the mesh surface.

A region is a rectangle, and its shape features are closed forms of the sides; PyRadiomics measures a mesh whose corners
are cut.
"""

import math

import numpy as np
import numpy.typing as npt
from skimage.feature import graycomatrix

from crosseai.contract import Box, InputError

FloatArray = npt.NDArray[np.float64]

BIN_WIDTH = 25
"""Gray values in a bin; PyRadiomics' default."""

DIRECTIONS = (0.0, math.pi / 4, math.pi / 2, 3 * math.pi / 4)


def radiomic_features(image: npt.NDArray[np.float32], box: Box) -> dict[str, float]:
    """All features of a region, by name; the names and their order are always the same.

    Parameters
    ----------
    image
        float32 ``[H, W]``, gray values 0..255.
    box
        In pixels of the image.

    Returns
    -------
    dict
        Finite, whatever the region.

    Raises
    ------
    InputError
        If the box is empty or leaves the image.
    """
    x0, y0, x1, y1 = box
    height, width = image.shape
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise InputError(f"radiomic features: expected a box inside of {width} x {height} pixels, found {box}")
    region = image[y0:y1, x0:x1].astype(np.float64)
    levels = gray_levels(region)
    named = {
        "firstorder": first_order(region.ravel(), levels),
        "shape2D": rectangle_shape(x1 - x0, y1 - y0),
        "glcm": texture(cooccurrence(levels)),
    }
    return {f"{group} {name}": float(value) for group, features in named.items() for name, value in features.items()}


def gray_levels(region: FloatArray) -> npt.NDArray[np.uint8]:
    """Number of each pixel's bin, uint8: between multiples of ``BIN_WIDTH``, counted from the lowest that is used."""
    bins = (region // BIN_WIDTH).astype(np.uint8)
    levels: npt.NDArray[np.uint8] = bins - bins.min()
    return levels


def first_order(values: FloatArray, levels: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Statistics of the gray values ``[n]``; entropy and uniformity are of their bins."""
    lower, quarter, median, three_quarters, upper = np.percentile(values, (10, 25, 50, 75, 90))
    robust = values[(values >= lower) & (values <= upper)]
    mean, centred = values.mean(), values - values.mean()
    squares = np.square(centred)  # and products of them: powers take ten times as long
    variance = squares.mean()
    shares = np.bincount(levels.ravel()) / len(values)
    return {
        "10Percentile": lower,
        "90Percentile": upper,
        "Energy": np.square(values).sum(),
        "Entropy": _entropy(shares).item(),
        "InterquartileRange": three_quarters - quarter,
        "Kurtosis": np.square(squares).mean() / variance**2 if variance > 0 else 0.0,
        "Maximum": values.max(),
        "MeanAbsoluteDeviation": np.abs(centred).mean(),
        "Mean": mean,
        "Median": median,
        "Minimum": values.min(),
        "Range": np.ptp(values),
        "RobustMeanAbsoluteDeviation": np.abs(robust - robust.mean()).mean() if len(robust) else 0.0,
        "RootMeanSquared": np.sqrt(np.square(values).mean()),
        "Skewness": (squares * centred).mean() / variance**1.5 if variance > 0 else 0.0,
        "Uniformity": np.square(shares).sum(),
        "Variance": variance,
    }


def rectangle_shape(width: int, height: int) -> dict[str, float]:
    """Shape of a rectangle of so many pixels; axes are those of the ellipse with the same second moments."""
    surface, perimeter = width * height, 2 * (width + height)
    minor, major = (4 * math.sqrt((side**2 - 1) / 12) for side in sorted((width, height)))
    return {
        "Elongation": minor / major if major > 0 else 1.0,
        "MajorAxisLength": major,
        "MaximumDiameter": math.hypot(width, height),
        "MinorAxisLength": minor,
        "Perimeter": perimeter,
        "PerimeterSurfaceRatio": perimeter / surface,
        "PixelSurface": surface,
        "Sphericity": 2 * math.sqrt(math.pi * surface) / perimeter,
    }


def cooccurrence(levels: npt.NDArray[np.uint8]) -> FloatArray:
    """Share of each pair of levels among neighbours, ``[L, L, directions]``; directions without a pair are left out.

    A single pixel has no neighbour: it counts as its own.
    """
    used = int(levels.max()) + 1
    shares = graycomatrix(levels, [1], DIRECTIONS, used, symmetric=True, normed=True)[:, :, 0]  # type: ignore[no-untyped-call]
    present: FloatArray = shares[:, :, shares.any((0, 1))]
    return present if present.shape[2] else np.ones((1, 1, 1))


def texture(p: FloatArray) -> dict[str, float]:
    """Features of symmetric co-occurrence matrices ``[L, L, directions]``, averaged over the directions.

    The first of them were proposed by Haralick et al. 1973.
    """
    size = len(p)
    i, j = (index[..., None] + 1 for index in np.indices((size, size)))
    marginal = p.sum(1)  # [L, directions], the same for rows and columns
    distance = np.stack([p[abs(i - j)[..., 0] == k].sum(0) for k in range(size)])  # p_{x-y}
    total = np.stack([p[(i + j)[..., 0] == k].sum(0) for k in range(2, 2 * size + 1)])  # p_{x+y}
    k = np.arange(size)[:, None]
    mean = (i * p).sum((0, 1))
    variance = ((i - mean) ** 2 * p).sum((0, 1))
    covariance = (i * j * p).sum((0, 1)) - mean**2
    difference = (k * distance).sum(0)
    joint, single = _entropy(p.reshape(-1, p.shape[2])), _entropy(marginal)
    cluster = i + j - 2 * mean
    independent = 2 * single  # HXY1 and HXY2 are equal for a symmetric matrix
    features = {
        "Autocorrelation": (i * j * p).sum((0, 1)),
        "ClusterProminence": (cluster**4 * p).sum((0, 1)),
        "ClusterShade": (cluster**3 * p).sum((0, 1)),
        "ClusterTendency": (cluster**2 * p).sum((0, 1)),
        "Contrast": (k**2 * distance).sum(0),
        "Correlation": np.divide(covariance, variance, out=np.ones_like(variance), where=variance > 0),
        "DifferenceAverage": difference,
        "DifferenceEntropy": _entropy(distance),
        "DifferenceVariance": ((k - difference) ** 2 * distance).sum(0),
        "Id": (distance / (1 + k)).sum(0),
        "Idm": (distance / (1 + k**2)).sum(0),
        "Idmn": (distance / (1 + (k / size) ** 2)).sum(0),
        "Idn": (distance / (1 + k / size)).sum(0),
        "Imc1": np.divide(joint - independent, single, out=np.zeros_like(single), where=single > 0),
        "Imc2": np.sqrt(np.clip(1 - np.exp(-2 * (independent - joint)), 0, None)),
        "InverseVariance": (distance[1:] / k[1:] ** 2).sum(0),
        "JointAverage": mean,
        "JointEnergy": np.square(p).sum((0, 1)),
        "JointEntropy": joint,
        "MaximumProbability": p.max((0, 1)),
        "SumEntropy": _entropy(total),
        "SumSquares": variance,
    }
    return {name: float(value.mean()) for name, value in features.items()}


def _entropy(shares: FloatArray) -> FloatArray:
    """In bits, of the shares along the first axis."""
    logarithms = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return -np.asarray(shares * logarithms).sum(0)  # type: ignore[no-any-return]
