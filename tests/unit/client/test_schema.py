"""The document of the outputs says what the files hold."""

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from crosseai.client.records.schema import SCHEMA_VERSION, boxes_schema, predictions_schema
from crosseai.contract import BoxParameters, ModelIdentity, ModelSpec

MODEL, BOXES = ModelIdentity("crosseai", "7", "ab" * 32), BoxParameters()
SCHEMAS = {
    "predictions": predictions_schema(ModelSpec(classes=("DISEASE",)), MODEL, BOXES),
    "boxes": boxes_schema(MODEL, BOXES),
}


def documented(text: str, table: str) -> Iterator[tuple[str, ...]]:
    """Rows of the table of columns under a heading: name, type, unit, frame, meaning."""
    section = text.partition(f"## `{table}.parquet`")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(.+?)` \|(.*?)\|(.*?)\|(.*?)\|(.*?)\|$", section, re.MULTILINE)
    return (tuple(cell.strip() for cell in row) for row in rows)


def written(schema: pa.Schema) -> Iterator[tuple[str, ...]]:
    for field in schema:
        facts = {key.decode(): value.decode() for key, value in field.metadata.items()}
        yield field.name, str(field.type), facts.get("unit", ""), facts.get("frame", ""), facts["meaning"]


@pytest.mark.parametrize("table", SCHEMAS)
def test_every_column_is_documented_as_it_is_written(repository: Path, table: str) -> None:
    text = (repository / "docs" / "outputs.md").read_text(encoding="utf-8")
    assert list(documented(text, table)) == list(written(SCHEMAS[table]))
    assert f"schema version {SCHEMA_VERSION}" in text
    assert all(f"`{key.decode()}`" in text for key in SCHEMAS[table].metadata)
