"""Figures that papers report, to stand beside those measured here."""

from collections.abc import Mapping

import numpy as np

from crosseai.client.evaluation import MEAN

TABLE_1: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "wang2017": {
        "Atelectasis": (0.69, 0.47, 0.24, 0.09, 0.05, 0.02, 0.01),
        "Cardiomegaly": (0.94, 0.68, 0.46, 0.28, 0.18, 0.08, 0.03),
        "Effusion": (0.66, 0.45, 0.30, 0.20, 0.11, 0.05, 0.02),
        "Infiltration": (0.71, 0.48, 0.28, 0.12, 0.07, 0.02, 0.00),
        "Mass": (0.40, 0.26, 0.15, 0.07, 0.01, 0.00, 0.00),
        "Nodule": (0.14, 0.05, 0.04, 0.01, 0.01, 0.01, 0.00),
        MEAN: (0.59, 0.40, 0.25, 0.13, 0.07, 0.03, 0.01),
    },
    "li2018": {
        "Atelectasis": (0.71, 0.53, 0.36, 0.25, 0.14, 0.07, 0.04),
        "Cardiomegaly": (0.98, 0.97, 0.94, 0.88, 0.84, 0.73, 0.52),
        "Effusion": (0.87, 0.76, 0.56, 0.37, 0.22, 0.15, 0.07),
        "Infiltration": (0.92, 0.83, 0.66, 0.50, 0.30, 0.18, 0.09),
        "Mass": (0.71, 0.59, 0.45, 0.33, 0.22, 0.16, 0.11),
        "Nodule": (0.40, 0.29, 0.17, 0.11, 0.07, 0.03, 0.01),
        MEAN: (0.77, 0.66, 0.52, 0.41, 0.30, 0.22, 0.14),
    },
    "scalp": {
        "Atelectasis": (0.62, 0.42, 0.29, 0.18, 0.07, 0.02, 0.01),
        "Cardiomegaly": (0.97, 0.92, 0.78, 0.55, 0.33, 0.14, 0.04),
        "Effusion": (0.64, 0.42, 0.23, 0.12, 0.04, 0.02, 0.01),
        "Infiltration": (0.81, 0.60, 0.37, 0.19, 0.10, 0.04, 0.03),
        "Mass": (0.51, 0.25, 0.13, 0.09, 0.04, 0.03, 0.01),
        "Nodule": (0.12, 0.04, 0.01, 0.01, 0.00, 0.00, 0.00),
        MEAN: (0.61, 0.44, 0.30, 0.19, 0.10, 0.04, 0.02),
    },
    "chexradinet": {
        "Atelectasis": (0.72, 0.49, 0.28, 0.17, 0.11, 0.06, 0.02),
        "Cardiomegaly": (0.96, 0.84, 0.73, 0.65, 0.59, 0.37, 0.21),
        "Effusion": (0.81, 0.62, 0.54, 0.42, 0.29, 0.09, 0.04),
        "Infiltration": (0.88, 0.54, 0.43, 0.32, 0.15, 0.06, 0.02),
        "Mass": (0.67, 0.46, 0.38, 0.29, 0.12, 0.08, 0.07),
        "Nodule": (0.33, 0.21, 0.15, 0.09, 0.07, 0.04, 0.01),
        MEAN: (0.73, 0.53, 0.42, 0.32, 0.22, 0.12, 0.06),
    },
    "crosseai": {
        "Atelectasis": (0.73, 0.53, 0.37, 0.23, 0.12, 0.08, 0.03),
        "Cardiomegaly": (1.00, 0.99, 0.96, 0.86, 0.73, 0.46, 0.22),
        "Effusion": (0.87, 0.73, 0.61, 0.46, 0.37, 0.29, 0.19),
        "Infiltration": (0.92, 0.80, 0.65, 0.48, 0.36, 0.23, 0.15),
        "Mass": (0.69, 0.49, 0.35, 0.28, 0.16, 0.14, 0.12),
        "Nodule": (0.37, 0.25, 0.18, 0.10, 0.05, 0.03, 0.03),
        MEAN: (0.76, 0.63, 0.52, 0.42, 0.30, 0.25, 0.12),
    },
}
"""Table 1 of CrossEAI (arXiv 2310.19835): T(IoU) 0.1 to 0.7 by method and disease; the mean is of these six.

As printed. The means of CrossEAI at 0.4 and 0.6 are not those of its diseases, which are 0.40 and 0.21.
"""

DISEASES = tuple(name for name in TABLE_1["crosseai"] if name != MEAN)
"""Those of Table 1: six of the eight."""


def mean_accuracy(method: str) -> float:
    """Mean of a method's row ``Mean`` over T(IoU) 0.1 to 0.7; NaN for one that is not in Table 1."""
    return float(np.mean(TABLE_1[method][MEAN])) if method in TABLE_1 else np.nan
