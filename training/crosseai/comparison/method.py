"""What a method must be able to do to stand in the table."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from crosseai.comparison.cohort import Cohort
from crosseai.contract import ModelSpec
from crosseai.training.config import FitConfig
from crosseai.training.evaluation import Images
from crosseai.training.progress import Epoch

Boxes = npt.NDArray[np.int32]
"""``[n, 4]``, half-open ``(x0, y0, x1, y1)`` in model pixels; zeros mean no box."""


@dataclass(frozen=True, slots=True)
class Localisation:
    """Where a method sees one disease in each of N images.

    Parameters
    ----------
    boxes
        int32 ``[N, 4]``, the one box of each image, chosen without the truth; zeros mean no box.
    maps
        float32 ``[N, S, S]``, what the boxes were drawn from, not negative, the higher the more evidence.
    candidates
        For each image all boxes that the method proposes, int32 ``[k, 4]``, where it proposes several: its authors may
        have counted the best of them, which takes the truth to know.
    """

    boxes: Boxes
    maps: npt.NDArray[np.float32]
    candidates: tuple[Boxes, ...] | None = None


class Localiser(Protocol):
    """A trained method."""

    @property
    def spec(self) -> ModelSpec:
        """Classes, input size, normalisation, and the calibration of its logits."""

    def logits(self, images: Images) -> npt.NDArray[np.float32]:
        """Logits float32 ``[N, C]`` of preprocessed images uint8 ``[N, 1, S, S]``."""

    def localise(self, images: Images, classes: npt.NDArray[np.int64]) -> Localisation:
        """One disease in each image: images uint8 ``[N, 1, S, S]``, classes int64 ``[N]`` in 0..C-1.

        Called with batches of a few dozen images.
        """


class Method(Protocol):
    """A row of the table. It holds no state: what it learns is in a folder."""

    @property
    def name(self) -> str:
        """By which ``--methods`` names it."""

    @property
    def title(self) -> str:
        """What the table calls it."""

    @property
    def training(self) -> str:
        """Name of what must be trained; methods that share it are trained once."""

    @property
    def uses_boxes(self) -> bool:
        """Whether it learns from boxes. Then it is trained once for each fold of :meth:`Cohort.folds`."""

    def train(
        self,
        cohort: Cohort,
        config: FitConfig,
        folder: Path,
        *,
        weights: Path | None = None,
        on_epoch: Callable[[Epoch], None] = lambda _epoch: None,
    ) -> None:
        """Learn from the training and validation parts of a cohort, and leave everything in a folder.

        Parameters
        ----------
        cohort
            Its test part is not to be looked at. Without boxes, unless the method uses them.
        config
            What all methods share: network, input size, epochs, optimizer. A method changes what its authors did
            otherwise, and says so in its docstring.
        folder
            Its own; there already, and holding the state of a run that was interrupted, if there was one.
        weights
            State dict to start from, as far as names and shapes fit.
        on_epoch
            Called after every epoch.
        """

    def load(self, config: FitConfig, folder: Path) -> Localiser:
        """Read what :meth:`train` left, with the same configuration."""
