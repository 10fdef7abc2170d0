"""Heat maps and gradient maps of boxed radiographs, by eager PyTorch, for the other benchmarks.

A classifier is trained on phantoms of its own, once (a quarter of an hour on two cores); everything is kept in
``build/benchmarks``. It is not the demo's, which suits two minutes. How many boxes of validation phantoms held the peak
of their heat map and of their gradient map: at 224 px, 2000 phantoms and 15 epochs 21 % and 11 % with triplet
attention, 47 % and 44 % without; with 22 epochs, which this one has, 42 % and 53 %, and the best mean IoU of all.
"""

import importlib.util
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from crosseai.client.evaluation import read_boxes_csv
from crosseai.contract import NIH_BOX_SIDE_PX, SPEC_FILENAME, ModelSpec, class_index
from crosseai.export.reference import EagerReference
from crosseai.imaging import preprocess, read_radiograph
from crosseai.training import load_checkpoint
from crosseai.training.config import FitConfig
from crosseai.training.dataset import read_labelled_radiographs
from crosseai.training.fit import fit
from crosseai.training.phantoms import write_phantoms

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "build" / "benchmarks"
SHARED_DATA = ROOT.parent / "shared" / "data"


@dataclass(frozen=True, slots=True)
class Explanations:
    """One row for each ground-truth box; the boxes are ``x0, y0, x1, y1`` in model pixels."""

    heatmaps: npt.NDArray[np.float32]
    gradient_maps: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.float64]
    diseases: npt.NDArray[np.str_]
    patients: npt.NDArray[np.str_]


PHANTOM_SEEDS = {"training": 1, "validation": 101, "test": 20261121}
"""Other seeds draw other patients."""


def classifier_settings() -> FitConfig:
    """How the phantoms' classifier is trained."""
    return replace(FitConfig.load("phantoms"), input_size=224, epochs=22)


def phantom_explanations(part: str) -> Explanations:
    """Explanations of phantoms that the classifier was not trained on: ``validation`` or ``test``."""
    file = CACHE / f"{part}.npz"
    if not file.is_file():
        checkpoint = CACHE / "classifier" / "checkpoint"
        if not (checkpoint / SPEC_FILENAME).is_file():
            os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{CACHE}/mlflow.db")
            fit(_phantoms("training", 2000), classifier_settings(), output=checkpoint.parent)
        _explain(*load_checkpoint(checkpoint), _phantoms(part, 600), file)
    return _load(file)


def nih_explanations() -> Explanations | None:
    """Explanations of the real radiographs and weights beside the checkout; None without them."""
    file = CACHE / "nih.npz"
    if not SHARED_DATA.is_dir():
        return None
    if not file.is_file():
        _explain(*real_classifier(SHARED_DATA / "weights"), SHARED_DATA / "nih", file)
    return _load(file)


def _phantoms(part: str, count: int) -> Path:
    folder = CACHE / f"{part}-phantoms"
    if not folder.exists():
        write_phantoms(folder, count=count, seed=PHANTOM_SEEDS[part])
    return folder


def real_classifier(folder: Path) -> tuple[nn.Module, ModelSpec]:
    """The classifier that comes with its own code."""
    spec = importlib.util.spec_from_file_location("model", folder / "model.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(folder / "model.py")
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load(), ModelSpec(
        classes=tuple(module.CLASSES), mean=(module.MEAN,), std=(module.STD,), input_size=module.SIZE
    )


def _explain(classifier: nn.Module, spec: ModelSpec, data: Path, file: Path) -> None:
    """One map pair for each box whose image is there, for the box's own disease."""
    reference = EagerReference(classifier, spec, torch.float32)
    radiographs = read_labelled_radiographs(data)
    position = {name: i for i, name in enumerate(radiographs.image_ids)}
    rows: dict[str, list[Any]] = {key: [] for key in Explanations.__slots__}
    for name, disease, x, y, w, h in read_boxes_csv(data / "BBox_List_2017.csv"):
        if name not in position:
            continue
        image = preprocess(read_radiograph(radiographs.paths[position[name]]), spec)
        explanation = reference.explain(image[None], np.array([class_index(disease, spec.classes)]))
        rows["heatmaps"].append(explanation.heatmaps[0].numpy())
        rows["gradient_maps"].append(explanation.gradient_maps[0].to(torch.uint8).numpy())
        rows["boxes"].append(np.array([x, y, x + w, y + h]) * spec.input_size / NIH_BOX_SIDE_PX)
        rows["diseases"].append(disease)
        rows["patients"].append(radiographs.patients[position[name]])
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, **{key: np.array(values) for key, values in rows.items()})


def _load(file: Path) -> Explanations:
    with np.load(file) as arrays:
        return Explanations(**{key: np.ascontiguousarray(arrays[key]) for key in Explanations.__slots__})
