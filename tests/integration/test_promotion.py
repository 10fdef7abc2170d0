"""Promotions and rollbacks with a real registry, a real server and its agent."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient

from crosseai.client.cli import main
from crosseai.client.promotion.servers import Server
from crosseai.client.servers.credentials import Credentials
from crosseai.contract import CANDIDATE, CHAMPION, GOLDEN_FILENAME, GOLDEN_SHA256_TAG, PREVIOUS
from crosseai.serve.embedded import EmbeddedTriton
from crosseai.serve.repository import place_version, sha256_of
from tests.eventually import DEADLINE_S, eventually
from tests.registered import aliases, register_tiny_model, remove_aliases
from tests.tiny_model import TINY_SPEC

COMMAND = Path(sys.executable).with_name("crosseai-serve")


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[str]:
    """A server with an agent beside it."""
    with EmbeddedTriton(models) as server:
        command = [COMMAND, "deploy", "--watch", "--repository", models, "--server", server.grpc_url]
        agent = subprocess.Popen([*map(str, command), "--interval", "0.2", "--grace", "0"], stderr=subprocess.DEVNULL)
        yield server.grpc_url
        agent.terminate()
        agent.wait(DEADLINE_S)


@pytest.fixture
def client(store: Path) -> MlflowClient:
    """The registry; version 1 is the champion, and no other has an alias."""
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    remove_aliases(client)
    client.set_registered_model_alias("crosseai", CHAMPION, "1")
    return client


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    """Run ``crosseai-client`` with an audit log in ``tmp_path``."""

    def invoke(*arguments: object) -> Result:
        log = ["--audit-log", tmp_path / "log.jsonl", "--timeout", DEADLINE_S] if arguments[0] != "models" else []
        return CliRunner().invoke(main, [str(argument) for argument in (*arguments, *log)])

    return invoke


def champion_of(server: str) -> str:
    """Version to which a server sends clients that connect."""
    return Server(server, Credentials()).served("crosseai").version


def records(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_promote_and_roll_back(client, server, run, tmp_path):
    before = client.get_model_version("crosseai", "2").tags.keys()
    result = run("promote", "crosseai/2", "--to", "champion", "--server", server, "--reason", "better on CXR")
    assert (result.exit_code, result.stdout) == (0, "crosseai/2 is the champion\n"), result.output
    assert aliases(client) == {CHAMPION: 2, PREVIOUS: 1}
    assert champion_of(server) == "2"

    found = records(tmp_path)
    steps = [(record["step"], record["outcome"]) for record in found]
    expected = ["fetch", "gates", f"load {server}", f"canary {server}", "alias", f"switch {server}"]
    assert steps == [(step, "done") for step in expected]
    sha256 = client.get_model_version("crosseai", "2").tags["onnx_sha256"]
    for record in found:
        assert (record["why"], record["version"], record["champion_before"]) == ("better on CXR", 2, 1)
        assert (record["onnx_sha256"], record["action"]) == (sha256, "promote")
        assert "@" in record["who"]
    canary = found[3]
    assert canary["champion"]["errors"].keys() == canary["candidate"]["errors"].keys() >= {"logits", "heatmaps"}
    tags = client.get_model_version("crosseai", "2").tags
    assert [json.loads(tags[key]) for key in sorted(tags.keys() - before) if key.startswith("audit.")] == found

    result = run("rollback", "--server", server)
    assert (result.exit_code, result.stdout) == (0, "crosseai/1 is the champion\n"), result.output
    assert aliases(client) == {CHAMPION: 1}
    assert champion_of(server) == "1"
    again = run("rollback", "--server", server)
    assert again.exit_code == 2
    assert "expected a version with the alias 'previous', found none" in again.output
    assert len(records(tmp_path)) > len(found), "only ever appended to"


def test_a_broken_champion_can_be_left(client, server, run, store):
    number = register_tiny_model(client, store / "artifacts" / "lost", seed=9)
    result = run("promote", f"crosseai/{number}", "--to", "champion", "--server", server)
    assert result.exit_code == 0, result.output
    shutil.rmtree(store / "artifacts" / "lost")
    result = run("rollback", "--server", server)
    assert (result.exit_code, aliases(client)) == (0, {CHAMPION: 1}), result.output


def refused(result: Result, client: MlflowClient, server: str, status: int, *messages: str) -> None:
    """Nothing has changed, and the message says why."""
    assert result.exit_code == status, result.output
    for message in messages:
        assert message in result.output
    assert aliases(client) == {CHAMPION: 1}
    eventually(lambda: champion_of(server) == "1")


def test_a_tampered_version_is_refused(client, server, run, store, tmp_path):
    number = register_tiny_model(client, store / "artifacts" / "tampered", seed=7)
    with (store / "artifacts" / "tampered" / "model.onnx").open("ab") as file:
        file.write(b"\0")
    result = run("promote", f"crosseai/{number}", "--to", "champion", "--server", server)
    refused(result, client, server, 2, "error: fetch: ", "expected model.onnx with the SHA-256")
    assert [(record["step"], record["outcome"]) for record in records(tmp_path)] == [("fetch", "failed")]


def test_a_version_that_answers_otherwise_than_recorded_is_refused(client, server, run, store, tmp_path):
    """As would a server whose runtime computes something else."""
    number = register_tiny_model(client, store / "artifacts" / "other", seed=8)
    golden = store / "artifacts" / "other" / GOLDEN_FILENAME
    with np.load(golden) as arrays:
        changed = {**arrays, "heatmaps": arrays["heatmaps"] * np.float32(1.001)}
    np.savez_compressed(golden, **changed)
    client.set_model_version_tag("crosseai", str(number), GOLDEN_SHA256_TAG, sha256_of(golden))
    result = run("promote", f"crosseai/{number}", "--to", "champion", "--server", server)
    refused(result, client, server, 2, f"error: canary {server}: ", "heatmaps: expected <= 0.0001, found 0.001")
    (tmp_path / "gates.yaml").write_text("canary: {factor: 20}")
    command = ["promote", f"crosseai/{number}", "--to", "champion", "--server", server]
    assert run(*command, "--gate", tmp_path / "gates.yaml").exit_code == 0


def test_a_version_that_cannot_be_loaded_is_refused(client, server, run, store, tmp_path):
    number = register_tiny_model(client, store / "artifacts" / "larger", replace(TINY_SPEC, input_size=64))
    (tmp_path / "none.yaml").write_text("{}")
    command = ["promote", f"crosseai/{number}", "--to", "champion", "--server", server]
    refused(run(*command), client, server, 2, "error: gates: ", "compatible: differs from the champion in inputs")
    result = run(*command, "--gate", tmp_path / "none.yaml")
    refused(result, client, server, 3, f"server: load {server}: ", "cannot be served beside the others")


def write_reference_set(folder: Path, model: Path) -> Path:
    """Gates that ask for a reference set, on which one model is perfect for one disease."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 1, TINY_SPEC.input_size, TINY_SPEC.input_size), dtype=np.uint8)
    feed = {"image": images, "targets": np.zeros((len(images), 1), np.int64)}
    (logits,) = ort.InferenceSession(model).run(["logits"], feed)
    disease = TINY_SPEC.classes.index("Mass")
    positive = logits[:, disease] > np.median(logits[:, disease])
    (folder / "images").mkdir()
    for number, image in enumerate(images):
        cv2.imwrite(str(folder / "images" / f"{number}.png"), image[0])
    labels = [f"{n}.png,{'Mass|Edema' if is_positive else 'No Finding'}" for n, is_positive in enumerate(positive)]
    (folder / "labels.csv").write_text("\n".join(["Image Index,Finding Labels", *labels]))
    boxes = [f"{n}.png,Mass,256,256,512,512" for n in np.flatnonzero(positive)]
    (folder / "boxes.csv").write_text("\n".join(["Image Index,Finding Label,x,y,w,h", *boxes]))
    gates = folder / "gates.yaml"
    gates.write_text(
        "reference: {images: images, labels: labels.csv, boxes: boxes.csv}\n"
        "mean_auc: {max_drop: 0}\nmean_iou: {max_drop: 0.02}\nlatency: {p95_ms: 60000, requests: 5}\n"
    )
    return gates


