"""Prometheus' configuration, rules and dashboard, by Prometheus' own tool."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.stats import binom

from tests.deployed import DEPLOY, Json, read_yaml

MONITORING = DEPLOY / "monitoring"
needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")


def promtool(*arguments: object) -> str:
    finished = subprocess.run(["promtool", *map(str, arguments)], check=False, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def rules() -> list[Json]:
    (document,) = read_yaml(MONITORING / "rules.yml")
    return [rule for group in document["groups"] for rule in group["rules"]]


def dashboard() -> Json:
    return json.loads((MONITORING / "grafana/crosseai.json").read_text(encoding="utf-8"))


@needs_promtool
def test_the_configuration_and_its_rules():
    assert "SUCCESS: 1 rule files found" in promtool("check", "config", MONITORING / "prometheus.yml")


@needs_promtool
def test_what_the_rules_say_of_made_up_series():
    promtool("test", "rules", Path(__file__).with_name("rules_test.yml"))


@needs_promtool
def test_every_expression_of_the_dashboard_parses(tmp_path):
    """As rules, which promtool parses; the variable as one of its values."""
    expressions = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    recorded = [{"record": f"panel:{n}", "expr": e.replace("$disease", "Mass")} for n, e in enumerate(expressions)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    assert f"SUCCESS: {len(expressions)} rules found" in promtool("check", "rules", tmp_path / "rules.yml")


def test_the_dashboard_shows_what_was_asked_for():
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    shown = " ".join(target["expr"] for panel in panels for target in panel["targets"])
    for series in (
        "crosseai_images_scored_total",
        "crosseai_failures_total",
        "crosseai:queue_seconds:mean2m",
        "crosseai:positive_rate:ratio1d",
        "crosseai:expected_positive_rate:max1d",
        "nv_inference_compute_infer_duration_us",
        "nv_inference_request_failure",
    ):
        assert series in shown
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert set(re.findall(r"crosseai:\w+:\w+", shown)) <= recorded


def test_every_alert_says_what_to_do():
    alerts = [rule for rule in rules() if "alert" in rule]
    assert len({rule["alert"] for rule in alerts}) == len(alerts) >= 6
    for rule in alerts:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]


def test_grafana_finds_data_and_dashboard():
    (source,), (dashboards,) = (read_yaml(MONITORING / f"grafana/{name}.yml") for name in ("datasource", "dashboards"))
    (compose,) = read_yaml(DEPLOY / "compose.yaml")
    host, port = re.fullmatch(r"http://(\w+):(\d+)", source["datasources"][0]["url"]).groups()
    assert compose["services"][host]["ports"] == [f"127.0.0.1:{port}:{port}"]
    folder = dashboards["providers"][0]["options"]["path"]
    mounted = [volume.split(":") for volume in compose["services"]["grafana"]["volumes"]]
    assert ["./monitoring/grafana/crosseai.json", f"{folder}/crosseai.json", "ro"] in mounted


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.03, 0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("variance", [25, 30, 60, 300])
def test_chance_alone_rarely_looks_like_drift(rate, variance):
    """The alert's condition, and what its comment claims, by the exact binomial distribution."""
    (alert,) = (rule for rule in rules() if rule.get("alert") == "CrossEAIPositiveRateDrift")
    for part in ("abs(crosseai:positive_rate:z1d) > 4", "variance:increase1d >= 25", "> 1.5 *", "1.5 * crosseai"):
        assert part in alert["expr"]
    images = int(np.ceil(variance / (rate * (1 - rate))))
    calls = np.arange(images + 1)
    z = (calls / images - rate) / np.sqrt(rate * (1 - rate) / images)
    alarming = (abs(z) > 4) & ((calls > 1.5 * rate * images) | (1.5 * calls < rate * images))
    assert binom.pmf(calls[alarming], images, rate).sum() < 2e-4
    assert z[0] <= -5 + 1e-9
