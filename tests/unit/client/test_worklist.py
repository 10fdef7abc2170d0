"""Sources, worklists and plans."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crosseai.client.cluster.plan import SHARDS, attempt, read_shard, shard_rows, write_plan
from crosseai.client.explain import ExplainByName
from crosseai.client.records.journal import Entry, Journal
from crosseai.client.sources.source import Directory, Manifest, open_source
from crosseai.client.sources.storage import ImageFile
from crosseai.client.sources.worklist import Worklist
from crosseai.contract import ImageFailure, ImageResult, InputError, OutputError


def manifest(folder: Path, paths: list[str | None], **columns: list) -> Path:
    pq.write_table(pa.table({"path": pa.array(paths, pa.string()), **columns}), folder / "m.parquet")
    return folder / "m.parquet"


def result(path: str, image_id: str) -> ImageResult:
    return ImageResult(image_id, path, 1, 1, "7", {}, {})


def test_a_manifest_made_by_hand(tmp_path: Path) -> None:
    """Paths are relative to its own folder, absolute, or URLs; without hashes."""
    source = open_source(manifest(tmp_path, ["a.png", "/b.png", "s3://c/d.png"]), tmp_path / "out")
    assert source.root == str(tmp_path)
    assert list(source) == [
        ImageFile("a.png", str(tmp_path / "a.png")),
        ImageFile("/b.png", "/b.png"),
        ImageFile("s3://c/d.png", "s3://c/d.png"),
    ]


def test_what_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("text")
    for name in ("absent.parquet", "text.parquet"):
        with pytest.raises(InputError, match="expected a Parquet file"):
            open_source(tmp_path / name, tmp_path)
    pq.write_table(pa.table({"file": ["a"]}), tmp_path / "columns.parquet")
    with pytest.raises(InputError, match="expected a column 'path' of strings, found file"):
        open_source(tmp_path / "columns.parquet", tmp_path)
    with pytest.raises(InputError, match="crosseai-client index"):
        open_source("s3://bucket/folder", tmp_path)
    with pytest.raises(InputError, match="a path in every row"):
        list(Manifest(manifest(tmp_path, ["a", None])))


@pytest.mark.parametrize("retry_failed", [False, True])
def test_what_is_left_to_do(tmp_path: Path, retry_failed: bool) -> None:
    journal = Journal(tmp_path / "journal")
    journal.append([Entry(result("a", "1")), Entry(ImageFailure("b", "E", "m", "read"))])
    journal.append([Entry(result("gone", "2")), Entry(result("e", "3"))])
    source = Manifest(manifest(tmp_path, list("abcde")))
    work = Worklist(source, Journal(tmp_path / "journal"), retry_failed=retry_failed)
    assert [file.name for file in work.files()] == (["b", "c", "d"] if retry_failed else ["c", "d"])
    assert (work.total, work.done) == (5, 2 if retry_failed else 3)
    assert "b" in work.failed
    moved = work.moved(ExplainByName(lambda _: ()))
    assert set(moved.results) == {"2"}
    assert moved("2", "c").path == "gone"
    assert moved("1", "c") is None


def test_a_plan_holds_every_file_once(tmp_path: Path) -> None:
    files = [ImageFile(f"{n}.png", os.fsdecode(b"/data/\xff%d" % n), None if n % 2 else f"{n:032x}") for n in range(11)]
    plan = tmp_path / "plan.parquet"
    assert write_plan(iter(files), plan, 4) == 3
    assert [read_shard(plan, number) for number in range(3)] == [files[:4], files[4:8], files[8:]]
    assert write_plan(iter(()), plan, 4) == 0
    plan.unlink()
    with pytest.raises(OutputError, match="every worker sees"):
        read_shard(plan, 0)


def test_shards_are_whole_groups_and_not_too_many() -> None:
    assert shard_rows(0, 64) == shard_rows(1000, 64) == 64
    rows = shard_rows(10_000_000, 64)
    assert rows % 64 == 0
    assert SHARDS / 2 < 10_000_000 / rows <= SHARDS


def test_attempts_that_did_not_end_are_counted(tmp_path: Path) -> None:
    plan = tmp_path / "plan.parquet"
    write_plan(iter(()), plan, 4)
    killed = [attempt(plan, 5) for _ in range(2)]  # never left, as by a process that is killed
    assert [context.__enter__() for context in killed] == [0, 1]
    with attempt(plan, 5) as earlier:
        assert earlier == 2
    with attempt(plan, 5) as earlier:
        assert earlier == 0, "an attempt that ended"


def test_a_directory_counts_its_files(tmp_path: Path) -> None:
    for name in ("a.png", "b/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    source = Directory(tmp_path, tmp_path / "out")
    assert len(source) == 2
    assert list(source)[1] == ImageFile("b/c.png", str(tmp_path / "b/c.png"))
