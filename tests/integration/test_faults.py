"""Files and disks at their worst, against the real embedded Triton."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from crosseai.client import score_directory
from crosseai.client.run import Progress
from crosseai.client.sources.index import write_index
from tests.integration.test_nothing_lost import failed, paths, rows, write_images

RUN = (sys.executable, "-m", "crosseai.client.cli", "run")


def test_every_name_and_every_kind_of_file(tiny_server: str, tmp_path: Path) -> None:
    """A row or an entry for each; links to folders are not followed, and devices are left out."""
    images = write_images(tmp_path / "images", 5)
    odd = ["with space.png", "two\nlines.png", "quo\"te',;.png", "ünï.PNG", os.fsdecode(b"\xff\xfe.png")]
    for number, name in enumerate(odd):
        (images / f"{number:04d}.png").rename(images / name)
    (images / "empty.png").touch()
    with (images / "huge.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.truncate(2**30)
    (images / "loop.png").symlink_to(images / "loop.png")
    (images / "dangling.png").symlink_to(images / "nowhere.png")
    (images / "up").symlink_to(images)
    os.mkfifo(images / "pipe.png")
    summary = score_directory(images, tmp_path / "out", server=tiny_server, explain="top:1")
    assert (summary.counts.scored, summary.counts.failed) == (5, 4)
    assert sorted(paths(tmp_path / "out")) == sorted([*odd[:4], "\\xff\\xfe.png"])
    assert failed(tmp_path / "out") == ["dangling.png", "empty.png", "huge.png", "loop.png"]
    assert len(pq.read_table(tmp_path / "out/boxes.parquet")) > 0
    assert score_directory(images, tmp_path / "out", server=tiny_server, explain="top:1").scored_now == 0
    write_index(images, tmp_path / "m.parquet")
    score_directory(tmp_path / "m.parquet", tmp_path / "listed", server=tiny_server, explain="top:1")
    for table in ("predictions", "boxes"):
        assert by_image(tmp_path / "listed", table) == by_image(tmp_path / "out", table), "a manifest gives the same"
    assert failed(tmp_path / "listed") == failed(tmp_path / "out")


def by_image(output: Path, table: str) -> list[dict]:
    return sorted(rows(output, table), key=lambda row: row["image_id"])


def test_files_that_vanish_during_the_run(tiny_server: str, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 600)

    def progress(progress: Progress) -> None:
        if progress.done >= 64:
            (images / "0599.png").unlink(missing_ok=True)

    summary = score_directory(images, tmp_path / "out", server=tiny_server, explain="none", progress=progress)
    assert (summary.counts.scored, summary.counts.failed) == (599, 1)
    (failure,) = map(json.loads, (tmp_path / "out/errors.jsonl").read_text().splitlines())
    assert (failure["path"], failure["stage"], failure["error"]) == ("0599.png", "read", "UnreadableImageError")


def test_a_disk_that_takes_no_more(tiny_server: str, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the kernel refuses a write in the middle of a run."""
    images, output = write_images(tmp_path / "images", 200), tmp_path / "out"
    command = [*map(str, (*RUN, images, "--server", tiny_server, "--explain", "all", "--output", output))]
    stopped = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY)),
    )
    assert stopped.returncode == 1, stopped.stderr
    assert "cannot be written: File too large" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert list(output.rglob("*.partial")) == []
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert len(rows(output)) == 200
