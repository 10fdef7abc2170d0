"""Which diseases of an image are explained by a box."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from crosseai.client.sources.discovery import image_name
from crosseai.contract import InputError, ModelSpec, class_index, reason
from crosseai.contract.labels import NO_FINDING

Targets = tuple[int, ...]
"""Class indices to explain; -1 at position k stands for the k-th most probable class."""


@dataclass(frozen=True, slots=True)
class ExplainByName:
    """The classes to explain depend on the file's name at most."""

    targets: Callable[[str], Targets]


@dataclass(frozen=True, slots=True)
class ExplainByProbability:
    """The classes to explain depend on the image's probabilities, float32 ``[C]``."""

    targets: Callable[[npt.NDArray[np.float32]], Targets]


ExplainPolicy: TypeAlias = ExplainByName | ExplainByProbability


def check_explain(text: str) -> None:
    """Refuse what no model would take, before there is one.

    Raises
    ------
    InputError
        If :func:`parse_explain` would refuse the text whatever the model.
    """
    digits = text.removeprefix("top:")
    is_top = digits != text and digits.isdecimal() and int(digits) > 0
    if not (is_top or text in ("positive", "all", "none") or text.endswith(".csv")):
        raise InputError(f"--explain {text}: expected positive, top:K, all, none or a file named *.csv")


def parse_explain(text: str, spec: ModelSpec) -> ExplainPolicy:
    """Read the value of ``--explain``.

    Parameters
    ----------
    text
        ``positive``, ``top:K``, ``all``, ``none``, or a CSV file with the columns ``Image Index`` and either
        ``Finding Label`` (as in ``BBox_List_2017.csv``) or ``Finding Labels`` (as in ``Data_Entry_2017.csv``).
    spec
        Spec of the model that will answer.

    Raises
    ------
    InputError
        If the text is none of these.
    """
    check_explain(text)
    count = len(spec.classes)
    if text == "positive":
        return ExplainByProbability(lambda probabilities: tuple(np.flatnonzero(spec.positive(probabilities)).tolist()))
    if text == "all":
        return ExplainByName(lambda _: tuple(range(count)))
    if text == "none":
        return ExplainByName(lambda _: ())
    if text.startswith("top:"):
        chosen = int(text.removeprefix("top:"))
        if chosen > count:
            raise InputError(f"--explain {text}: expected top:K with K from 1 to {count}")
        return ExplainByName(lambda _: (-1,) * chosen)
    labels = read_labels(Path(text), spec.classes)
    return ExplainByName(lambda name: labels.get(image_name(name), ()))


def explained_alike(policy: ExplainPolicy, one: str, other: str) -> bool:
    """Whether an image is explained alike under two paths."""
    if isinstance(policy, ExplainByProbability):
        return True
    return policy.targets(Path(one).name) == policy.targets(Path(other).name)


def labels_digest(text: str) -> str | None:
    """SHA-256 of the label file that ``--explain`` names, or None where it names none.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    if not text.endswith(".csv"):
        return None
    try:
        return sha256(Path(text).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"--explain {text}: cannot be read: {error.strerror}") from error


def read_labels(path: Path, classes: Sequence[str]) -> dict[str, Targets]:
    """Classes of each labelled file, by :func:`image_name`; a disease that the model does not know is left out.

    Raises
    ------
    InputError
        If the file cannot be read, a column is missing, or the model knows none of the diseases.
    """
    labels: dict[str, set[int]] = {}
    unknown: set[str] = set()
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            label_column = next((c for c in ("Finding Label", "Finding Labels") if c in columns), None)
            if "Image Index" not in columns or label_column is None:
                raise InputError(
                    f"{path}: expected the columns 'Image Index' and 'Finding Label' or 'Finding Labels', "
                    f"found {', '.join(columns) or 'none'}"
                )
            for row in reader:
                known = labels.setdefault(image_name(row["Image Index"]), set())
                for label in (row[label_column] or "").split("|"):
                    if label in ("", NO_FINDING):
                        continue
                    try:
                        known.add(class_index(label, classes))
                    except InputError:
                        unknown.add(label)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a CSV file: {reason(error)}") from error
    if unknown and not any(labels.values()):
        raise InputError(f"{path}: expected {', '.join(classes)}; found only {', '.join(sorted(unknown)[:5])}")
    return {name: tuple(sorted(known)) for name, known in labels.items()}
