"""The cache of decoded images: training sees the bytes that scoring sees, once decoded, and nothing else."""

import os
import subprocess
import sys
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from crosseai.contract import InputError, ModelSpec
from crosseai.imaging import preprocess, read_radiograph
from crosseai.training.cache import decoded_images
from crosseai.training.dataset import LabelledRadiographs, read_labelled_radiographs
from tests.nih_layout import write_data_set

SPEC = ModelSpec(input_size=32)


@pytest.fixture
def radiographs(tmp_path: Path) -> LabelledRadiographs:
    return read_labelled_radiographs(write_data_set(tmp_path / "nih", patients=4))


def pixels_file(cache: Path) -> Path:
    (file,) = (file for file in cache.iterdir() if not file.name.endswith(".crc32.npy"))
    return file


class Decoded:
    """Counts what ``on_progress`` is told."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.steps.append((done, total))


def test_it_holds_what_scoring_computes_and_decodes_nothing_twice(
    radiographs: LabelledRadiographs, tmp_path: Path
) -> None:
    first, again = Decoded(), Decoded()
    pixels = decoded_images(radiographs, SPEC, tmp_path / "cache", first).pixels
    assert first.steps == [(i, 12) for i in range(1, 13)]
    assert pixels.shape == (12, 1, 32, 32)
    for image, path in zip(pixels, radiographs.paths, strict=True):
        assert image.tobytes() == preprocess(read_radiograph(path), SPEC).tobytes()
    pixels[:] = 0
    reopened = decoded_images(radiographs, SPEC, tmp_path / "cache", again)
    assert again.steps == []
    assert reopened.corrupted == {}
    assert reopened.pixels.any(), "a change of the array must not reach the file"


def test_it_follows_its_images_and_its_spec(radiographs: LabelledRadiographs, tmp_path: Path) -> None:
    before = decoded_images(radiographs, SPEC, tmp_path / "cache").pixels
    assert decoded_images(radiographs, ModelSpec(input_size=16), tmp_path / "cache").pixels.shape[-1] == 16
    cv2.imwrite(str(radiographs.paths[1]), np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
    after = decoded_images(radiographs, SPEC, tmp_path / "cache").pixels
    np.testing.assert_array_equal(after[1], preprocess(read_radiograph(radiographs.paths[1]), SPEC))
    np.testing.assert_array_equal(after[::2], before[::2])


@pytest.mark.parametrize(
    ("damage", "decoded_again"), [("truncated", 7), ("other preprocessing", 12), ("one bit", 1), ("no checksums", 12)]
)
def test_what_is_spoilt_is_decoded_again(
    radiographs: LabelledRadiographs, tmp_path: Path, damage: str, decoded_again: int
) -> None:
    expected = decoded_images(radiographs, SPEC, tmp_path / "cache").pixels.copy()
    file = pixels_file(tmp_path / "cache")
    if damage == "truncated":
        os.truncate(file, file.stat().st_size // 2)
    elif damage == "no checksums":
        file.with_suffix(".crc32.npy").unlink()
    else:
        written = np.load(file, mmap_mode="r+")
        if damage == "one bit":
            written[5, 0, 3, 3] ^= 1
        else:
            written[:] = 255 - written
            checksums = np.load(file.with_suffix(".crc32.npy"), mmap_mode="r+")
            checksums[:] = [zlib.crc32(image) for image in written]
    progress = Decoded()
    np.testing.assert_array_equal(decoded_images(radiographs, SPEC, tmp_path / "cache", progress).pixels, expected)
    assert len(progress.steps) == decoded_again


def test_an_interrupted_build_goes_on_where_it_was(radiographs: LabelledRadiographs, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decoded_images(radiographs, SPEC, tmp_path / "cache", interrupt)
    checksums = np.load(pixels_file(tmp_path / "cache").with_suffix(".crc32.npy"))
    progress = Decoded()
    decoded_images(radiographs, SPEC, tmp_path / "cache", progress)
    assert checksums.any()
    assert len(progress.steps) == (checksums == 0).sum()


def test_processes_wait_for_the_first_of_them(radiographs: LabelledRadiographs, tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from crosseai.contract import ModelSpec
from crosseai.training.cache import decoded_images
from crosseai.training.dataset import read_labelled_radiographs
decoded_images(read_labelled_radiographs(Path(sys.argv[1])), ModelSpec(input_size=32), Path(sys.argv[2]))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "nih"), str(tmp_path / "cache")]
    other: subprocess.Popen[bytes] | None = None
    running: list[bool] = []

    def start_another(done: int, total: int) -> None:
        nonlocal other
        if other is None:
            other = subprocess.Popen(command)
            time.sleep(0.1)
        running.append(other.poll() is None)

    decoded_images(radiographs, SPEC, tmp_path / "cache", start_another)
    assert other is not None
    assert all(running)
    assert other.wait(timeout=60) == 0


def test_corrupted_images_are_told_and_left_black(radiographs: LabelledRadiographs, tmp_path: Path) -> None:
    radiographs.paths[4].write_bytes(b"\x89PNG broken")
    decoded = decoded_images(radiographs, SPEC, tmp_path / "cache")
    assert list(decoded.corrupted) == [4]
    assert radiographs.image_ids[4] in decoded.corrupted[4]
    assert not decoded.pixels[4].any()
    assert decoded.pixels[[3, 5]].any()
    assert decoded_images(radiographs, SPEC, tmp_path / "cache").corrupted == decoded.corrupted


def test_a_data_set_without_one_readable_image_is_refused(radiographs: LabelledRadiographs, tmp_path: Path) -> None:
    for path in radiographs.paths:
        path.write_bytes(b"")
    with pytest.raises(InputError, match="none of 12 images can be read"):
        decoded_images(radiographs, SPEC, tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_an_error(radiographs: LabelledRadiographs, tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(InputError, match="cache of decoded images"):
        decoded_images(radiographs, SPEC, tmp_path / "cache")


def test_real_radiographs_are_decoded(shared_data: Path, tmp_path: Path) -> None:
    radiographs = read_labelled_radiographs(shared_data / "nih")
    pixels = decoded_images(radiographs, SPEC, tmp_path).pixels
    assert pixels.std(axis=(1, 2, 3)).min() > 5
