"""What the report says, as compact columns: the tables of a run, its manifest and its failures."""

import json
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from crosseai.client.records.manifest import MANIFEST, read_configuration
from crosseai.client.records.tables import BOXES, ERRORS, PREDICTIONS
from crosseai.client.report.layers import LAYERS
from crosseai.contract import RESEARCH_NOTICE, BoxParameters, InputError
from crosseai.imaging.palette import disease_colour

_DIGITS = 4
"""Digits of probabilities: finer steps cannot be seen, and cost space."""


def read_content(output: Path) -> dict[str, Any]:
    """Columns of a run's tables, with what made them.

    Probabilities come as whole numbers of 1/10000. A box is ``[row of its image, disease, x0, y0, x1, y1, score]``, in
    pixels of the original image. The scored directory is not named.

    Raises
    ------
    InputError
        If the folder is no output of a run.
    """
    configuration = read_configuration(output)
    try:
        manifest = json.loads((output / MANIFEST).read_text(encoding="utf-8"))
        table = pq.read_table(output / f"{PREDICTIONS}.parquet")
        boxes = pq.read_table(output / f"{BOXES}.parquet")
        failures = [json.loads(line) for line in (output / ERRORS).read_text(encoding="utf-8").splitlines()]
        diseases = configuration["spec"]["classes"]
        return {
            "notice": RESEARCH_NOTICE,
            "model": {key: configuration[key] for key in ("model", "model_version", "model_sha256", "explain")},
            "status": manifest["status"],
            "runs": manifest["runs"],
            "parameters": asdict(BoxParameters(**configuration["boxes"])),
            "diseases": diseases,
            "colours": ["#{:02x}{:02x}{:02x}".format(*disease_colour(disease)) for disease in diseases],
            "operating_points": configuration["spec"]["operating_points"],
            "images": _image_columns(table, diseases, output / LAYERS),
            "boxes": _box_rows(boxes, table, diseases),
            "failures": [[failure[key] for key in ("path", "error", "message", "stage")] for failure in failures],
        }
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise InputError(f"{output}: expected the output of crosseai-client run: {error!r}") from error


def _image_columns(table: pa.Table, diseases: list[str], layers: Path) -> dict[str, list[Any]]:
    columns = table.to_pydict()
    with_layers = {file.stem for file in layers.glob("*.js")}
    return {
        "id": columns["image_id"],
        "path": columns["path"],
        "width": columns["width"],
        "height": columns["height"],
        "layers": [int(identity in with_layers) for identity in columns["image_id"]],
        "warnings": columns["warnings"] if any(columns["warnings"]) else [],
        "positive": [
            sum(positive << d for d, positive in enumerate(row))
            for row in zip(*(columns[f"positive_{disease}"] for disease in diseases), strict=True)
        ],
        "probabilities": [[round(p * 10**_DIGITS) for p in columns[f"p_{disease}"]] for disease in diseases],
    }


def _box_rows(boxes: pa.Table, table: pa.Table, diseases: list[str]) -> list[list[float]]:
    """One row a box and image. Copies of a file share an id, under which a box is listed for each of them."""
    rows_of = defaultdict(list)
    for row, identity in enumerate(table["image_id"].to_pylist()):
        rows_of[identity].append(row)
    found = {}
    for box in boxes.to_pylist():
        edges = [box[edge] for edge in ("x0", "y0", "x1", "y1")]
        for row in rows_of[box["image_id"]]:
            found[row, diseases.index(box["disease"])] = [*edges, round(box["score"], 1)]
    return [[*key, *box] for key, box in found.items()]
