"""Does the contrastive term help, and does fusion beat its parts? Writes ``benchmarks/contrastive.md``.

    python -m benchmarks.contrastive

A small network is trained on phantoms with and without the contrastive term (lambda 0.8 as in the paper, and 1), once
from fresh weights and once from trained ones, as the paper starts from ImageNet's; for want of those, from the network
trained with lambda 1. Three seeds decide split, weights, order and augmentation; all else is equal. Each network is
judged on its validation part and on phantoms of other patients. The boxes of the latter are then sought by the fused
map, the heat map alone (t = 1) and the gradient map alone (t = 0), with the paper's parameters and with the preset
``tuned``, and by the one box that fits them best without any model. Trained networks are kept in ``build/benchmarks``.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice, product
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch

from crosseai import postproc
from crosseai.client.evaluation import read_boxes_csv
from crosseai.contract import NIH_BOX_SIDE_PX, SPEC_FILENAME, BoxParameters, box_preset, class_index
from crosseai.export.reference import EagerReference
from crosseai.imaging import preprocess, read_radiograph
from crosseai.training import build_model, load_checkpoint
from crosseai.training.bootstrap import estimate
from crosseai.training.cache import CACHE_FOLDER, decoded_images
from crosseai.training.checkpoint import WEIGHTS_FILENAME
from crosseai.training.config import FitConfig
from crosseai.training.dataset import read_labelled_radiographs
from crosseai.training.engine import Engine
from crosseai.training.feed import Feed, TrainingData
from crosseai.training.fit import evaluate, fit
from crosseai.training.phantoms import write_phantoms
from crosseai.training.processes import ALONE
from crosseai.training.split import split_by_patient

Floats = npt.NDArray[np.float64]

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "build" / "benchmarks" / "contrastive"
PHANTOMS = {"training": (1000, 1), "unseen": (300, 102)}
"""Count and seed; another seed draws other patients."""

SEEDS = (0, 1, 2)
LAMBDAS = (1.0, 0.8)
CONFIG = replace(FitConfig.load("phantoms"), epochs=15, class_reduction="sum")
"""Half the epochs of the recipe: there are twelve networks to train."""

STARTS = {"fresh": CONFIG, "trained": replace(CONFIG, epochs=8, learning_rate=1e-3)}
Variant = tuple[str, float]
"""What a network started from, and lambda."""

THRESHOLDS = tuple(i / 10 for i in range(1, 8))
METHODS: Mapping[str, BoxParameters] = {
    f"{preset}: {name}": replace(box_preset(preset), **({} if t is None else {"t": t}))
    for preset in ("crosseai", "tuned")
    for name, t in (("fused", None), ("heat map alone", 1.0), ("gradient map alone", 0.0))
}
"""The paper as written, and the preset that copes with outliers of the gradient; each with its map's two parts."""

CONSTANT = "best constant box"

READING = """\
- **The contrastive term.** From fresh weights it harms: there its gradient in the convolutions is three times the
  cross-entropy's and unrelated to it, and the last training cross-entropy is 2.0 to 2.3 instead of 1.4 to 1.7. From
  trained weights, where the ratio is below 1 as the paper's start from ImageNet suggests, it neither harms nor helps:
  the mean difference is a small part of its standard deviation over seeds. Batches of 64 do not cure the fresh start
  (seed 0, test part: 0.704 instead of 0.837), the pairs of SCALP's code do so in part (0.797). The loss agrees with a
  transcription of equation 1 in loops. Phantoms of one patient share their anatomy by construction, and 128 patients
  of a batch are not 16: this says nothing about ImageNet's weights and NIH's images.
- **Fusion against the heat map.** As the paper writes it the claim does not hold: outliers of the gradient leave a few
  pixels above 35 % of the maximum, and the smallest rectangle has the highest mean. With the outliers tamed (`tuned`)
  it does: the fused map beats the heat map with the same parameters at every T(IoU), in proportion the more the
  higher T.
- **Fusion against the gradient map.** On phantoms the gradient map alone is as good as the fused one. That it does not
  know the disease costs little there: 140 of the 192 boxed phantoms have one box, 52 have two. On real radiographs it
  loses to the fused one (`benchmarks/presets.md`).
- A network this small barely localises: one constant box is as good on average, but not at T(IoU) 0.1 to 0.3.
"""


