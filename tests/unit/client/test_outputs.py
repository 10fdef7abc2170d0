import json
import os
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from crosseai.client.records import journal as journal_module
from crosseai.client.records.files import atomic_path
from crosseai.client.records.journal import Entry, Journal
from crosseai.client.records.manifest import check_same_configuration, read_history, this_run, write_manifest
from crosseai.client.records.tables import write_tables
from crosseai.client.sources.names import NameSet
from crosseai.client.sources.source import Directory
from crosseai.client.sources.worklist import Worklist
from crosseai.contract import (
    RESEARCH_NOTICE,
    BoxParameters,
    Finding,
    ImageFailure,
    ImageResult,
    InputError,
    ModelIdentity,
    ModelSpec,
    OutputError,
)

SPEC = ModelSpec(classes=("Mass", "Nodule"))
MODEL = ModelIdentity("crosseai", "3", "ab" * 32)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FAILED = ImageFailure("b\n.dcm", "UnreadableImageError", "expected a radiograph", "read")


def result(path: str) -> ImageResult:
    found = Finding("Mass", 0.75, box_image_px=(1, 2, 30, 40), box_model_px=(0, 1, 15, 20), score=99.5)
    return ImageResult(
        image_id="0" * 32,
        path=path,
        width=100,
        height=200,
        model_version="3",
        probabilities={"Mass": 0.75, "Nodule": 0.5},
        positive={"Mass": True, "Nodule": False},
        findings=(found, Finding("Nodule", 0.5)),
    )


def names(known: NameSet) -> set[str]:
    """Those of a few that the set holds, which are all."""
    found = {name for name in ("a.png", "c.png", "moved.png", FAILED.path) if name in known}
    assert len(found) == len(known)
    return found


def entries(*records: ImageResult | ImageFailure) -> list[Entry]:
    return [Entry(record) for record in records]


def test_journal_gives_back_what_was_appended(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(entries(result("a.png"), FAILED))
    journal.append(entries(result("c.png")))
    for opened in (journal, Journal(tmp_path)):
        assert list(opened.shards()) == [[result("a.png"), FAILED], [result("c.png")]]
    assert names(opened.finished) == {"a.png", "c.png", FAILED.path}
    assert names(opened.failed) == {FAILED.path}


def test_only_the_last_outcome_of_a_file_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(entries(result("a.png"), FAILED))
    journal.append([Entry(FAILED, replaces=FAILED.path)])
    journal.append([Entry(result(FAILED.path), replaces=FAILED.path), Entry(result("moved.png"), replaces="a.png")])
    journal.append(entries(result("a.png")))
    for opened in (journal, Journal(tmp_path)):
        assert list(opened.shards()) == [[], [], [result(FAILED.path), result("moved.png")], [result("a.png")]]
    assert names(opened.finished) == {"a.png", "moved.png", FAILED.path}
    assert names(opened.failed) == set()


@pytest.mark.parametrize("together", [1, 2, 3, 64])
def test_names_of_finished_files_are_those_of_the_outcomes_that_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    """Where outcomes replace others at random, and where Arrow cannot read a shard: a lone surrogate is no text."""
    monkeypatch.setattr(journal_module, "TOGETHER", together)
    rng, journal = random.Random(together), Journal(tmp_path)
    for shard in range(20):
        chosen = [(f"{rng.randrange(12)}.png", rng.random() < 0.5, rng.random() < 0.5) for _ in range(rng.randrange(4))]
        reason = "\udcff" if shard == 7 else "none"
        journal.append(
            [
                Entry(result(path) if scored else replace(FAILED, path=path, message=reason), path if again else None)
                for path, scored, again in chosen
            ]
        )
    opened = Journal(tmp_path)
    counting = [record for shard in opened.shards() for record in shard]
    assert counting == [record for shard in journal.shards() for record in shard]
    listed = {f"{number}.png" for number in range(12)}
    assert {name for name in listed if name in opened.finished} == {record.path for record in counting}
    assert len(opened.finished) == len(counting)
    failed = [record.path for record in counting if isinstance(record, ImageFailure)]
    assert {name for name in listed if name in opened.failed} == set(failed)
    assert {name for name in listed if name in opened.finished.without(opened.failed)} == {
        record.path for record in counting
    } - set(failed)


def test_opening_a_journal_reads_every_shard_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    for number in range(130):
        journal.append(entries(result(f"{number}.png"), replace(FAILED, path=f"{number}.txt")))
    opened, read_bytes = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (opened.append(path), read_bytes(path))[1])
    work = Worklist(Directory(tmp_path, tmp_path / "out"), Journal(tmp_path), retry_failed=False)
    assert (len(work.finished), len(work.failed)) == (260, 130)
    assert len(opened) == len(set(opened)) == 130