def test_a_version_worse_than_the_champion_on_the_reference_set_is_refused(client, server, run, store, tmp_path):
    gates = write_reference_set(tmp_path, store / "artifacts" / "seed-1" / "model.onnx")
    result = run("promote", "crosseai/2", "--to", "champion", "--server", server, "--gate", gates)
    refused(result, client, server, 2, "error: reference: ", "mean_auc: ", "the champion has 1.0000", "REFUSED")
    same = register_tiny_model(client, store / "artifacts" / "same", seed=1)
    result = run("promote", f"crosseai/{same}", "--to", "champion", "--server", server, "--gate", gates)
    assert result.exit_code == 0, result.output
    found = {record["step"]: record for record in records(tmp_path) if record["version"] == same}
    assert found["reference"]["gates"]["mean_auc"]["holds"]
    assert found["reference"]["gates"]["mean_iou"]["holds"]
    assert found[f"canary {server}"]["gates"]["latency"]["holds"]


def test_a_server_that_is_away_stops_all(client, server, run, unused_port):
    away = f"127.0.0.1:{unused_port}"
    result = run("promote", "crosseai/2", "--to", "champion", "--server", f"{server},{away}")
    states = (f"  {server}: champion 1, version 2 loaded", f"  {away}: {away}: ")
    refused(result, client, server, 3, f"server: load {away}: ", *states)


