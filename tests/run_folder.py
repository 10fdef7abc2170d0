"""Output folders as a run leaves them, of made-up results."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crosseai.client.findings import ExplanationMaps, ScoredImage
from crosseai.client.records.manifest import this_run, write_manifest
from crosseai.client.records.tables import write_tables
from crosseai.contract import BoxParameters, Finding, ImageFailure, ImageResult, ModelIdentity, ModelSpec
from crosseai.imaging import Radiograph, box_to_image_px
from crosseai.postproc import localize

SPEC = ModelSpec(input_size=64)
MODEL = ModelIdentity(SPEC.name, "7", "ab" * 32)


def write_run(
    folder: Path,
    results: Sequence[ImageResult],
    failures: Sequence[ImageFailure] = (),
    *,
    spec: ModelSpec = SPEC,
    boxes: BoxParameters | None = None,
) -> Path:
    """Write the tables and the manifest of a run with these outcomes."""
    folder.mkdir(parents=True, exist_ok=True)
    parameters = boxes or spec.boxes
    counts = write_tables(folder, [[*results, *failures]], spec, MODEL, parameters)
    configuration = {
        "directory": "/data/of/the/hospital",
        "model": MODEL.name,
        "model_version": MODEL.version,
        "model_sha256": MODEL.sha256,
        "spec": asdict(spec),
        "explain": "positive",
        "boxes": asdict(parameters),
    }
    runs = [this_run(datetime(2026, 1, 1, tzinfo=UTC), 12.5, len(results) + len(failures))]
    write_manifest(folder, status="complete", configuration=configuration, counts=asdict(counts), runs=runs)
    return folder


def made_up_results(count: int, *, spec: ModelSpec = SPEC, seed: int = 0) -> Iterator[ImageResult]:
    """Results without maps: a box for each positive disease."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        probabilities = rng.beta(0.7, 2.5, len(spec.classes)).astype(np.float32)
        positive = spec.positive(probabilities)
        findings = []
        for c in np.flatnonzero(positive):
            (x0, y0), (w, h) = rng.integers(50, 500, 2).tolist(), rng.integers(60, 400, 2).tolist()
            findings.append(
                Finding(spec.classes[c], float(probabilities[c]), (x0, y0, x0 + w, y0 + h), (1, 1, 9, 9), 120.0)
            )
        yield ImageResult(
            image_id=f"{number:032x}",
            path=f"images/{number:08d}_{seed:03d}.png",
            width=1024,
            height=1024,
            model_version="7",
            probabilities=dict(zip(spec.classes, probabilities.tolist(), strict=True)),
            positive=dict(zip(spec.classes, positive.tolist(), strict=True)),
            findings=tuple(findings),
        )


def made_up_image(
    radiograph: Radiograph,
    path: str,
    diseases: Sequence[str],
    *,
    spec: ModelSpec = SPEC,
    boxes: BoxParameters | None = None,
    seed: int = 0,
) -> ScoredImage:
    """A scored image whose maps are a blob each, with the boxes that they give."""
    rng = np.random.default_rng(seed)
    height, width = radiograph.height, radiograph.width
    (_, h, w), side = spec.feature_shape, spec.input_size
    maps, findings = [], []
    probabilities = dict(zip(spec.classes, rng.beta(0.7, 2.5, len(spec.classes)).tolist(), strict=True))
    for disease in diseases:
        probabilities[disease] = float(rng.uniform(0.55, 0.97))
        cy, cx = rng.uniform(0.25, 0.75, 2)
        blob = [_blob(rows, columns, cy, cx) for rows, columns in ((h, w), (side, side))]
        noise = rng.gamma(0.8, 1.0, (side, side))
        gradient = blob[1] * noise + 0.05 * noise
        one = ExplanationMaps(blob[0].astype(np.float32), np.rint(255 * gradient / gradient.max()).astype(np.uint8))
        found, scores = localize(
            one.heatmap[np.newaxis], one.gradient_map[np.newaxis], **(boxes or spec.boxes).keywords(), threads=1
        )
        box = tuple(found[0].tolist())
        findings.append(
            Finding(disease, probabilities[disease], box_to_image_px(box, side, height, width), box, float(scores[0]))
        )
        maps.append(one)
    positive = {disease: p >= 0.5 for disease, p in probabilities.items()}
    result = ImageResult(f"{seed:032x}", path, width, height, "7", probabilities, positive, tuple(findings))
    return ScoredImage(result, path, tuple(maps))


def _blob(rows: int, columns: int, cy: float, cx: float) -> npt.NDArray[np.float64]:
    y, x = (np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns
    blob: npt.NDArray[np.float64] = np.exp(-(((y - cy) / 0.14) ** 2)[:, None] - (((x - cx) / 0.16) ** 2)[None])
    return blob
