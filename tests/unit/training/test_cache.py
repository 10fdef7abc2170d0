"""The cache of decoded images: training sees the bytes that scoring sees, once decoded, and nothing else."""

import errno
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from crosseai.contract import InputError, ModelSpec
from crosseai.imaging import preprocess, read_radiograph
from crosseai.training import cache as cache_module
from crosseai.training.cache import DecodedImages, decoded_images
from crosseai.training.dataset import LabelledRadiographs, read_labelled_radiographs
from tests.nih_layout import write_data_set

SPEC = ModelSpec(input_size=32)
SHARD = 5
"""Images in a shard here: the twelve of the data set are in three."""

OPEN = f"""
import os, sys
from pathlib import Path
from crosseai.contract import ModelSpec
from crosseai.training import cache
from crosseai.training.dataset import read_labelled_radiographs
from crosseai.training.shard import Shard
cache.SHARD_IMAGES = {SHARD}
decode = Shard.decode
def slowly(*arguments):
    os.write(1, b"decoding\\n")
    os.read(0, 1)
    decode(*arguments)
Shard.decode = slowly
radiographs = read_labelled_radiographs(Path(sys.argv[1]))
images = cache.decoded_images(radiographs, ModelSpec(input_size=32), Path(sys.argv[2]))
print(len(images[:]))
"""
"""Opens the cache, and waits for a byte on stdin before every image that it decodes."""


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "SHARD_IMAGES", SHARD)


@pytest.fixture
def radiographs(tmp_path: Path) -> LabelledRadiographs:
    return read_labelled_radiographs(write_data_set(tmp_path / "nih", patients=4))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def files(cache: Path, kind: str = "") -> list[Path]:
    """Those of the pixels, or of the indices, in no order."""
    return [file for file in cache.rglob(f"*{kind}.npy") if kind or not file.name.endswith(".index.npy")]


def expected(radiographs: LabelledRadiographs) -> np.ndarray:
    return np.stack([preprocess(read_radiograph(path), SPEC) for path in radiographs.paths])


def opened(radiographs: LabelledRadiographs, cache: Path) -> tuple[DecodedImages, int]:
    """The images, and how many were decoded for it."""
    steps: list[int] = []
    return decoded_images(radiographs, SPEC, cache, lambda done, _all: steps.append(done)), len(steps)


def test_it_holds_what_scoring_computes_and_decodes_nothing_twice(
    radiographs: LabelledRadiographs, cache: Path
) -> None:
    steps: list[tuple[int, int]] = []
    images = decoded_images(radiographs, SPEC, cache, lambda done, total: steps.append((done, total)))
    assert steps == [(i, 12) for i in range(1, 13)]
    assert images.shape == (12, 1, 32, 32)
    assert len(files(cache)) == 3
    np.testing.assert_array_equal(images[:], expected(radiographs))
    drawn = np.array([11, 0, 7, 7, 4])
    np.testing.assert_array_equal(images[drawn], expected(radiographs)[drawn])
    images[:][:] = 0
    reopened, decoded = opened(radiographs, cache)
    assert (decoded, reopened.corrupted) == (0, {})
    assert reopened[:].any(), "a change of what was read must not reach the file"


def test_each_input_size_has_its_own(radiographs: LabelledRadiographs, cache: Path) -> None:
    opened(radiographs, cache)
    assert decoded_images(radiographs, ModelSpec(input_size=16), cache)[:].shape[-1] == 16
    assert opened(radiographs, cache)[1] == 0


