"""The tables of a run: predictions, boxes and errors."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from crosseai.client.records.files import atomic_path
from crosseai.client.records.journal import Record
from crosseai.client.records.schema import boxes_schema, predictions_schema
from crosseai.contract import BoxParameters, ImageFailure, ImageResult, ModelIdentity, ModelSpec

PREDICTIONS = "predictions"
BOXES = "boxes"
ERRORS = "errors.jsonl"
ROW_GROUP = 2048
"""Rows that are written together: few enough to hold, many enough to be read fast."""


@dataclass(frozen=True, slots=True)
class TableCounts:
    """Contents of the tables: rows, images called positive for each disease, and images with each warning."""

    scored: int
    failed: int
    boxes: int
    positive: Mapping[str, int]
    warned: Mapping[str, int]


def write_tables(
    folder: Path, shards: Iterable[Sequence[Record]], spec: ModelSpec, model: ModelIdentity, boxes: BoxParameters
) -> TableCounts:
    """Write ``predictions`` and ``boxes`` as Parquet and CSV, and ``errors.jsonl``; one shard in memory at a time.

    Raises
    ------
    OutputError
        If they cannot be written; earlier tables are untouched.
    """
    predictions, findings = predictions_schema(spec, model, boxes), boxes_schema(model, boxes)
    counts: Counter[str] = Counter()
    warned: Counter[str] = Counter()
    positive = Counter(dict.fromkeys(spec.classes, 0))
    with ExitStack() as files:
        write_predictions = files.enter_context(_table_writer(folder / PREDICTIONS, predictions))
        write_boxes = files.enter_context(_table_writer(folder / BOXES, findings))
        errors = files.enter_context(files.enter_context(atomic_path(folder / ERRORS)).open("w", encoding="utf-8"))
        for shard in shards:
            results = [record for record in shard if isinstance(record, ImageResult)]
            failures = [record for record in shard if isinstance(record, ImageFailure)]
            rows = [row for result in results for row in _box_rows(result, boxes)]
            write_predictions([_prediction_row(result) for result in results])
            write_boxes(rows)
            errors.writelines(json.dumps(asdict(failure)) + "\n" for failure in failures)
            counts.update(scored=len(results), failed=len(failures), boxes=len(rows))
            positive.update(disease for result in results for disease, called in result.positive.items() if called)
            warned.update(warning for result in results for warning in result.warnings)
    return TableCounts(counts["scored"], counts["failed"], counts["boxes"], dict(positive), dict(warned))


@contextmanager
def _table_writer(stem: Path, schema: pa.Schema) -> Iterator["_WriteRows"]:
    """Yield a function that appends rows to ``stem.parquet`` and ``stem.csv``."""
    with (
        atomic_path(stem.with_suffix(".parquet")) as parquet_path,
        atomic_path(stem.with_suffix(".csv")) as csv_path,
        pq.ParquetWriter(parquet_path, schema) as parquet,
        pa_csv.CSVWriter(csv_path, schema) as text,
    ):
        write_rows = _WriteRows(parquet, text, schema)
        yield write_rows
        write_rows.flush()


class _WriteRows:
    def __init__(self, parquet: pq.ParquetWriter, text: pa_csv.CSVWriter, schema: pa.Schema) -> None:
        self._writers = (parquet, text)
        self._schema = schema
        self._rows: list[dict[str, object]] = []

    def __call__(self, rows: Sequence[dict[str, object]]) -> None:
        self._rows += rows
        if len(self._rows) >= ROW_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait."""
        if self._rows:
            table = pa.Table.from_pylist(self._rows, schema=self._schema)
            for writer in self._writers:
                writer.write_table(table)
        self._rows = []


def _prediction_row(result: ImageResult) -> dict[str, object]:
    return {
        "image_id": result.image_id,
        "path": result.path,
        "width": result.width,
        "height": result.height,
        "model_version": result.model_version,
        **{f"p_{disease}": probability for disease, probability in result.probabilities.items()},
        **{f"positive_{disease}": positive for disease, positive in result.positive.items()},
        "warnings": "; ".join(result.warnings),
    }


def _box_rows(result: ImageResult, parameters: BoxParameters) -> Iterator[dict[str, object]]:
    for finding in result.localized:
        yield {
            "image_id": result.image_id,
            "disease": finding.disease,
            "probability": finding.probability,
            **dict(zip(("x0", "y0", "x1", "y1"), finding.box_image_px, strict=True)),
            "score": finding.score,
            "t": parameters.t,
            "threshold": parameters.threshold,
        }
