"""Latency of requests before, while and after the champion changes, on the embedded server.

Clients ask tiny models for every output, so that a round trip is the server's work more than the network's arithmetic.
Writes ``promotion.md``.
"""

import os
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from crosseai.client.promotion.promote import promote, rollback
from crosseai.client.promotion.servers import Site
from crosseai.contract import CHAMPION
from crosseai.serve.control import Control
from crosseai.serve.deployment import Deployment
from crosseai.serve.embedded import EmbeddedTriton
from crosseai.serve.repository import place_version
from tests.load import Load
from tests.registered import make_registry

CHANGES = 20
QUIET_S = 10.0
GRACE_S = 2.0


def main() -> None:
    """Measure, and write the table."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        make_registry(folder, seeds=(1, 2)).set_registered_model_alias("crosseai", CHAMPION, "1")
        artifacts = {version: folder / "artifacts" / f"seed-{version}" for version in (1, 2)}
        place_version(folder / "models", artifacts[1], 1)
        with EmbeddedTriton(folder / "models") as triton:
            deployment = Deployment(folder / "models", Control(triton.grpc_url), grace_s=GRACE_S)
            deployment.converge()
            stopping = threading.Event()
            agent = threading.Thread(target=follow, args=(deployment, stopping))
            agent.start()
            load, phases, changes_s = measure(triton.grpc_url, artifacts, folder / "log.jsonl")
            stopping.set()
            agent.join()
    text = report(load, phases, changes_s)
    Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def follow(deployment: Deployment, stopping: threading.Event) -> None:
    """What the agent does."""
    while not stopping.wait(0.5):
        deployment.converge()


def measure(
    server: str, artifacts: dict[int, Path], log: Path
) -> tuple[Load, dict[str, tuple[float, float]], list[float]]:
    """Ask all the time: in quiet, during all changes, in quiet again."""
    site, changes_s = Site(servers=[server], log=log), []
    with Load(server, artifacts, {1}) as load:
        times = [time.monotonic()]
        time.sleep(QUIET_S)
        times.append(time.monotonic())
        load.champions = {1, 2}
        for change in range(CHANGES):
            began = time.monotonic()
            if change % 2:
                rollback("crosseai", site)
            else:
                promote("crosseai", 2, site)
            changes_s.append(time.monotonic() - began)
        times.append(time.monotonic())
        time.sleep(QUIET_S)
        times.append(time.monotonic())
    return load, {name: (times[i], times[i + 1]) for i, name in enumerate(("before", "during", "after"))}, changes_s


def report(load: Load, phases: dict[str, tuple[float, float]], changes_s: list[float]) -> str:
    """Text of ``promotion.md``."""
    rows = []
    for name, phase in phases.items():
        latencies = load.latencies_ms([phase])
        figures = " | ".join(f"{value:.1f}" for value in np.percentile(latencies, (50, 95, 99, 100)))
        rows.append(f"| {name} | {len(latencies)} | {figures} |")
    return f"""# Changing the champion under load

{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, tiny models, {load.threads} clients;
made by `benchmarks/promotion.py`.
Clients and server share the cores, so the processes that start with each change cost the clients latency.

| phase | requests | p50 (ms) | p95 (ms) | p99 (ms) | max (ms) |
|---|---:|---:|---:|---:|---:|
{chr(10).join(rows)}

{len(changes_s)} promotions and rollbacks, each {np.median(changes_s):.1f} s (median), at most {max(changes_s):.1f} s.
Of {len(load.answers)} requests, {len(load.failures)} failed or were answered by a wrong version.
"""


if __name__ == "__main__":
    main()
