"""Files, real and otherwise."""

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from crosseai.contract import InputError, UnreadableImageError, UnsupportedImageError
from crosseai.imaging import ReadPolicy, read_radiograph


def test_content_counts_and_the_name_does_not(tmp_path: Path) -> None:
    pixels = np.arange(100, dtype=np.uint8).reshape(10, 10)
    misnamed = tmp_path / "image.dcm"
    misnamed.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    radiograph = read_radiograph(misnamed)
    np.testing.assert_array_equal(radiograph.pixels, pixels)
    assert radiograph.metadata.source_format == "png"


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", bytes(128) + b"DICM", b"a,b\n1,2\n"])
def test_what_is_no_image_is_unreadable_and_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=str(path)):
        read_radiograph(path)


def test_folders_and_missing_files_are_unreadable(tmp_path: Path) -> None:
    for path, found in ((tmp_path, "another kind"), (tmp_path / "missing", "none")):
        with pytest.raises(UnreadableImageError, match=f"expected a regular file, found {found}"):
            read_radiograph(path)


@pytest.mark.parametrize("start", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", bytes(128) + b"DICM"])
def test_a_huge_file_is_not_read(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "huge"
    path.write_bytes(start)
    os.truncate(path, 2**30)
    tracemalloc.start()
    with pytest.raises(UnsupportedImageError, match="expected at most 285212672 bytes, found 1073741824"):
        read_radiograph(path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 2**20


def test_the_limit_on_the_file_follows_the_limit_on_pixels(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"")
    os.truncate(path, 20 * 2**20)
    with pytest.raises(UnsupportedImageError, match="expected at most"):
        read_radiograph(path, ReadPolicy(max_pixels=2**10))


def files(folder: Path) -> Iterator[Path]:
    found = sorted(path for path in folder.iterdir() if path.is_file())
    assert found
    yield from found


def test_every_real_chest_radiograph_reads(shared_data: Path) -> None:
    for path in files(shared_data / "dicom" / "chest"):
        radiograph = read_radiograph(path)
        assert radiograph.pixels.std() > 0
        assert radiograph.metadata.modality in ("CR", "DX")


@pytest.mark.parametrize("name", ["966_fixed.dcm", "RG1_J2KI.dcm"])
def test_the_mediastinum_is_brighter_than_the_lungs(shared_data: Path, name: str) -> None:
    """Both files are stored as MONOCHROME1."""
    radiograph = read_radiograph(shared_data / "dicom" / "chest" / name)
    assert radiograph.metadata.photometric_interpretation == "MONOCHROME1"
    height, width = radiograph.pixels.shape
    chest = radiograph.pixels[3 * height // 10 : 5 * height // 10]
    mediastinum = chest[:, 45 * width // 100 : 55 * width // 100]
    right_lung = chest[:, 20 * width // 100 : 35 * width // 100]
    assert mediastinum.mean() > 1.1 * right_lung.mean()


def test_the_monochrome_1_copy_is_the_negative_of_its_original(shared_data: Path) -> None:
    chest = shared_data / "dicom" / "chest"
    original = read_radiograph(chest / "1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm")
    relabelled = read_radiograph(chest / "Fake_MONOHR1.dcm")
    np.testing.assert_array_equal(relabelled.pixels, 255 - original.pixels)


def test_other_body_parts_are_refused(shared_data: Path) -> None:
    for path in files(shared_data / "dicom" / "other_radiograph"):
        with pytest.raises(UnsupportedImageError, match=r"expected a chest, found the body part '(HIP|EXTREMITY)'"):
            read_radiograph(path)


def test_broken_and_odd_files_give_clean_errors(shared_data: Path) -> None:
    for path in files(shared_data / "dicom" / "broken_or_odd"):
        with pytest.raises(InputError, match=path.name):
            read_radiograph(path)


def test_real_png_are_eight_bit(shared_data: Path) -> None:
    for path in sorted((shared_data / "nih" / "images").glob("*.png"))[:5]:
        radiograph = read_radiograph(path)
        assert radiograph.pixels.shape == (1024, 1024)
        assert radiograph.display_range == (0, 255)
