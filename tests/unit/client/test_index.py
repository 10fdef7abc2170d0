import json
import os
import shutil
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from crosseai.client.cli import main
from crosseai.client.sources import index as module
from crosseai.client.sources.discovery import discover, image_id, name_of
from crosseai.client.sources.index import IndexSummary, write_index
from crosseai.client.sources.source import Directory, Manifest
from crosseai.client.sources.storage import read_file
from crosseai.contract import InputError


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    for number in range(30):
        path = folder / f"{number % 3}" / f"a{number % 2}" / f"{number:02d}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content of %d" % number)
    (folder / "1" / "z #1?.png").write_bytes(b"odd name")
    (folder / "first.png").write_bytes(b"first")
    return folder


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several parts, and several row groups, of few files."""
    monkeypatch.setattr(module, "PART_ROWS", 4)
    monkeypatch.setattr(module, "PARTS_A_ROW_GROUP", 3)


def rows(manifest: Path) -> list[dict]:
    return pq.read_table(manifest).to_pylist()


def counts(summary: IndexSummary) -> tuple[int, int, int]:
    return summary.files, summary.unreadable, summary.hashed


def test_a_manifest_lists_and_hashes_what_a_run_would_find(archive: Path, tmp_path: Path) -> None:
    summary = write_index(archive, tmp_path / "m.parquet")
    expected = [
        {
            "path": name_of(path, archive),
            "image_id": image_id(path.read_bytes()),
            "bytes": path.stat().st_size,
            "modified_ns": path.stat().st_mtime_ns,
            "path_bytes": None,
        }
        for path in discover(archive, tmp_path / "out")
    ]
    assert counts(summary) == (32, 0, 32)
    assert rows(tmp_path / "m.parquet") == expected
    assert pq.ParquetFile(tmp_path / "m.parquet").num_row_groups == 3
    manifest = Manifest(tmp_path / "m.parquet")
    assert manifest.root == str(archive)
    assert len(manifest) == 32
    assert [Path(file.location) for file in manifest] == list(discover(archive, tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "m.parquet"], "no parts are left"


def test_only_what_changed_is_read_again(archive: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "m.parquet"
    write_index(archive, manifest)
    assert counts(write_index(archive, manifest)) == (32, 0, 0)
    (archive / "0/a0/00.dcm").write_bytes(b"another content")
    os.utime(archive / "first.png", ns=(1, 1))
    (archive / "0/a0/12.dcm").unlink()
    for number in range(9):
        (archive / f"0/a0/new{number}.dcm").write_bytes(b"new")
    assert counts(write_index(archive, manifest)) == (40, 0, 11)
    shutil.rmtree(tmp_path / "fresh", ignore_errors=True)
    write_index(archive, tmp_path / "fresh.parquet")
    assert rows(manifest) == rows(tmp_path / "fresh.parquet")


@pytest.mark.parametrize("changes", [False, True])
def test_an_interrupted_index_goes_on(archive: Path, tmp_path: Path, changes: bool) -> None:
    def interrupt(files: int) -> None:
        if files == 20:
            raise KeyboardInterrupt

    manifest = tmp_path / "m.parquet"
    with pytest.raises(KeyboardInterrupt):
        write_index(archive, manifest, progress=interrupt)
    assert not manifest.exists()
    if changes:
        for number in range(9):
            (archive / f"0/a0/new{number}.dcm").write_bytes(b"new")
        (archive / "first.png").unlink()
    summary = write_index(archive, manifest)
    write_index(archive, tmp_path / "fresh.parquet")
    assert rows(manifest) == rows(tmp_path / "fresh.parquet")
    if changes:
        assert 12 + 9 <= summary.hashed < 40, "what the new files pushed out of its part is read again"
    else:
        assert summary.hashed == 12


def test_files_that_cannot_be_read_have_no_id(archive: Path, tmp_path: Path) -> None:
    (archive / "dangling.png").symlink_to(tmp_path / "nowhere")
    with (archive / "huge.dcm").open("wb") as file:
        file.truncate(2**30)
    finished = CliRunner().invoke(main, ["index", str(archive), "--output", str(tmp_path / "m.parquet")])
    assert finished.exit_code == 1, finished.output
    assert "34 files in" in finished.stdout
    assert "2 files cannot be read" in finished.stderr
    assert [row["path"] for row in rows(tmp_path / "m.parquet") if row["image_id"] is None] == [
        "dangling.png",
        "huge.dcm",
    ]


def test_names_that_are_no_utf8(archive: Path, tmp_path: Path) -> None:
    """They are listed as a run over the directory names them, found again, and told from each other."""
    odd = archive / os.fsdecode(b"b\xe9\xff")
    odd.mkdir()
    for name in (b"\xfc.png", b"\xfd.png", "ü.png".encode(), b"z.png"):
        (odd / os.fsdecode(name)).write_bytes(name)
    for directory in (archive, odd):  # the name of the archive itself may be such a one
        manifest = tmp_path / f"{directory == odd}.parquet"
        write_index(directory, manifest)
        found = list(Manifest(manifest))
        assert [(file.name, file.location) for file in found] == [
            (file.name, file.location) for file in Directory(directory, tmp_path / "out")
        ]
        assert all(image_id(read_file(file.location)) == file.image_id for file in found)
        assert Manifest(manifest).root == str(directory)
        assert counts(write_index(directory, manifest))[2] == 0, "nothing changed"
    with pytest.raises(InputError, match="expected names in UTF-8 behind a URL"):
        write_index(f"file://{archive}", tmp_path / "url.parquet")
    named = {row["path"]: row["path_bytes"] for row in rows(tmp_path / "True.parquet")}
    assert named == {"\\xfc.png": b"\xfc.png", "\\xfd.png": b"\xfd.png", "ü.png": None, "z.png": None}


def test_a_manifest_inside_the_archive_is_no_radiograph(archive: Path) -> None:
    for _ in range(2):
        assert counts(write_index(archive, archive / "m.parquet"))[0] == 32


def test_other_files_are_not_overwritten(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends in \.parquet"):
        write_index(archive, tmp_path / "m.csv")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    write_index(archive / "1", tmp_path / "one.parquet")
    for name in ("other.parquet", "one.parquet"):
        with pytest.raises(InputError, match="choose another name"):
            write_index(archive, tmp_path / name)
    with pytest.raises(InputError, match="found nothing"):
        write_index(tmp_path / "absent", tmp_path / "m.parquet")


def test_an_archive_behind_a_url_gives_the_same_manifest(archive: Path, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(archive), "/hospital", recursive=True)
    try:
        write_index(archive, tmp_path / "local.parquet")
        for number, url in enumerate((f"file://{archive}", "fsspec+memory://hospital/")):
            assert counts(write_index(url, tmp_path / f"{number}.parquet")) == (32, 0, 32)
            expected, found = rows(tmp_path / "local.parquet"), rows(tmp_path / f"{number}.parquet")
            assert [(row["path"], row["image_id"]) for row in found] == [(r["path"], r["image_id"]) for r in expected]
            assert Manifest(tmp_path / f"{number}.parquet").root == url
    finally:
        memory.rm("/hospital", recursive=True)
    with pytest.raises(InputError, match="cannot be listed"):
        write_index(f"file://{tmp_path}/absent", tmp_path / "absent.parquet")
    with pytest.raises(InputError, match="no password") as caught:
        write_index("s3://key:secret@bucket/", tmp_path / "secret.parquet")
    assert "secret@" not in json.dumps(str(caught.value))
