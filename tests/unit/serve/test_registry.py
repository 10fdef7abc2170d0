"""Model references are resolved with a real MLflow registry."""

import json
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from crosseai.contract import MODEL_FILENAME, ContractError, InputError, ModelSpec
from crosseai.serve.config import ServedVersion
from crosseai.serve.registry import (
    aliased_versions,
    deployment_error_tag,
    fetch,
    plan_of,
    register_plan,
    report_deployment,
)
from crosseai.serve.repository import copy_version, list_versions, sha256_of, versions_of
from tests.tiny_model import TINY_SPEC, write_tiny_model


@pytest.fixture(scope="module")
def filled_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store with three versions, the second of which is called ``candidate``."""
    folder = tmp_path_factory.mktemp("mlflow")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    client.create_registered_model("crosseai")
    for version in (1, 2, 3):
        source = write_tiny_model(folder / "artifacts" / str(version), seed=version)
        tags = {"onnx_sha256": sha256_of(source / MODEL_FILENAME)}
        client.create_model_version("crosseai", source.as_uri(), tags=tags)
    client.set_registered_model_alias("crosseai", "candidate", "2")
    return folder


@pytest.fixture
def client(tmp_path: Path, filled_store: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A copy of the store's database, made the current one."""
    shutil.copy(filled_store / "mlflow.db", tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return MlflowClient(uri)


@pytest.mark.parametrize(
    ("reference", "version"), [("models:/crosseai/1", 1), ("models:/crosseai@candidate", 2), (None, 3)]
)
def test_references(client, filled_store, reference, version):
    with fetch(reference) as model:
        assert model.version == version
        assert ModelSpec.load(model.folder) == TINY_SPEC
        original = filled_store / "artifacts" / str(version) / MODEL_FILENAME
        assert (model.folder / MODEL_FILENAME).read_bytes() == original.read_bytes()
        assert not model.folder.is_relative_to(filled_store)
    assert not model.folder.exists()


def test_the_champion_is_the_default(client):
    client.set_registered_model_alias("crosseai", "champion", "1")
    with fetch(None) as model:
        assert model.version == 1


def test_a_store_in_the_working_folder_is_found(client, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.chdir(tmp_path)
    with fetch(None) as model:
        assert model.version == 3


def test_no_store_is_made(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"expected an MLflow store at .*mlflow\.db, found nothing"), fetch(None):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("reference", ["models:/crosseai/9", "models:/crosseai@nobody", "models:/other/1"])
def test_unknown_versions(client, reference):
    with pytest.raises(InputError, match=f"{reference}: cannot be had from the registry"), fetch(reference):
        pass


@pytest.mark.parametrize("reference", ["models:/crosseai", "models:/crosseai/latest", "models:/../1/2"])
def test_malformed_references(client, reference):
    with pytest.raises(InputError, match="expected models:/NAME/VERSION or models:/NAME@ALIAS"), fetch(reference):
        pass


def test_another_checksum_than_the_registered_one(client):
    client.set_model_version_tag("crosseai", "3", "onnx_sha256", "0" * 64)
    expected = r"models:/crosseai/3: expected model\.onnx with the SHA-256 0000"
    with pytest.raises(ContractError, match=expected), fetch("models:/crosseai/3"):
        pass


def test_a_version_without_a_checksum(client):
    client.delete_model_version_tag("crosseai", "3", "onnx_sha256")
    with fetch("models:/crosseai/3") as model:
        assert model.version == 3


def test_a_folder_is_version_1(tmp_path):
    folder = write_tiny_model(tmp_path / "model")
    with fetch(str(folder)) as model:
        assert (model.folder, model.version) == (folder, 1)
    assert folder.is_dir()


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(InputError, match=r"or a folder with model\.onnx, found"), fetch(str(tmp_path)):
        pass


@pytest.fixture
def plan(client, tmp_path: Path) -> Path:
    """What ``crosseai-export tensorrt`` leaves; a plan is opaque, and only TensorRT could make a real one."""
    plan = tmp_path / "built" / "h200.plan"
    plan.parent.mkdir()
    plan.write_bytes(b"a plan of version 3")
    onnx_sha256 = client.get_model_version("crosseai", "3").tags["onnx_sha256"]
    record = {"sha256": sha256_of(plan), "onnx_sha256": onnx_sha256, "builder": "TensorRT"}
    plan.with_name("h200.plan.json").write_text(json.dumps(record))
    return plan


def test_a_plan_travels_with_its_version(client, plan, tmp_path):
    assert register_plan("models:/crosseai/3", plan, "h200-trt11") == 3
    with fetch("models:/crosseai/3") as fetched:
        found = plan_of(fetched, "h200-trt11")
        assert found.read_bytes() == plan.read_bytes()
        served = copy_version(tmp_path / "models", fetched.folder, 3, found)
        list_versions(tmp_path / "models", served.spec, {3: served}, champion=3, runtime="tensorrt")
        with pytest.raises(ContractError, match="expected a TensorRT plan for 'l4', found none"):
            plan_of(fetched, "l4")
    folder = tmp_path / "models" / "crosseai" / "3"
    assert sorted(file.name for file in folder.iterdir()) == ["model.plan", "model.plan.json", "model_spec.json"]
    assert versions_of(tmp_path / "models", "crosseai") == {3: ServedVersion(TINY_SPEC, sha256_of(plan))}


def test_plans_that_are_not_those_of_the_version(client, plan):
    with pytest.raises(ContractError, match=r"expected the SHA-256 .*'ONNX'"):
        register_plan("models:/crosseai/2", plan, "h200-trt11")
    with pytest.raises(InputError, match="target: expected a name"):
        register_plan("models:/crosseai/3", plan, "../3")
    register_plan("models:/crosseai/3", plan, "h200-trt11")
    client.set_model_version_tag("crosseai", "3", "plan_sha256.h200-trt11", "0" * 64)
    with fetch("models:/crosseai/3") as fetched, pytest.raises(ContractError, match="'plan': '0000"):
        plan_of(fetched, "h200-trt11")
    plan.write_bytes(b"another plan")
    with pytest.raises(ContractError, match="expected the SHA-256"):
        register_plan("models:/crosseai/3", plan, "h200-trt11")
    plan.with_name("h200.plan.json").write_text("{}")
    with pytest.raises(ContractError, match="expected a plan, and its record"):
        register_plan("models:/crosseai/3", plan, "another")


def test_aliases(client):
    client.set_registered_model_alias("crosseai", "champion", "1")
    assert aliased_versions() == {"candidate": 2, "champion": 1}


def test_a_deployment_error_is_kept_at_the_version_until_it_is_gone(client):
    one, other = "grpc://127.0.0.1:8001", "[::1]:8001"

    def noted() -> dict[str, str]:
        tags = client.get_model_version("crosseai", "3").tags
        return {tag: problem for tag, problem in tags.items() if tag.startswith("deployment_error")}

    report_deployment(3, one, None)
    report_deployment(3, one, "x" * 10_000)
    report_deployment(3, other, "too old")
    assert noted() == {deployment_error_tag(one): "x" * 1000, deployment_error_tag(other): "too old"}
    report_deployment(3, one, None)
    assert noted() == {deployment_error_tag(other): "too old"}, "a server speaks for itself alone"