def test_a_killed_write_is_no_shard(tmp_path: Path) -> None:
    (tmp_path / ".000000.jsonl.1234abcd.partial").write_text('{"scored": tr')
    assert list(Journal(tmp_path).shards()) == []
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "000000.jsonl").write_text('{"scored": tr')
    with pytest.raises(OutputError, match=r"000000\.jsonl"):
        Journal(tmp_path)


def test_tables(tmp_path: Path) -> None:
    warned = replace(result("c.png"), warnings=("burned-in annotation", "unknown view"))
    counts = write_tables(tmp_path, [[result("a.png"), FAILED], [warned]], SPEC, MODEL, BoxParameters())
    assert (counts.scored, counts.failed, counts.boxes) == (2, 1, 2)
    assert counts.positive == {"Mass": 2, "Nodule": 0}
    assert counts.warned == {"burned-in annotation": 1, "unknown view": 1}
    predictions = pq.read_table(tmp_path / "predictions.parquet")
    assert predictions.column_names == [
        *("image_id", "path", "width", "height", "model_version"),
        *("p_Mass", "p_Nodule", "positive_Mass", "positive_Nodule", "warnings"),
    ]
    assert predictions["warnings"].to_pylist() == ["", "burned-in annotation; unknown view"]
    assert predictions["path"].to_pylist() == ["a.png", "c.png"]
    boxes = pq.read_table(tmp_path / "boxes.parquet")
    assert boxes.to_pylist()[0] == {
        "image_id": "0" * 32,
        "disease": "Mass",
        "probability": 0.75,
        "x0": 1,
        "y0": 2,
        "x1": 30,
        "y1": 40,
        "score": 99.5,
        "t": pytest.approx(0.3),
        "threshold": pytest.approx(0.35),
    }
    for schema in (predictions.schema, boxes.schema):
        told = {key.decode(): value.decode() for key, value in schema.metadata.items()}
        assert (told["schema_version"], told["preset"]) == ("1", "crosseai")
        assert (told["model"], told["model_version"], told["model_sha256"]) == ("crosseai", "3", "ab" * 32)
        assert told["notice"] == RESEARCH_NOTICE
    assert boxes.schema.field("x0").metadata == {
        b"meaning": b"left edge", b"unit": b"px", b"frame": b"original image px",
    }  # fmt: skip
    for name in ("predictions", "boxes"):
        text = pa_csv.read_csv(tmp_path / f"{name}.csv")
        assert text.column_names == pq.read_table(tmp_path / f"{name}.parquet").column_names
        assert text.num_rows == 2
    (line,) = (tmp_path / "errors.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "path": "b\n.dcm",
        "error": "UnreadableImageError",
        "message": "expected a radiograph",
        "stage": "read",
    }


def test_an_empty_run_has_empty_tables(tmp_path: Path) -> None:
    write_tables(tmp_path, [], SPEC, MODEL, BoxParameters())
    assert pq.read_table(tmp_path / "predictions.parquet").num_rows == 0
    assert (tmp_path / "errors.jsonl").read_text() == ""


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "table"
    file.write_text("old")
    with pytest.raises(OutputError, match="No space left"), atomic_path(file) as partial:
        partial.write_text("half")
        raise OSError(28, os.strerror(28))
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    write_text = Path.write_text
    monkeypatch.setattr(Path, "write_text", lambda _, *rest, **kwargs: write_text(Path("/dev/full"), *rest, **kwargs))
    with pytest.raises(OutputError, match="No space left"):
        journal.append(entries(FAILED))
    monkeypatch.undo()
    journal.append(entries(FAILED))
    assert list(Journal(tmp_path).shards()) == [[FAILED]]


def test_manifest_adds_runs_up(tmp_path: Path) -> None:
    assert read_history(tmp_path) == ({}, [])
    runs = [this_run(NOON, 1.5, 2), this_run(NOON + timedelta(days=1), 2.25, 3)]
    write_manifest(tmp_path, status="partial", configuration={}, counts={"scored": 5}, runs=runs)
    times = json.loads((tmp_path / "manifest.json").read_text())["times"]
    assert times == {"started": NOON.isoformat(), "seconds": 3.75}
    assert read_history(tmp_path) == ({"scored": 5}, runs)


def test_manifest_tells_what_changed(tmp_path: Path) -> None:
    configuration = {"spec": {"classes": ("Mass",)}, "explain": "all"}
    check_same_configuration(tmp_path, configuration)
    write_manifest(tmp_path, status="complete", configuration=configuration, counts={}, runs=[this_run(NOON, 1, 2)])
    check_same_configuration(tmp_path, configuration)
    with pytest.raises(InputError, match=r"explain: 'all' -> 'none'") as refusal:
        check_same_configuration(tmp_path, configuration | {"explain": "none"})
    assert "spec" not in str(refusal.value)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="expected the manifest of a run"):
        check_same_configuration(tmp_path, configuration)
