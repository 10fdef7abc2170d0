"""What all parts ask of MLflow."""

import os
import subprocess
import sys

import pytest

from crosseai.contract import mlflow_environment


def test_what_the_environment_says_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    found = mlflow_environment()
    assert found["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "5"
    assert found["MLFLOW_DISABLE_TELEMETRY"] == "true"


@pytest.mark.parametrize("module", ["crosseai.training.tracking", "crosseai.export.register"])
def test_mlflow_gives_up_soon_where_nobody_answers(module: str) -> None:
    asked = f"import {module}, mlflow.environment_variables as e; print(e.MLFLOW_HTTP_REQUEST_MAX_RETRIES.get())"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    command = [sys.executable, "-c", asked]
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert said.stdout == "2\n"
