"""Runs on a Ray cluster of this machine, against the real embedded Triton."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from crosseai.client import score_directory
from crosseai.client.cluster.plan import attempt, write_plan
from crosseai.client.cluster.worker import Assignment, Worker
from crosseai.client.explain import ExplainByName
from crosseai.client.outputs import Outputs
from crosseai.client.pipeline import GROUP_BATCHES
from crosseai.client.recipe import Recipe
from crosseai.client.records.journal import Entry, from_line
from crosseai.client.servers.embedded import embedded_server
from crosseai.client.servers.fleet import Fleet
from crosseai.client.sources.index import write_index
from crosseai.client.sources.source import Directory
from crosseai.contract import ImageResult, InputError, ModelSpec
from crosseai.imaging import DEFAULT_POLICY
from tests.integration.test_nothing_lost import write_images
from tests.tiny_model import write_tiny_model

pytest.importorskip("ray", reason="Ray is not installed")

RUN = (sys.executable, "-m", "crosseai.client.cli", "run")
COUNT, BATCH = 1000, 2
GROUPS = COUNT // (GROUP_BATCHES * BATCH)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of images, some of them broken, one changed since it was listed and one gone."""
    folder = tmp_path_factory.mktemp("archive")
    images = write_images(folder / "images", COUNT)
    for number in range(0, COUNT, 37):
        (images / f"{number:04d}.png").write_bytes(b"broken")
    write_index(images, folder / "m.parquet")
    shutil.copy(images / "0001.png", images / "0002.png")
    (images / "0003.png").unlink()
    return folder / "m.parquet"


