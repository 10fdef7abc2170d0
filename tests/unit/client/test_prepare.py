"""From a file to the model's input."""

import os
from pathlib import Path

import psutil
import pytest

from crosseai.client.prepare import prepare
from crosseai.client.sources.storage import ImageFile
from crosseai.contract import ImageFailure, ModelSpec


@pytest.mark.parametrize("start", [b"", b"\x89PNG\r\n\x1a\n", bytes(128) + b"DICM"])
def test_a_huge_file_is_a_failure_and_not_read(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "huge"
    path.write_bytes(start)
    os.truncate(path, 2**30)
    before = psutil.Process().io_counters().read_chars
    failure = prepare(ImageFile("huge", str(path)), ModelSpec())
    assert psutil.Process().io_counters().read_chars - before < 2**20
    assert isinstance(failure, ImageFailure)
    assert (failure.error, failure.stage) == ("UnsupportedImageError", "read")
    assert "expected at most 285212672 bytes, found 1073741824" in failure.message


def test_an_empty_file_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    failure = prepare(ImageFile("empty", str(path)), ModelSpec())
    assert isinstance(failure, ImageFailure)
    assert "expected PNG, JPEG, or DICOM" in failure.message
