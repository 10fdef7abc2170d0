"""Runs that are killed, continued, repeated and changed, against the real embedded Triton."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from crosseai.client import RunSummary, score_directory
from crosseai.contract import InputError

RUN = (sys.executable, "-m", "crosseai.client.cli", "run")
TABLES = ("predictions.parquet", "predictions.csv", "boxes.parquet", "boxes.csv", "errors.jsonl")
KILLS = 8


def write_images(folder: Path, count: int, *, first: int = 0) -> Path:
    """Small images of noise, each different."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        noise = np.random.default_rng(number).integers(0, 256, (40, 48), np.uint8)
        cv2.imwrite(str(folder / f"{number:04d}.png"), noise)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", 10)


def rows(output: Path, table: str = "predictions") -> list[dict]:
    return pq.read_table(output / f"{table}.parquet").to_pylist()


def paths(output: Path) -> list[str]:
    return [row["path"] for row in rows(output)]


def failed(output: Path) -> list[str]:
    return [json.loads(line)["path"] for line in (output / "errors.jsonl").read_text().splitlines()]


def score(server: str, images: Path, output: Path, **options) -> RunSummary:
    return score_directory(images, output, server=server, **{"explain": "top:1", "wait_s": 5, **options})


def test_killed_at_random_points_and_continued(tiny_server: str, tmp_path: Path) -> None:
    """The tables are those of an uninterrupted run byte by byte, and so is the manifest but for its times."""
    images = write_images(tmp_path / "images", 700)
    for number in range(0, 700, 37):
        (images / f"{number:04d}.png").write_bytes(b"broken")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [*map(str, (*RUN, images, "--server", tiny_server, "--explain", "positive", "--wait", 5, "--output"))]
    rng, caught = random.Random(1), 0
    for _ in range(KILLS):
        process = subprocess.Popen([*command, str(killed)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = len(list(killed.glob(".journal/*.jsonl")))
        deadline = time.monotonic() + 60
        while len(list(killed.glob(".journal/*.jsonl"))) == before and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        caught += process.wait() == -signal.SIGKILL
    assert caught >= KILLS // 2
    for output in (killed, whole):
        assert subprocess.run([*command, str(output)], check=False, capture_output=True).returncode == 1
    assert len(paths(whole)) + len(failed(whole)) == len({*paths(whole), *failed(whole)}) == 700
    assert rows(whole, "boxes")
    for table in TABLES:
        assert (killed / table).read_bytes() == (whole / table).read_bytes(), table
    manifests = [json.loads((output / "manifest.json").read_text()) for output in (killed, whole)]
    histories = [(manifest.pop("times"), manifest.pop("runs")) for manifest in manifests]
    assert manifests[0] == manifests[1]
    (_, runs), (_, (only,)) = histories
    assert len(runs) > 1
    assert only["files"] == 700


def test_failures_are_tried_again_when_asked(tiny_server: str, images: Path, tmp_path: Path) -> None:
    output, good = tmp_path / "out", (images / "0003.png").read_bytes()
    (images / "0003.png").write_bytes(good[:100])
    (images / "0005.png").write_bytes(b"")
    assert score(tiny_server, images, output).counts.failed == 2
    before = rows(output)
    (images / "0003.png").write_bytes(good)
    assert score(tiny_server, images, output).scored_now == 0
    summary = score(tiny_server, images, output, retry_failed=True)
    assert (summary.scored_now, summary.counts.scored, summary.counts.failed) == (2, 9, 1)
    assert rows(output)[:8] == before
    assert paths(output)[8:] == ["0003.png"]
    assert failed(output) == ["0005.png"]


def test_a_moved_file_is_recognised_by_its_content(tiny_server: str, images: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    score(tiny_server, images, output)
    before = {row["path"]: row for row in rows(output)}
    (images / "archive").mkdir()
    (images / "0002.png").rename(images / "archive" / "renamed.png")
    summary = score(tiny_server, images, output)
    assert (summary.scored_now, summary.counts.scored) == (1, 10)
    after = {row["path"]: row for row in rows(output)}
    expected = before.pop("0002.png") | {"path": "archive/renamed.png"}
    assert after == before | {"archive/renamed.png": expected}
    entry = json.loads((output / ".journal/000001.jsonl").read_text())
    assert entry["replaces"] == "0002.png", "the model was not asked"
    assert score(tiny_server, images, output).scored_now == 0


def test_a_copy_is_an_image_of_its_own(tiny_server: str, images: Path, tmp_path: Path) -> None:
    """While the original is there, its copy is no move: both have a row, with one image_id."""
    output = tmp_path / "out"
    shutil.copy(images / "0001.png", images / "copy within.png")
    score(tiny_server, images, output)
    shutil.copy(images / "0001.png", images / "copy later.png")
    score(tiny_server, images, output)
    found = [row for row in rows(output) if row["path"] in {"0001.png", "copy within.png", "copy later.png"}]
    assert len(rows(output)) == 12
    assert len(found) == 3
    assert len({row["image_id"] for row in found}) == 1
    np.testing.assert_allclose([row["p_Mass"] for row in found], found[0]["p_Mass"], rtol=1e-5)


def test_a_renamed_file_is_explained_by_its_new_label(tiny_server: str, images: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("Image Index,Finding Label\n0000.png,Mass\nother.png,Nodule\n")
    score(tiny_server, images, tmp_path / "out", explain=str(labels))
    (images / "0000.png").rename(images / "other.png")
    score(tiny_server, images, tmp_path / "out", explain=str(labels))
    assert {"0000.png", "other.png"} <= set(paths(tmp_path / "out"))
    assert [row["disease"] for row in rows(tmp_path / "out", "boxes")] == ["Mass", "Nodule"]


def test_a_changed_configuration_starts_beside_the_old_one(tiny_server: str, images: Path, tmp_path: Path) -> None:
    output = images / "out"
    score(tiny_server, images, output)
    with pytest.raises(InputError, match=r"--new.*\n  explain: 'top:1' -> 'top:2'$"):
        score(tiny_server, images, output, explain="top:2")
    for repeated in range(2):
        summary = score(tiny_server, images, output, explain="top:2", new=True, write=["overlay"])
        assert summary.output == images / "out-2"
        assert summary.scored_now == (0 if repeated else 10), "neither output is an input"
    assert score(tiny_server, images, output, explain="top:3", new=True).output == images / "out-3"
    assert score(tiny_server, images, output, new=True).output == output
    assert len(rows(images / "out-2")) == len(rows(output)) == 10