def test_an_image_that_changed_is_decoded_again_alone(radiographs: LabelledRadiographs, cache: Path) -> None:
    opened(radiographs, cache)
    cv2.imwrite(str(radiographs.paths[1]), np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
    images, decoded = opened(radiographs, cache)
    assert decoded == 1
    np.testing.assert_array_equal(images[:], expected(radiographs))


def test_a_data_set_that_grows_shrinks_and_is_shuffled_decodes_what_is_new(
    radiographs: LabelledRadiographs, cache: Path
) -> None:
    names, paths, patients = radiographs.image_ids, radiographs.paths, radiographs.patients
    for rows, new in (([2, 3, 5, 7, 8, 10], 6), (list(range(12)), 6), ([11, 0, 7], 0), (list(range(11, -1, -1)), 0)):
        listed = (tuple(each[i] for i in rows) for each in (names, paths, patients))
        before = {file: file.stat().st_ino for file in files(cache)}
        images, decoded = opened(LabelledRadiographs(*listed, radiographs.labels[rows], radiographs.classes), cache)
        assert decoded == new
        np.testing.assert_array_equal(images[:], expected(radiographs)[rows])
        assert before.items() <= {file: file.stat().st_ino for file in files(cache)}.items()


def test_other_preprocessing_code_is_noticed(radiographs: LabelledRadiographs, cache: Path) -> None:
    opened(radiographs, cache)
    stale = files(cache)[0]
    pixels = np.load(stale, mmap_mode="r+")
    pixels[:] = 255 - pixels
    index = np.load(stale.with_suffix(".index.npy"), mmap_mode="r+")
    index["crc32"] = [zlib.crc32(image) for image in pixels]
    images, decoded = opened(radiographs, cache)
    assert decoded == len(pixels)
    np.testing.assert_array_equal(images[:], expected(radiographs))


@pytest.mark.parametrize(
    ("kind", "size", "decoded"),
    [("", 0, 12), ("", 60, 12), ("", 2000, 0), (".index", 0, 12), (".index", 130, 12), (".index", None, 12)],
)
def test_files_that_are_not_whole(
    radiographs: LabelledRadiographs, cache: Path, kind: str, size: int | None, decoded: int
) -> None:
    opened(radiographs, cache)
    for file in files(cache, kind):
        file.unlink() if size is None else os.truncate(file, size)
    images, again = opened(radiographs, cache)
    assert again == decoded
    np.testing.assert_array_equal(images[:], expected(radiographs))
    assert not list(cache.rglob("*.partial"))


def test_a_spoilt_image_is_noticed_when_it_is_read_however_late(
    radiographs: LabelledRadiographs, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images, _ = opened(radiographs, cache)
    for file in files(cache):
        np.load(file, mmap_mode="r+")[1, 0, 3, 3] ^= 1
    again, decoded = opened(radiographs, cache)
    assert decoded == 0
    np.testing.assert_array_equal(again[:], expected(radiographs))
    assert caplog.text.count("image 1 is spoilt, and is decoded again") == 3
    np.testing.assert_array_equal(images[:], expected(radiographs))
    assert len(caplog.records) == 3, "what was decoded again is in the file"


def test_a_spoilt_image_whose_file_is_gone_is_an_error(radiographs: LabelledRadiographs, cache: Path) -> None:
    images, _ = opened(radiographs, cache)
    for file in files(cache):
        np.load(file, mmap_mode="r+")[:] = 0
    radiographs.paths[4].unlink()
    with pytest.raises(InputError, match=radiographs.image_ids[4]):
        images[np.array([4])]


def test_an_interrupted_build_goes_on_where_it_was(radiographs: LabelledRadiographs, cache: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == SHARD + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decoded_images(radiographs, SPEC, cache, interrupt)
    done = sum(np.count_nonzero(np.load(file)["crc32"]) for file in files(cache, ".index"))
    assert done > SHARD
    assert opened(radiographs, cache)[1] == 12 - done


@pytest.fixture
def other(radiographs: LabelledRadiographs, cache: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the first shard and has decoded nothing."""
    command = [sys.executable, "-c", OPEN, str(radiographs.paths[0].parents[1]), str(cache)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "decoding\n"
        yield process
        process.kill()


def test_two_processes_share_the_work(
    radiographs: LabelledRadiographs, cache: Path, other: "subprocess.Popen[str]"
) -> None:
    steps: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        steps.append((done, total))
        if done == 12 - SHARD:  # all that the other does not hold
            assert other.stdin is not None
            other.stdin.write("\n" * SHARD)
            other.stdin.flush()

    images = decoded_images(radiographs, SPEC, cache, progress)
    assert other.stdout is not None
    said = other.stdout.read()
    assert steps == [(i, 12) for i in range(1, 12 - SHARD + 1)]
    assert said.splitlines() == [*["decoding"] * (SHARD - 1), "12"]
    np.testing.assert_array_equal(images[:], expected(radiographs))


def test_what_a_killed_process_held_is_decoded_by_others(
    radiographs: LabelledRadiographs, cache: Path, other: "subprocess.Popen[str]"
) -> None:
    steps: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        steps.append((done, total))
        if done == 12 - SHARD:
            other.kill()

    images = decoded_images(radiographs, SPEC, cache, progress)
    assert steps == [(i, 12) for i in range(1, 13)]
    np.testing.assert_array_equal(images[:], expected(radiographs))


def test_corrupted_images_are_told(radiographs: LabelledRadiographs, cache: Path) -> None:
    radiographs.paths[4].write_bytes(b"\x89PNG broken")
    images = decoded_images(radiographs, SPEC, cache)
    assert list(images.corrupted) == [4]
    assert radiographs.image_ids[4] in images.corrupted[4]
    with pytest.raises(InputError, match=radiographs.image_ids[4]):
        images[np.array([3, 4])]
    assert images[np.array([3, 5])].any()
    assert decoded_images(radiographs, SPEC, cache).corrupted == images.corrupted


def test_a_data_set_without_one_readable_image_is_refused(radiographs: LabelledRadiographs, cache: Path) -> None:
    for path in radiographs.paths:
        path.write_bytes(b"")
    with pytest.raises(InputError, match="none of 12 images can be read"):
        decoded_images(radiographs, SPEC, cache)


def test_a_cache_that_cannot_be_written_is_an_error(radiographs: LabelledRadiographs, cache: Path) -> None:
    cache.touch()
    with pytest.raises(InputError, match="cache of decoded images"):
        decoded_images(radiographs, SPEC, cache)


def test_a_full_disk_is_told_before_anything_is_decoded(
    radiographs: LabelledRadiographs, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int, _start: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    steps: list[int] = []
    with pytest.raises(InputError, match=r"cache of decoded images: cannot write .*: No space left on device"):
        decoded_images(radiographs, SPEC, cache, lambda done, _all: steps.append(done))
    assert steps == []
    assert files(cache) == []
    assert not list(cache.rglob("*.partial"))


def test_real_radiographs_are_decoded(shared_data: Path, tmp_path: Path) -> None:
    radiographs = read_labelled_radiographs(shared_data / "nih")
    assert decoded_images(radiographs, SPEC, tmp_path)[:].std(axis=(1, 2, 3)).min() > 5


def test_a_listed_file_that_is_gone_is_named(radiographs: LabelledRadiographs, cache: Path) -> None:
    radiographs.paths[3].unlink()
    with pytest.raises(InputError, match=f"{radiographs.paths[3]}: cannot be read: No such file"):
        decoded_images(radiographs, SPEC, cache)


def test_a_file_that_cannot_be_read_any_more_is_used_from_the_cache(
    radiographs: LabelledRadiographs, cache: Path
) -> None:
    before = decoded_images(radiographs, SPEC, cache)[:]
    for path in radiographs.paths:
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    np.testing.assert_array_equal(decoded_images(radiographs, SPEC, cache)[:], before)
