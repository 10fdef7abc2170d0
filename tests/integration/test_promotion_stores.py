"""Promotions of versions whose files lie in S3, or behind an MLflow server."""

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from moto.server import ThreadedMotoServer

from crosseai.client.cli import main
from crosseai.contract import CHAMPION, MODEL_FILENAME
from tests.mlflow_server import mlflow_server
from tests.registered import aliases, write_registered_model

BUCKET = "models"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Address of a server that speaks S3, as this process' environment says; it has one bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "none")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket=BUCKET)
        yield f"http://{host}:{port}"
    server.stop()


def promote(folder: Path, version: int) -> str:
    log = str(folder / "log.jsonl")
    result = CliRunner().invoke(main, ["promote", f"crosseai/{version}", "--to", "champion", "--audit-log", log])
    return f"{result.exit_code} {result.output}"


def test_files_in_s3(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    client = MlflowClient()
    client.create_registered_model("crosseai")
    for version in (1, 2):
        tags = write_registered_model(tmp_path / str(version), seed=version)
        source = f"s3://{BUCKET}/crosseai/{version}"
        get_artifact_repository(source).log_artifacts(str(tmp_path / str(version)))
        client.create_model_version("crosseai", source, tags=tags)
    assert promote(tmp_path, 1).startswith("0 ")
    assert aliases(client) == {CHAMPION: 1}
    key = f"crosseai/2/{MODEL_FILENAME}"
    boto3.client("s3", endpoint_url=s3).put_object(Bucket=BUCKET, Key=key, Body=b"another model")
    assert "error: fetch: models:/crosseai/2, tag onnx_sha256: expected model.onnx with the SHA-256" in promote(
        tmp_path, 2
    )
    assert aliases(client) == {CHAMPION: 1}


def test_files_in_s3_behind_an_mlflow_server(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client has no access to the bucket: the server hands the files on."""
    with mlflow_server(tmp_path, f"s3://{BUCKET}/runs") as url:
        monkeypatch.delenv("MLFLOW_S3_ENDPOINT_URL")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        client = MlflowClient()
        client.create_registered_model("crosseai")
        tags = write_registered_model(tmp_path / "model")
        run = client.create_run(experiment_id="0")
        client.log_artifacts(run.info.run_id, str(tmp_path / "model"), "onnx")
        client.create_model_version("crosseai", f"{run.info.artifact_uri}/onnx", run_id=run.info.run_id, tags=tags)
        assert promote(tmp_path, 1).startswith("0 ")
        assert aliases(client) == {CHAMPION: 1}
