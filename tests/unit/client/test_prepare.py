"""From a file to the model's input."""

import os
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from crosseai.client.prepare import prepare, read_again
from crosseai.client.sources.discovery import image_id
from crosseai.client.sources.storage import ImageFile
from crosseai.contract import ImageFailure, InputError, ModelSpec
from crosseai.imaging import DEFAULT_POLICY


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


def test_a_file_that_changed_since_it_was_scored_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    scored = np.arange(600, dtype=np.uint8).reshape(20, 30)
    cv2.imwrite(str(path), scored)
    identity = image_id(path.read_bytes())
    np.testing.assert_array_equal(read_again(str(path), identity, DEFAULT_POLICY).pixels, scored)
    cv2.imwrite(str(path), scored[::-1])
    with pytest.raises(InputError, match=rf"{path}: expected the content that was scored, {identity}, found "):
        read_again(str(path), identity, DEFAULT_POLICY)
    path.unlink()
    with pytest.raises(InputError, match=str(path)):
        read_again(str(path), identity, DEFAULT_POLICY)
