"""Progress on standard error."""

import json
import logging
from dataclasses import replace

import pytest

from crosseai.client.display import display, say
from crosseai.client.run import Progress
from crosseai.client.servers.transport import ServedModel
from crosseai.contract import ModelSpec

BEGUN = Progress(
    done=10,
    total=40,
    scored=0,
    positive={},
    failures={},
    servers_up=1,
    servers=2,
    model=ServedModel(ModelSpec(), "1", "a" * 64, 8),
    stage_seconds={},
)
ENDED = replace(BEGUN, done=40, scored=28, failures={"read": 2})


def test_the_last_state_is_shown_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crosseai.client.display.LINE_EVERY_S", 0.0)
    with display("text") as show:
        show(BEGUN)
        show(ENDED)
        monkeypatch.setattr("crosseai.client.display.LINE_EVERY_S", 10.0)
        show(replace(ENDED, stage_seconds={"write": 1.0}))  # time passes to the end
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["10 of 40 files", "40 of 40 files"]
    assert "2 failed" in lines[1]
    assert lines[1].endswith("1 of 2 servers up")


def test_the_last_state_is_shown_even_between_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with display("json") as show:
        show(BEGUN)
        show(ENDED)
    (line,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert (line["event"], line["done"], line["total"], line["failed"], line["left_s"]) == ("progress", 40, 40, 2, 0)


def test_whatever_is_logged_or_said_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    with display("json"):
        logging.getLogger("crosseai.client").info("one")
        logging.getLogger("another").warning("two %d", 2)
        logging.getLogger("another").info("nobody asked")
    say("three", "json")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["level"], line["message"]) for line in lines] == [
        ("info", "one"),
        ("warning", "two 2"),
        ("error", "three"),
    ]
    assert {line["event"] for line in lines} == {"log"}


def test_nothing_is_shown_of_a_run_that_did_not_begin(capsys: pytest.CaptureFixture[str]) -> None:
    with display("text"):
        pass
    assert not capsys.readouterr().err
