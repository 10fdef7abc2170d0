"""Models and ports for the integration tests."""

import fcntl
import importlib.util
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

from crosseai.client.servers.embedded import embedded_server
from crosseai.contract import ModelSpec
from crosseai.export import export_onnx
from crosseai.serve.repository import place_version
from tests.registered import make_registry
from tests.tiny_model import write_tiny_model
from tests.unit.export.networks import attentive


def exported_once(factory: pytest.TempPathFactory, name: str, model: nn.Module, spec: ModelSpec) -> Path:
    """Folder of a model that the first process of a test run exports which needs it."""
    base = factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, partial = root / name, root / f"{name}.partial"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            partial.mkdir()
            export_onnx(model, spec, partial / "model.onnx").save(partial)
            partial.rename(folder)
    return folder


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported folder of a small network of ours with random weights."""
    return exported_once(tmp_path_factory, "small_model", attentive("resnet14", 8).eval(), ModelSpec())


@pytest.fixture(scope="session")
def tiny_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """gRPC address of a server with the tiny model."""
    with embedded_server(str(write_tiny_model(tmp_path_factory.mktemp("tiny_model")))) as address:
        yield address


@pytest.fixture(scope="session")
def real_network(shared_data: Path) -> tuple[nn.Module, ModelSpec]:
    """A real ResNet-50 trained on NIH images, and its spec."""
    weights = shared_data / "weights"
    module_spec = importlib.util.spec_from_file_location("nih_resnet50", weights / "model.py")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    model = module.load(str(weights / "nih_resnet50_v1.safetensors"))
    return model, ModelSpec(mean=(module.MEAN,), std=(module.STD,), input_size=module.SIZE)


@pytest.fixture(scope="session")
def real_model(real_network: tuple[nn.Module, ModelSpec], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported folder of the real network."""
    return exported_once(tmp_path_factory, "real_model", *real_network)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of an MLflow store with three versions of a tiny model, which is the current one."""
    folder = tmp_path_factory.mktemp("mlflow")
    make_registry(folder, seeds=(1, 2, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        yield folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Path:
    """Model repository with version 1 of that store."""
    repository = tmp_path_factory.mktemp("models")
    place_version(repository, store / "artifacts" / "seed-1", 1)
    return repository


@pytest.fixture
def unused_port() -> int:
    """A loopback port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
