"""Radiographs of a plain folder as the model takes them, for checks of a model that need no labels."""

from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crosseai.contract import InputError, ModelSpec
from crosseai.imaging import preprocess, read_radiograph


def read_folder(folder: Path, spec: ModelSpec, count: int) -> npt.NDArray[np.uint8]:
    """Read the first radiographs of a folder and its subfolders, by name; other files are passed over.

    Returns
    -------
    ndarray
        uint8 ``[n, 1, S, S]``, ``n`` at most ``count``.

    Raises
    ------
    InputError
        If no file in it can be read as a radiograph.
    """
    refused: list[InputError] = []

    def readable(file: Path) -> list[npt.NDArray[np.uint8]]:
        try:
            return [preprocess(read_radiograph(file), spec)]
        except InputError as error:
            refused.append(error)
            return []

    files = sorted(file for file in folder.rglob("*") if file.is_file())
    images = list(islice((image for file in files for image in readable(file)), count))
    if not images:
        reason = f"{len(refused)} other files, for example: {refused[0]}" if refused else "no file"
        raise InputError(f"{folder}: expected radiographs, found {reason}")
    return np.stack(images)