def test_a_version_promoted_meanwhile_is_not_overruled(client, server, run, monkeypatch):
    from crosseai.client.promotion import switch as module

    def and_somebody_else(self: object, *_: object) -> None:
        client.set_registered_model_alias("crosseai", CANDIDATE, "3")

    monkeypatch.setattr(module.Switch, "_measure", and_somebody_else)
    result = run("promote", "crosseai/2", "--to", "champion", "--server", server)
    assert result.exit_code == 2, result.output
    assert "alias candidate: expected version 2, found 3 meanwhile" in result.output
    assert aliases(client) == {CHAMPION: 1, CANDIDATE: 3}


def test_a_server_that_does_not_follow_is_undone(client, server, run, monkeypatch):
    from crosseai.client.promotion import switch as module
    from crosseai.contract import InferenceTimeout

    def too_slow(self: object, server: Server) -> None:
        raise InferenceTimeout("too slow")

    monkeypatch.setattr(module.Switch, "_follow", too_slow)
    result = run("promote", "crosseai/2", "--to", "champion", "--server", server)
    refused(result, client, server, 3, "too slow")


def test_dry_run_changes_and_records_nothing(client, server, run, tmp_path):
    before = client.get_model_version("crosseai", "2").tags
    result = run("promote", "crosseai/2", "--to", "champion", "--server", server, "--dry-run")
    refused(result, client, server, 0, "crosseai/2 would pass so far")
    assert client.get_model_version("crosseai", "2").tags == before
    assert not (tmp_path / "log.jsonl").exists()


def test_without_servers_the_canary_runs_here(client, run, tmp_path):
    result = run("promote", "crosseai/2", "--to", "champion")
    assert result.exit_code == 0, result.output
    assert aliases(client) == {CHAMPION: 2, PREVIOUS: 1}
    assert [record["step"].split()[0] for record in records(tmp_path)] == ["fetch", "gates", "canary", "alias"]


def test_a_repository_that_can_be_reached_needs_no_agent(client, store, run, tmp_path):
    models = tmp_path / "models"
    place_version(models, store / "artifacts" / "seed-1", 1)
    with EmbeddedTriton(models) as server:
        where = ["--server", server.grpc_url, "--repository", models, "--grace", 0]
        result = run("promote", "crosseai/2", "--to", "champion", *where)
        assert result.exit_code == 0, result.output
        assert champion_of(server.grpc_url) == "2"
        last = records(tmp_path)[-1]
        assert (last["step"], "still_in_use" in last) == (f"drain {server.grpc_url}", False)
        assert "loaded on" in run("models", "--server", server.grpc_url).output


def test_models_lists_versions(client, server, run):
    client.set_registered_model_alias("crosseai", CANDIDATE, "3")
    expected = {"1": ("champion", True), "2": ("", False), "3": ("candidate", True)}
    eventually(lambda: expected.items() <= loaded(run("models", "--server", server).output, server).items())


def loaded(table: str, server: str) -> dict[str, tuple[str, bool]]:
    """Alias of each listed version, and whether the server has loaded it; only of rows that say something."""
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if line.startswith("│")]
    return {row[0]: (row[1], server in row[-1]) for row in cells}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["promote", "crosseai", "--to", "champion"],
            "expected NAME/VERSION, for example crosseai/7, found 'crosseai'",
        ),
        (["promote", "crosseai/99", "--to", "champion"], "crosseai/99: the registry"),
        (["promote", "crosseai/1", "--to", "champion"], "expected another version than the champion"),
        (["promote", "crosseai/2", "--to", "previous"], "'previous' is not 'champion'"),
        (["promote", "crosseai/2", "--to", "champion", "--repository", "r"], "expected exactly one server"),
        (["models", "other"], "other: the registry"),
    ],
)
def test_usage(client, run, arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_no_store(run, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")
    result = run("models")
    assert result.exit_code == 2
    assert "expected an MLflow store" in result.output
    shutil.rmtree(tmp_path)
