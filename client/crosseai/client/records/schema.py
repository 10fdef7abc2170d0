"""Columns of the tables, with units and frames: what ``docs/outputs.md`` describes and every Parquet file carries."""

import pyarrow as pa

from crosseai.contract import RESEARCH_NOTICE, BoxParameters, ModelIdentity, ModelSpec

SCHEMA_VERSION = 1
"""Grows when a column goes or changes its meaning; a new column alone leaves it."""

FRAME = "original image px"
"""Pixels of the image as displayed, origin at the outer corner of the top-left pixel."""


def predictions_schema(spec: ModelSpec, model: ModelIdentity, boxes: BoxParameters) -> pa.Schema:
    """Columns of ``predictions.parquet``: one row an image."""
    return pa.schema(
        [
            _image_id(),
            _column("path", pa.string(), "the file, relative to the scored directory, or as its manifest names it"),
            _column("width", pa.int32(), "columns of the image", "px", FRAME),
            _column("height", pa.int32(), "rows of the image", "px", FRAME),
            _column("model_version", pa.string(), "version of the model that answered"),
            *(
                _column(f"p_{disease}", pa.float32(), f"calibrated probability of {disease}", "1")
                for disease in spec.classes
            ),
            *(
                _column(f"positive_{disease}", pa.bool_(), f"whether p_{disease} reaches its operating point")
                for disease in spec.classes
            ),
            _column("warnings", pa.string(), "what deserves a look, separated by semicolons; empty where nothing does"),
        ],
        metadata=_origin(model, boxes),
    )


def boxes_schema(model: ModelIdentity, boxes: BoxParameters) -> pa.Schema:
    """Columns of ``boxes.parquet``: one row a box, half-open ``[x0, x1) x [y0, y1)``."""
    return pa.schema(
        [
            _image_id(),
            _column("disease", pa.string(), "what the box explains"),
            _column("probability", pa.float32(), "calibrated probability of the disease", "1"),
            _column("x0", pa.int32(), "left edge", "px", FRAME),
            _column("y0", pa.int32(), "top edge", "px", FRAME),
            _column("x1", pa.int32(), "right edge, one past the last column", "px", FRAME),
            _column("y1", pa.int32(), "bottom edge, one past the last row", "px", FRAME),
            _column("score", pa.float32(), "mean of the masked fused map in the box, 0 to 255", "gray levels"),
            _column("t", pa.float32(), "share of the heat map in the fused map", "1"),
            _column("threshold", pa.float32(), "share of the fused map's maximum that bounds the mask", "1"),
        ],
        metadata=_origin(model, boxes),
    )


def _image_id() -> pa.Field:
    return _column("image_id", pa.string(), "first 128 bits of the SHA-256 of the file, in hexadecimal")


def _column(name: str, kind: pa.DataType, meaning: str, unit: str = "", frame: str = "") -> pa.Field:
    facts = {"meaning": meaning, "unit": unit, "frame": frame}
    return pa.field(name, kind, metadata={key: fact for key, fact in facts.items() if fact})


def _origin(model: ModelIdentity, boxes: BoxParameters) -> dict[str, str]:
    return {
        "schema_version": str(SCHEMA_VERSION),
        "model": model.name,
        "model_version": model.version,
        "model_sha256": model.sha256,
        "preset": boxes.preset,
        "frame": f"{FRAME}, boxes half-open",
        "notice": RESEARCH_NOTICE,
    }
