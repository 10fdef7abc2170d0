"""A cohort to learn from in seconds: 32 phantoms of 64 px, every second with a large heart."""

from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np

from crosseai.comparison.cohort import BoxedFindings, Cohort
from crosseai.training.config import FitConfig
from crosseai.training.dataset import LabelledRadiographs
from crosseai.training.feed import TrainingData
from crosseai.training.phantoms.cohort import visits
from crosseai.training.phantoms.phantom import WHITE, draw_phantom
from crosseai.training.split import Split

DISEASE = "Cardiomegaly"
CONFIG = FitConfig(
    architecture="resnet14",
    triplet_attention=False,
    width=8,
    input_size=64,
    epochs=30,
    batch_size=4,
    optimizer="adamw",
    learning_rate=1e-2,
    schedule="one-cycle",
)


@cache
def one_disease() -> Cohort:
    """All 32 are there to learn from, to validate on and to test; all findings have a box. Nothing is on disk."""
    people = list(islice(visits(1), 32))
    labels = np.arange(32, dtype=np.uint8)[:, None] % 2
    diseases = [(DISEASE,) if ill else () for (ill,) in labels]
    phantoms = [
        draw_phantom(visit.anatomy, findings, visit.rng(1), size=CONFIG.input_size)
        for visit, findings in zip(people, diseases, strict=True)
    ]
    images = np.stack([np.round(phantom.pixels * (255 / WHITE)).astype(np.uint8) for phantom in phantoms])[:, None]
    names, patients = tuple(visit.stem for visit in people), tuple(str(visit.patient) for visit in people)
    listing = LabelledRadiographs(names, tuple(map(Path, names)), patients, labels, (DISEASE,))
    everything, ill = np.arange(32), np.flatnonzero(labels)
    boxes = np.array([phantoms[row].boxes_image_px[DISEASE] for row in ill], np.float64)
    data = TrainingData(listing, images, Split(everything, everything, everything))
    return Cohort(Path(), None, Path(), data, BoxedFindings(ill, np.zeros_like(ill), boxes))
