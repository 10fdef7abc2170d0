"""Every method trained once: what is whole in a folder is not trained again."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from crosseai.comparison.cohort import Cohort
from crosseai.comparison.method import Method
from crosseai.contract import InputError
from crosseai.training.checkpoint import write_atomically
from crosseai.training.config import FitConfig
from crosseai.training.progress import Epoch

MADE_FROM_FILENAME = "made_from.json"
"""Beside what a method learnt, written last: what it was learnt from."""

OnEpoch = Callable[[str, Epoch], None]
"""Called after every epoch with the name of what is trained."""


def trained(
    method: Method, cohort: Cohort, config: FitConfig, folder: Path, *, weights: Path | None, on_epoch: OnEpoch
) -> list[tuple[Cohort, Path]]:
    """Train a method on the parts of a cohort that it may learn from, as far as that is still to be done.

    Returns
    -------
    list
        For each model of the method what it learnt from (its test part are those whom it may judge), and its folder.

    Raises
    ------
    InputError
        If a folder holds something learnt from other settings or data; the message says what differs.
    """
    if method.uses_boxes:
        parts = {f"{method.training}-{fold}": part for fold, part in enumerate(cohort.folds(config.seed), start=1)}
    else:
        parts = {method.training: cohort.without_boxes()}
    for name, part in parts.items():
        made_from = _made_from(part, config, weights)
        if not _is_whole(folder / name, made_from):
            (folder / name).mkdir(parents=True, exist_ok=True)
            method.train(part, config, folder / name, weights=weights, on_epoch=partial(on_epoch, name))
            content = json.dumps(made_from, indent=2)
            write_atomically(folder / name / MADE_FROM_FILENAME, f"{content}\n".encode())
    return [(part, folder / name) for name, part in parts.items()]


def _made_from(cohort: Cohort, config: FitConfig, weights: Path | None) -> dict[str, Any]:
    """All that decides what a method learns, as JSON."""
    return {
        **asdict(config),
        "data": cohort.data.digest(),
        "boxes": hashlib.sha256(cohort.boxes.boxes.tobytes()).hexdigest() if len(cohort.boxes) else None,
        "weights": None if weights is None else hashlib.sha256(weights.read_bytes()).hexdigest(),
    }


def _is_whole(folder: Path, made_from: Mapping[str, Any]) -> bool:
    """Whether a method was trained there, from the same."""
    file = folder / MADE_FROM_FILENAME
    if not file.is_file():
        return False
    before = json.loads(file.read_text(encoding="utf-8"))
    changed = sorted(key for key in before.keys() | made_from.keys() if before.get(key) != made_from.get(key))
    if changed:
        found = ", ".join(f"{key} {before.get(key)!r} -> {made_from.get(key)!r}" for key in changed)
        raise InputError(f"{folder}: was trained from something else; choose another output. Changed: {found}")
    return True
