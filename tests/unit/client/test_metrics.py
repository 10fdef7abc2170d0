"""What Prometheus is told, read back by its own parser."""

import socket
import urllib.request
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from crosseai.client.meter import Meter
from crosseai.client.metrics import metrics
from crosseai.client.run import Progress
from crosseai.client.servers.transport import ServedModel
from crosseai.contract import ImageFailure, ImageResult, InputError, ModelSpec

SPEC = ModelSpec(classes=("Mass", "Nodule"), positive_rates=(0.25, 0.5))
PROGRESS = Progress(
    done=7,
    total=10,
    scored=5,
    positive={"Mass": 2},
    failures={"read": 1},
    servers_up=1,
    servers=2,
    model=ServedModel(SPEC, "3", "ab" * 32, 8),
    stage_seconds={"decode": 1.5},
)


def samples(port: int) -> dict[tuple[str, ...], float]:
    """Values by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    assert all(family.documentation for family in families)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_every_series_is_there_from_the_start(port):
    with metrics(port) as show:
        assert samples(port) == {}
        show(PROGRESS)
        assert samples(port) == {
            ("crosseai_files",): 10,
            ("crosseai_files_done",): 7,
            ("crosseai_servers",): 2,
            ("crosseai_servers_up",): 1,
            ("crosseai_stage_seconds_total", "decode"): 1.5,
            ("crosseai_failures_total", "read"): 1,
            ("crosseai_failures_total", "preprocess"): 0,
            ("crosseai_failures_total", "infer"): 0,
            ("crosseai_failures_total", "write"): 0,
            ("crosseai_images_scored_total", "3"): 5,
            ("crosseai_positive_calls_total", "Mass", "3"): 2,
            ("crosseai_positive_calls_total", "Nodule", "3"): 0,
            ("crosseai_expected_positive_rate", "Mass", "3"): 0.25,
            ("crosseai_expected_positive_rate", "Nodule", "3"): 0.5,
        }


def test_no_rate_is_expected_where_none_is_known(port):
    unknown = replace(PROGRESS, model=ServedModel(replace(SPEC, positive_rates=()), "3", "ab" * 32, 8))
    with metrics(port) as show:
        show(unknown)
        found = samples(port)
    assert ("crosseai_positive_calls_total", "Nodule", "3") in found
    assert not [key for key in found if key[0] == "crosseai_expected_positive_rate"]


def test_the_meter_counts_outcomes():
    meter = Meter()
    for mass, nodule in ((True, False), (True, True), (False, False)):
        calls = {"Mass": mass, "Nodule": nodule}
        meter.count(ImageResult("id", "a.png", 9, 9, "3", {"Mass": 0.5, "Nodule": 0.5}, calls))
    meter.count(ImageFailure("b.png", "InputError", "expected an image", "preprocess"))
    assert (meter.scored, meter.positive, meter.failures) == (3, {"Mass": 2, "Nodule": 1}, {"preprocess": 1})


def test_the_port_is_free_afterwards_and_a_taken_one_is_an_error(port):
    for _ in range(2):
        with (
            metrics(port),
            pytest.raises(InputError, match=f"127.0.0.1:{port}: cannot be listened on: Address already"),
        ):
            metrics(port).__enter__()
    with metrics(None) as show:
        show(PROGRESS)
