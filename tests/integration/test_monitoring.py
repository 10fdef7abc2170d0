"""A real Prometheus with our configuration, which scrapes a real Triton and a real client."""

import json
import re
import shutil
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from crosseai.serve.embedded import EmbeddedTriton
from crosseai.serve.repository import place_version
from tests.deployed import DEPLOY
from tests.eventually import eventually
from tests.integration.test_nothing_lost import write_images
from tests.tiny_model import TINY_SPEC, write_tiny_model

pytestmark = pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed")

SPEC = replace(TINY_SPEC, positive_rates=(0.25,) * len(TINY_SPEC.classes))
MONITORING = DEPLOY / "monitoring"


@pytest.fixture(scope="module")
def ports() -> list[int]:
    """Free ports for the metrics of server and client, and for Prometheus."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(3)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]


@contextmanager
def started(*command: object) -> Iterator[None]:
    with subprocess.Popen([*map(str, command)]) as process:
        try:
            yield
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def prometheus(ports: list[int], tmp_path_factory: pytest.TempPathFactory) -> Iterator["Prometheus"]:
    """A Prometheus that has seen a client score images on a server."""
    folder = tmp_path_factory.mktemp("secret-name")
    server, client, own = ports
    place_version(folder / "models", write_tiny_model(folder / "model", SPEC), 3)
    configuration = (MONITORING / "prometheus.yml").read_text().replace("15s", "1s")
    for target, port in (("server:8002", server), ("client:9100", client)):
        assert target in configuration
        configuration = configuration.replace(target, f"127.0.0.1:{port}")
    (folder / "prometheus.yml").write_text(configuration)
    shutil.copy(MONITORING / "rules.yml", folder)
    images = write_images(folder / "images", 1)
    with ExitStack() as running:
        triton = running.enter_context(EmbeddedTriton(folder / "models", metrics_port=server))
        command = [sys.executable, "-m", "crosseai.client.cli", "run", images, "--output", folder / "out", "--watch"]
        running.enter_context(started(*command, "--server", triton.grpc_url, "--metrics-port", client))
        storage = ("--storage.tsdb.path", folder / "tsdb", "--web.listen-address", f"127.0.0.1:{own}")
        running.enter_context(started("prometheus", "--config.file", folder / "prometheus.yml", *storage))
        seen = Prometheus(own)
        eventually(lambda: seen.value("sum(crosseai_images_scored_total)") == 1)
        write_images(images, 20, first=1)
        eventually(lambda: seen.value("sum(crosseai_images_scored_total)") == 21)
        yield seen


class Prometheus:
    """Its HTTP API."""

    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, page: str, **parameters: str) -> Any:
        url = f"http://127.0.0.1:{self._port}/api/v1/{page}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        return self.get("query", query=expression)["result"]

    def value(self, expression: str) -> float | None:
        """Value of a single series; None while there is none, or nobody answers yet."""
        try:
            found = self.query(expression)
        except OSError:
            return None
        return float(found[0]["value"][1]) if found else None


def expressions() -> list[str]:
    dashboard = json.loads((MONITORING / "grafana/crosseai.json").read_text())
    return [target["expr"].replace("$disease", "Mass") for panel in dashboard["panels"] for target in panel["targets"]]


def test_every_metric_that_rules_and_dashboard_name_exists(prometheus):
    text = (MONITORING / "rules.yml").read_text() + " ".join(expressions())
    named = set(re.findall(r"\b(?:nv|crosseai)_\w+", text))
    assert {"nv_inference_queue_duration_us", "crosseai_positive_calls_total"} <= named
    assert named <= set(prometheus.get("label/__name__/values"))


def test_every_rule_is_evaluated_and_no_alert_fires(prometheus):
    def health() -> set[str]:
        groups = prometheus.get("rules")["groups"]
        return {rule["lastError"] if "lastError" in rule else rule["health"] for g in groups for rule in g["rules"]}

    eventually(lambda: health() == {"ok"})
    assert prometheus.get("alerts")["alerts"] == []


def test_every_panel_has_something_to_show(prometheus):
    for expression in expressions():
        eventually(lambda expression=expression: prometheus.query(expression) != [])


def test_the_rate_of_positive_calls_is_that_of_the_tables(prometheus):
    eventually(lambda: prometheus.query("crosseai:positive_rate:z1d") != [])
    calls = {s["metric"]["disease"]: float(s["value"][1]) for s in prometheus.query("crosseai_positive_calls_total")}
    expected = prometheus.query("crosseai:expected_positive_rate:max1d")
    assert {(s["metric"]["disease"], s["metric"]["model_version"], s["value"][1]) for s in expected} == {
        (disease, "3", "0.25") for disease in SPEC.classes
    }
    assert set(calls) == set(SPEC.classes)
    assert 0 < sum(calls.values()) < 21 * len(calls)


def test_no_label_names_a_file(prometheus):
    labels = str(prometheus.get("series", **{"match[]": '{job="crosseai-client"}'}))
    assert "model_version" in labels
    assert "png" not in labels
    assert "secret-name" not in labels
