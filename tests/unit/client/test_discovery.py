import os
from pathlib import Path

import pytest

from crosseai.client.sources.discovery import discover, image_id, image_name
from crosseai.contract import InputError


def test_every_regular_file_is_found_once(tmp_path: Path) -> None:
    for name in ("b/1.dcm", "b/c/2.png", "a 1\n.png", ".hidden", ".git/x.png", "notes.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "linked.png").symlink_to(tmp_path / "b/1.dcm")
    os.mkfifo(tmp_path / "pipe.png")
    found = [str(path.relative_to(tmp_path)) for path in discover(tmp_path, tmp_path / "out")]
    assert found == ["a 1\n.png", "dangling.png", "linked.png", "notes.csv", "b/1.dcm", "b/c/2.png"]


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(b"x")
    assert len(list(discover(tmp_path, tmp_path / "out"))) == 1


def test_not_a_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found nothing"):
        list(discover(tmp_path / "absent", tmp_path / "out"))
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError, match="found a file"):
        list(discover(file, tmp_path / "out"))


def test_the_output_is_not_scored(tmp_path: Path) -> None:
    for name in ("a.png", "out/overlays/b.png", "outside/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in discover(tmp_path, tmp_path / "out")] == ["a.png", "c.png"]
    with pytest.raises(InputError, match="other than"):
        list(discover(tmp_path, tmp_path / "outside" / ".."))


def test_names_in_listings() -> None:
    assert {image_name(name) for name in ("x.png", "a/x.dcm", "x.JPG", "x")} == {"x"}
    assert image_name("1.2.840.1") == "1.2.840.1"


def test_image_id_is_half_of_the_content_s_sha256() -> None:
    # The first example of FIPS 180-2.
    assert image_id(b"abc") == "ba7816bf8f01cfea414140de5dae2223"
    assert image_id(b"other") != image_id(b"abc")
