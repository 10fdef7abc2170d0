"""Runs on a Ray cluster of several nodes, against the real embedded Triton."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from crosseai.client import score_directory
from crosseai.client.cli import main
from crosseai.client.cluster import engine
from tests.integration.test_nothing_lost import write_images
from tests.integration.test_ray import BATCH, assert_same_outcomes, shards, start, wait_for

cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed")

COUNT = 1500
NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
NOTICE_DEATH = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator["cluster_utils.Cluster"]:
    """A head and two more nodes, all on this machine."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    head = {"include_dashboard": False, "_system_config": NOTICE_DEATH}
    running = cluster_utils.Cluster(initialize_head=True, head_node_args=NODE | head)
    try:
        for _ in range(2):
            running.add_node(**NODE)
        yield running
    finally:
        running.shutdown()


def test_a_node_is_killed(cluster: "cluster_utils.Cluster", tiny_server: str, tmp_path: Path) -> None:
    """Its workers die with it; every file has its outcome once, and standard output is the summary alone."""
    images, output = write_images(tmp_path / "images", COUNT), tmp_path / "out"
    score_directory(images, tmp_path / "local", server=tiny_server, explain="top:1", batch_size=BATCH)
    process = start(images, output, tiny_server, tmp_path, "--ray-address", cluster.address)
    wait_for(lambda: shards(output) > 1, process)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    assert len(recorded(output)) < COUNT
    stdout, stderr = process.communicate(timeout=180)
    assert process.returncode == 0, stderr
    assert stdout.startswith(f"{COUNT} scored, 0 failed")
    assert len(set(recorded(output))) == len(recorded(output)) == COUNT
    assert_same_outcomes(output, tmp_path / "local")


def recorded(output: Path) -> list[str]:
    """Files in the journal."""
    parts = output.glob(".journal/*.jsonl")
    return [json.loads(line)["path"] for part in parts for line in part.read_text().splitlines()]


def test_a_wrong_address(tmp_path: Path, unused_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens, somebody listens and says nothing, or it is no address: Ray would ask for minutes."""
    monkeypatch.setattr(engine, "CONNECT_S", 0.5)
    images = write_images(tmp_path / "images", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for address, status, message in (
            (f"127.0.0.1:{unused_port}", 3, "expected the head of a cluster"),
            (f"127.0.0.1:{silent.getsockname()[1]}", 3, "expected the head of a cluster"),
            ("somewhere", 2, "expected HOST:PORT or auto"),
            (f"ray://127.0.0.1:{unused_port}", 2, "expected HOST:PORT or auto"),
        ):
            options = ["--engine", "ray", "--ray-address", address, "--server", "grpc://127.0.0.1:1"]
            finished = CliRunner().invoke(main, ["run", str(images), "--output", str(tmp_path / "out"), *options])
            assert (finished.exit_code, message in finished.stderr) == (status, True), finished.output
