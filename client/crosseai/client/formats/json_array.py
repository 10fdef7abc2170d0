"""JSON arrays written item by item, so that memory does not grow with an archive."""

import json
from collections.abc import Iterable
from typing import Any, TextIO


def write_array(file: TextIO, items: Iterable[Any]) -> None:
    """Write ``items`` as one JSON array, a line each."""
    separator = "[\n"
    for item in items:
        file.write(separator + json.dumps(item))
        separator = ",\n"
    file.write("[]" if separator == "[\n" else "\n]")
