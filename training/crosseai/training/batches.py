"""Batches of an epoch that keep pairs of one patient together."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from crosseai.training.evaluation import Labels

Indices = npt.NDArray[np.int64]


def epoch_batches(
    patients: Sequence[str],
    labels: Labels,
    batch_size: int,
    random: np.random.Generator,
    *,
    multiple: int = 1,
    share_disease: bool = True,
) -> list[Indices]:
    """Divide one epoch's images into batches that hold pairs for the contrastive loss.

    Every image comes once. Of each patient, images that share a disease are paired at random; the two of a pair are
    always in one batch, and batches hold as many pairs as one another, give or take one. All other images, above all
    those of patients with a single one, fill the rest: they are classified, serve as negatives, and are no anchors.

    Parameters
    ----------
    patients
        Patient of each image.
    labels
        uint8 ``[n, C]``.
    batch_size
        Most images of a batch; sizes differ by ``multiple`` at most.
    random
        Decides pairs and order.
    multiple
        Every batch has a multiple of so many images, so that as many processes can share it evenly. What is left over,
        fewer than ``multiple`` images a epoch, other ones each time, sits out.
    share_disease
        Whether the two of a pair must share a disease, or only the patient.

    Returns
    -------
    list of ndarray
        Positions in the listing, int64.
    """
    pairs, singles = _pairs(patients, labels if share_disease else np.ones((len(patients), 1), np.uint8), random)
    units = len(patients) // multiple
    count = -(-units // max(1, batch_size // multiple))
    sizes = [multiple * len(part) for part in np.array_split(np.arange(units), count)]
    while len(pairs) > sum(size // 2 for size in sizes):  # odd sizes, and hardly an image that is not in a pair
        singles += pairs.pop()
    random.shuffle(singles)
    batches: list[list[int]] = [[] for _ in sizes]
    dealt, turn = 0, 0
    while dealt < len(pairs):
        if len(batch := batches[turn % count]) + 2 <= sizes[turn % count]:
            batch += pairs[dealt]
            dealt += 1
        turn += 1
    for batch, size in zip(batches, sizes, strict=True):
        batch += [singles.pop() for _ in range(size - len(batch))]
    return [random.permutation(np.array(batch, np.int64)) for batch in batches]


def _pairs(patients: Sequence[str], labels: Labels, random: np.random.Generator) -> tuple[list[list[int]], list[int]]:
    """Disjoint pairs of each patient's images that share a label, in random order, and the images without a partner."""
    waiting: dict[str, list[int]] = {}
    pairs = []
    for i in map(int, random.permutation(len(patients))):
        images = waiting.setdefault(patients[i], [])
        partner = next((j for j in images if ((labels[i] == 1) & (labels[j] == 1)).any()), None)
        if partner is None:
            images.append(i)
        else:
            images.remove(partner)
            pairs.append([partner, i])
    return pairs, [i for images in waiting.values() for i in images]