@pytest.fixture(scope="module")
def expected(manifest: Path, tiny_server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a local run gives."""
    output = tmp_path_factory.mktemp("local")
    score_directory(manifest, output, server=tiny_server, explain="top:1", batch_size=BATCH)
    return output


def rows(output: Path, table: str) -> list[dict]:
    found = pq.read_table(output / f"{table}.parquet").to_pylist()
    paths = {row["image_id"]: row["path"] for row in pq.read_table(output / "predictions.parquet").to_pylist()}
    return sorted(found, key=lambda row: (paths[row["image_id"]], row.get("path"), row.get("disease")))


def errors(output: Path) -> list[dict]:
    return sorted(map(json.loads, (output / "errors.jsonl").read_text().splitlines()), key=lambda row: row["path"])


def assert_same_outcomes(output: Path, expected: Path) -> None:
    """Row by row, but for the last bits of numbers, which depend on the images that share a batch."""
    assert errors(output) == errors(expected)
    for table in ("predictions", "boxes"):
        found, wanted = rows(output, table), rows(expected, table)
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert one == {
                name: pytest.approx(value, rel=1e-4) if isinstance(value, float) else value
                for name, value in other.items()
            }


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Home and folder for temporary files of a run; its name is short, as Ray makes sockets in it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def start(source: Path, output: Path, server: str, scratch: Path, *options: str) -> "subprocess.Popen[str]":
    command = [*RUN, source, "--output", output, "--server", server, "--explain", "top:1", "--batch-size", BATCH]
    return subprocess.Popen(
        [*map(str, command), "--engine", "ray", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(scratch), "HOME": str(scratch)},
    )


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def shards(output: Path) -> int:
    return len(list(output.glob(".journal/*.jsonl")))


def workers(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "MapWorker" in " ".join(child.cmdline())]


def test_a_manifest_scored_locally(expected: Path) -> None:
    """The file that changed since it was indexed fails, and so does the one that is gone."""
    failed = {row["path"]: row for row in errors(expected)}
    assert len(rows(expected, "predictions")) == COUNT - len(failed)
    assert failed.keys() == {f"{number:04d}.png" for number in (*range(0, COUNT, 37), 2, 3)}
    assert "expected the content that was indexed" in failed["0002.png"]["message"]
    assert "expected a regular file" in failed["0003.png"]["message"]
    assert {row["stage"] for row in failed.values()} == {"read"}


def test_a_worker_is_killed(manifest: Path, expected: Path, tiny_server: str, scratch: Path, tmp_path: Path) -> None:
    """Outcomes, exit status and files are those of a local run; the command leaves no process and no folder behind."""
    process = start(manifest, tmp_path / "out", tiny_server, scratch, "--write", "overlay")
    wait_for(lambda: shards(tmp_path / "out") > 0, process)
    tree = psutil.Process(process.pid).children(recursive=True)
    workers(process)[0].kill()
    assert shards(tmp_path / "out") < GROUPS
    stdout, stderr = process.communicate(timeout=180)
    assert process.returncode == 1, stderr
    assert_same_outcomes(tmp_path / "out", expected)
    assert f"{len(rows(expected, 'predictions'))} scored" in stdout
    pictures = {path.stem for path in (tmp_path / "out/overlays").glob("[!.]*.png")}  # a killed writer leaves .partial
    assert pictures == {row["image_id"] for row in rows(expected, "predictions")}
    manifest_of_run = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest_of_run["status"] == "complete"
    _, alive = psutil.wait_procs(tree, timeout=30)
    assert not alive
    assert not list(scratch.iterdir())


def test_a_file_that_kills_its_workers_fails_alone(
    tiny_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard that two workers died of, and an OpenCV that dies of one of its images."""
    images = write_images(tmp_path / "images", 5)
    with (images / "0002.png").open("ab") as file:
        file.write(b"deadly")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import os, signal, cv2\n"
        "decode = cv2.imdecode\n"
        "def imdecode(content, flags):\n"
        "    if bytes(content[-6:]) == b'deadly':\n"
        "        os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    return decode(content, flags)\n"
        "cv2.imdecode = imdecode\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))  # for child processes
    recipe = Recipe(
        folder=tmp_path,
        explain=ExplainByName(lambda _: ()),
        boxes=ModelSpec().boxes,
        outputs=Outputs(),
        reading=DEFAULT_POLICY,
        batch_size=BATCH,
        earlier=lambda *_: None,
    )
    assignment = Assignment(
        plan=tmp_path / "plan.parquet",
        recipe=recipe,
        fleet=Fleet(servers=tiny_server),
        version="1",
        wait_s=0,
        in_flight=1,
        decoders=1,
    )
    write_plan(iter(Directory(images, tmp_path)), assignment.plan, 5)
    died = [attempt(assignment.plan, 0) for _ in range(2)]
    assert [context.__enter__() for context in died] == [0, 1]

    async def score() -> list[Entry]:
        async with Worker(assignment) as worker:
            table = await worker({"item": np.array([0])})
        return [from_line(line) for group in table.to_pylist() for line in group["lines"]]

    failed, *others = [entry.record for entry in asyncio.run(score())]
    assert (failed.path, failed.stage) == ("0002.png", "read")
    assert "ends the process" in failed.message
    assert [record.path for record in others] == ["0000.png", "0001.png", "0003.png", "0004.png"]
    assert {type(record) for record in others} == {ImageResult}


def test_the_driver_is_killed_and_started_again(
    manifest: Path, expected: Path, tiny_server: str, scratch: Path, tmp_path: Path
) -> None:
    """What was recorded is not scored again, by Ray or here, and nothing is lost."""
    output = tmp_path / "out"
    process = start(manifest, output, tiny_server, scratch)
    wait_for(lambda: shards(output) > 1, process)
    working = workers(process)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(working, timeout=60)
    assert not alive, "workers end with the driver; Ray's agents look for it for another minute"
    assert shards(output) < GROUPS
    again = start(manifest, output, tiny_server, scratch)
    _, stderr = again.communicate(timeout=180)
    assert again.returncode == 1, stderr
    assert_same_outcomes(output, expected)
    lines = [json.loads(line) for part in output.glob(".journal/*.jsonl") for line in part.read_text().splitlines()]
    assert len({line["path"] for line in lines}) == len(lines) == COUNT
    assert score_directory(manifest, output, server=tiny_server, explain="top:1", batch_size=BATCH).scored_now == 0, (
        "the engine is no part of the configuration"
    )


def test_interrupted(manifest: Path, tiny_server: str, scratch: Path, tmp_path: Path) -> None:
    """SIGTERM leaves tables of what was scored, and no process."""
    output = tmp_path / "out"
    process = start(manifest, output, tiny_server, scratch)
    wait_for(lambda: shards(output) > 0, process)
    tree = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "the same command continues" in stderr
    assert 0 < len(rows(output, "predictions")) < COUNT
    assert json.loads((output / "manifest.json").read_text())["status"] == "partial"
    _, alive = psutil.wait_procs(tree, timeout=30)
    assert not alive
    assert not list(scratch.iterdir())


def test_the_servers_are_gone(manifest: Path, expected: Path, tiny_server: str, scratch: Path, tmp_path: Path) -> None:
    """Longer than the run waits for them: it ends as a local one does, and goes on with other servers."""
    output = tmp_path / "out"
    with embedded_server(str(write_tiny_model(tmp_path / "model"))) as server:
        process = start(manifest, output, server, scratch, "--wait", "1")
        wait_for(lambda: shards(output) > 0, process)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 3, stderr
    assert "server: " in stderr
    assert "the same command continues" in stderr
    before = len(rows(output, "predictions"))
    assert 0 < before < COUNT
    assert not errors(output) or {row["stage"] for row in errors(output)} == {"read"}, (
        "a server's absence fails no file"
    )
    summary = score_directory(manifest, output, server=tiny_server, explain="top:1", batch_size=BATCH)
    assert 0 < summary.scored_now <= COUNT - before
    assert_same_outcomes(output, expected)


def test_arguments_that_do_not_go_together(manifest: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"ray_address": "auto"}, "engine 'ray'"),
        ({"engine": "ray", "ray_address": "auto"}, "no cluster reaches an embedded one"),
    ):
        with pytest.raises(InputError, match=message):
            score_directory(manifest, tmp_path / "out", **options)
