"""What the methods say of the test part, each patient by a model that never saw it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crosseai.comparison.cohort import BoxedFindings, Cohort
from crosseai.comparison.method import Boxes, Localisation, Localiser
from crosseai.comparison.replacement import replacement_scores

BATCH = 16
"""Images at once: a ResNet-50 explained at 224 px takes 0.2 GB an image."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """One method on one set of images and findings.

    Parameters
    ----------
    logits
        float32 ``[images, C]``, calibrated, so that those of several models can be ranked together.
    boxes
        int32 ``[findings, 4]``, model pixels; zeros mean no box.
    maps
        float32 ``[findings, S, S]``.
    candidates
        All boxes proposed for each finding, int32 ``[k, 4]``; of a method that proposes one, that one.
    replacement
        Insertion and deletion, float64 ``[findings, 2]``; NaN where they are not computed.
    """

    logits: npt.NDArray[np.float32]
    boxes: Boxes
    maps: npt.NDArray[np.float32]
    candidates: tuple[Boxes, ...]
    replacement: npt.NDArray[np.float64]


def predict(
    localisers: Iterable[tuple[Localiser, npt.NDArray[np.int64]]],
    cohort: Cohort,
    rows: npt.NDArray[np.int64],
    findings: BoxedFindings,
    *,
    replaced: int = 0,
) -> Predictions:
    """Ask a method for the classes of images and for boxes of what radiologists found in them.

    Parameters
    ----------
    localisers
        Trained models, and the images that each is to judge, int64 positions in the listing: every one of ``rows`` in
        exactly one of them.
    cohort
        Gives the images.
    rows
        Images to classify, ascending positions in the listing.
    findings
        Boxed findings in those images; only their classes are told.
    replaced
        Of how many findings, drawn at random, insertion and deletion are computed, for which the network runs 66 times.
    """
    side = cohort.data.images.shape[-1]
    logits = np.empty((len(rows), len(cohort.data.radiographs.classes)), np.float32)
    boxes, maps = np.empty((len(findings), 4), np.int32), np.empty((len(findings), side, side), np.float32)
    candidates: list[Boxes] = [boxes] * len(findings)
    replacement = np.full((len(findings), 2), np.nan)
    drawn = np.random.default_rng(0).permutation(len(findings))[:replaced]
    for localiser, own in localisers:
        logits[np.isin(rows, own)] = localiser.spec.calibrated(_logits(localiser, cohort, rows[np.isin(rows, own)]))
        positions = np.flatnonzero(np.isin(findings.rows, own))
        for chosen in (positions[start : start + BATCH] for start in range(0, len(positions), BATCH)):
            found = localiser.localise(cohort.data.images[findings.rows[chosen]], findings.classes[chosen])
            boxes[chosen], maps[chosen] = found.boxes, found.maps
            for i, proposed in zip(chosen.tolist(), _proposed(found), strict=True):
                candidates[i] = proposed
        chosen = positions[np.isin(positions, drawn)]
        images = cohort.data.images[findings.rows[chosen]]
        replacement[chosen] = replacement_scores(
            localiser.logits, localiser.spec, images, findings.classes[chosen], maps[chosen]
        )
    return Predictions(logits, boxes, maps, tuple(candidates), replacement)


def _logits(localiser: Localiser, cohort: Cohort, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    images = cohort.data.images
    return np.concatenate(
        [localiser.logits(images[rows[start : start + BATCH]]) for start in range(0, len(rows), BATCH)]
        or [np.empty((0, len(localiser.spec.classes)), np.float32)]
    )


def _proposed(found: Localisation) -> Sequence[Boxes]:
    """All proposals for each image: those that are no box are none."""
    return found.candidates or [box[None][box.any(keepdims=True)] for box in found.boxes]