def phantoms(name: str) -> Path:
    """Folder of phantoms, drawn at the first use."""
    folder = CACHE / name
    if not (folder / "BBox_List_2017.csv").is_file():
        count, seed = PHANTOMS[name]
        write_phantoms(folder, count=count, seed=seed)
    return folder


def trained(start: str, weight: float, seed: int) -> Path:
    """Checkpoint of a network, trained at the first use."""
    folder = CACHE / f"{start}-lambda-{weight}-seed-{seed}"
    if not (folder / "checkpoint" / SPEC_FILENAME).is_file():
        weights = None if start == "fresh" else trained("fresh", 1.0, seed) / WEIGHTS_FILENAME
        config = replace(STARTS[start], seed=seed, cross_entropy_weight=weight)
        fit(phantoms("training"), config, weights=weights, output=folder)
    return folder / "checkpoint"


def gradient_ratio(start: str, batches: int = 10) -> tuple[float, float]:
    """Norm of the weighted contrastive gradient in the convolutions over the cross-entropy's, and their cosine."""
    radiographs = read_labelled_radiographs(phantoms("training"))
    model, spec = load_checkpoint(trained("fresh", 1.0, SEEDS[0]))
    if start == "fresh":
        torch.manual_seed(0)
        model = build_model(CONFIG.architecture, triplet_attention=CONFIG.triplet_attention, width=CONFIG.width)
    images = decoded_images(radiographs, spec, phantoms("training") / CACHE_FOLDER)
    data = TrainingData(radiographs, images, split_by_patient(radiographs.patients, SEEDS[0]))
    config = replace(CONFIG, cross_entropy_weight=0.8)
    engine = Engine(model, config, 1, None, ALONE)
    engine.network.train()
    trunk = [parameter for name, parameter in model.named_parameters() if not name.startswith("head.")]
    figures = []
    for _, (batch,) in islice(Feed(data, spec, config, ALONE).epoch(1), batches):
        weighted = engine.losses(batch) * torch.tensor([0.8, 0.2])
        entropy, contrast = (
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, trunk, retain_graph=True)]) for loss in weighted
        )
        cosine = torch.cosine_similarity(entropy, contrast, dim=0)
        figures.append((float(contrast.norm() / entropy.norm()), float(cosine)))
    ratio, cosine = np.mean(figures, axis=0)
    return ratio, cosine


def ious(checkpoint: Path) -> tuple[dict[str, Floats], list[str]]:
    """IoU of every ground-truth box of the unseen phantoms with what each method finds, and the boxes' patients."""
    model, spec = load_checkpoint(checkpoint)
    reference = EagerReference(model, spec, torch.float32)
    radiographs = read_labelled_radiographs(phantoms("unseen"))
    position = {name: i for i, name in enumerate(radiographs.image_ids)}
    heatmaps, gradient_maps, boxes, patients = [], [], [], []
    for name, disease, x, y, w, h in read_boxes_csv(phantoms("unseen") / "BBox_List_2017.csv"):
        image = preprocess(read_radiograph(radiographs.paths[position[name]]), spec)
        explanation = reference.explain(image[None], np.array([class_index(disease, spec.classes)]))
        heatmaps.append(explanation.heatmaps[0].numpy())
        gradient_maps.append(explanation.gradient_maps[0].to(torch.uint8).numpy())
        boxes.append(np.array([x, y, x + w, y + h]) * spec.input_size / NIH_BOX_SIDE_PX)
        patients.append(radiographs.patients[position[name]])
    maps, truth = (np.stack(heatmaps), np.stack(gradient_maps)), np.stack(boxes)
    found = {name: postproc.localize(*maps, **parameters.keywords())[0] for name, parameters in METHODS.items()}
    found[CONSTANT] = best_constant_box(truth, spec.input_size)
    return {name: iou(box.astype(np.float64), truth) for name, box in found.items()}, patients


def iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union, row by row."""
    sides = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None)
    areas = [(box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) for box in (a, b)]
    shared = sides[:, 0] * sides[:, 1]
    return shared / (areas[0] + areas[1] - shared)


def best_constant_box(truth: Floats, side: int) -> Floats:
    """The one box of the highest mean IoU with these very boxes, edges in steps of a sixteenth of the side."""
    edges = np.linspace(0, side, 17)
    boxes = [np.array([[x0, y0, x1, y1]]) for x0, x1, y0, y1 in product(edges, repeat=4) if x0 < x1 and y0 < y1]
    return max(boxes, key=lambda box: iou(box, truth).mean())


def auc_table() -> Iterator[str]:
    """Mean AUC over the diseases with bootstrap intervals, and what the contrastive term adds."""
    yield "| weights at the start | lambda | seed | validation AUC (95 %) | AUC on unseen phantoms (95 %) |"
    yield "|---|---|---|---|---|"
    unseen = {}
    for start, weight, seed in product(STARTS, LAMBDAS, SEEDS):
        checkpoint = trained(start, weight, seed)
        validation = evaluate(checkpoint, phantoms("training"), part="validation").mean_auc
        unseen[start, weight, seed] = evaluate(checkpoint, phantoms("unseen"), part=None).mean_auc
        yield f"| {start} | {weight} | {seed} | {validation} | {unseen[start, weight, seed]} |"
    for start in STARTS:
        gains = [unseen[start, 0.8, seed].value - unseen[start, 1.0, seed].value for seed in SEEDS]
        ratio, cosine = gradient_ratio(start)
        yield ""
        yield (
            f"From {start} weights, the contrastive term changes the AUC on unseen phantoms by"
            f" {', '.join(f'{g:+.3f}' for g in gains)} (mean {np.mean(gains):+.3f}, standard deviation over seeds"
            f" {np.std(gains, ddof=1):.3f}). At the start, its gradient in the convolutions is {ratio:.2f} times the"
            f" cross-entropy's, with a cosine of {cosine:+.2f} between the two (batches of {CONFIG.batch_size})."
        )


def localisation_table(variants: Sequence[Variant]) -> Iterator[str]:
    """Share of boxes found at each T(IoU), and by how much each preset's fused map beats its parts, paired by box."""
    columns = " | ".join([*(f"seed {seed}" for seed in SEEDS), *(f"T {threshold}" for threshold in THRESHOLDS)])
    yield f"| start, lambda | boxes by | mean IoU, {columns} | fused minus this (95 %) |"
    yield "|---" * (3 + len(SEEDS) + len(THRESHOLDS)) + "|"
    for start, weight in variants:
        found, patients = zip(*(ious(trained(start, weight, seed)) for seed in SEEDS), strict=True)
        for name in found[0]:
            seeds = np.stack([rows[name] for rows in found])  # [seeds, boxes]
            figures = [f"{values.mean():.3f}" for values in seeds] + [f"{(seeds >= t).mean():.2f}" for t in THRESHOLDS]
            preset = "tuned" if name == CONSTANT else name.partition(":")[0]
            fused = np.stack([rows[f"{preset}: fused"] for rows in found])
            difference = (fused - seeds).mean(0)
            (gain,) = estimate(lambda w, d=difference: (w @ d / w.sum(1))[:, None], patients[0])
            advantage = f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})" if difference.any() else ""
            yield f"| {start}, {weight} | {name} | {' | '.join(figures)} | {advantage} |"


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path(__file__).with_suffix(".md"))
def main(output: Path) -> None:
    """Train, judge, write the tables."""
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{CACHE}/mlflow.db")
    CACHE.mkdir(parents=True, exist_ok=True)
    lines = [
        "# The contrastive term, and fusion against its parts",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, made by `benchmarks/contrastive.py`: {CONFIG.architecture} of width"
        f" {CONFIG.width} without triplet attention at {CONFIG.input_size} px, {CONFIG.epochs} epochs"
        f" ({STARTS['trained'].epochs} more from trained weights) of {PHANTOMS['training'][0]} phantoms, batches of"
        f" {CONFIG.batch_size}, equation 2 summed; unseen: {PHANTOMS['unseen'][0]} phantoms of other patients.",
        "",
        "## Classification",
        "",
        *auc_table(),
        "",
        "## Localisation on the unseen phantoms",
        "",
        *localisation_table([("fresh", 1.0), ("trained", 0.8)]),
        "",
        "## Reading, of the run committed here",
        "",
        READING,
    ]
    text = "\n".join(lines)
    output.write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
