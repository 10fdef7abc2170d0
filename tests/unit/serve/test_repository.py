"""Only checked models get into a repository, completely or not at all."""

import shutil
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from crosseai.contract import MODEL_FILENAME, ContractError, InputError, ModelSpec
from crosseai.serve.repository import (
    champion_of,
    copy_version,
    list_versions,
    models_of,
    place_version,
    sha256_of,
    versions_of,
)
from tests.tiny_model import TINY_SPEC, write_tiny_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "model")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def tree(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_a_version_is_placed_with_its_configuration(model, models):
    placed = place_version(models, model, 3)
    assert placed == models / "crosseai" / "3"
    assert sorted(tree(models)) == ["crosseai/3/model.onnx", "crosseai/3/model_spec.json", "crosseai/config.pbtxt"]
    assert (placed / MODEL_FILENAME).read_bytes() == (model / MODEL_FILENAME).read_bytes()
    assert ModelSpec.load(placed) == TINY_SPEC
    (version,) = versions_of(models, "crosseai").items()
    assert version[0] == 3
    assert version[1].sha256 == sha256_of(placed / MODEL_FILENAME)
    assert models_of(models) == ("crosseai",)


def test_versions_live_beside_each_other(tmp_path, model, models):
    place_version(models, model, 3)
    place_version(models, write_tiny_model(tmp_path / "newer", seed=1), 10)
    assert sorted(versions_of(models, "crosseai")) == [3, 10]


def test_a_copied_version_is_not_served_until_it_is_listed(tmp_path, model, models):
    place_version(models, model, 3)
    newer = copy_version(models, write_tiny_model(tmp_path / "newer", seed=1), 4)
    assert (models / "crosseai" / "4" / MODEL_FILENAME).is_file()
    listed = versions_of(models, "crosseai")
    assert sorted(listed) == [3]
    list_versions(models, newer.spec, {**listed, 4: newer}, champion=3)
    assert (sorted(versions_of(models, "crosseai")), champion_of(models, "crosseai")) == ([3, 4], 3)
    place_version(models, write_tiny_model(tmp_path / "newest", seed=2), 5)
    assert (sorted(versions_of(models, "crosseai")), champion_of(models, "crosseai")) == ([3, 4, 5], 3)


def test_placing_again_changes_nothing(model, models):
    place_version(models, model, 3)
    before = tree(models)
    place_version(models, model, 3)
    assert tree(models) == before


def test_a_version_never_changes(tmp_path, model, models):
    place_version(models, model, 3)
    before = tree(models)
    with pytest.raises(ContractError, match=r"version 3 of 'crosseai' is in .* already"):
        place_version(models, write_tiny_model(tmp_path / "other", seed=1), 3)
    assert tree(models) == before


def test_a_model_with_other_tensors_is_refused(tmp_path, model, models):
    place_version(models, model, 3)
    before = tree(models)
    other = write_tiny_model(tmp_path / "other", replace(TINY_SPEC, input_size=64))
    with pytest.raises(ContractError, match=r"version 4 .* cannot be served beside the others"):
        place_version(models, other, 4)
    assert tree(models) == before


def test_a_folder_left_by_a_crash_is_replaced(model, models):
    broken = models / "crosseai" / "3"
    broken.mkdir(parents=True)
    (broken / MODEL_FILENAME).write_bytes(b"half a model")
    place_version(models, model, 3)
    assert (broken / MODEL_FILENAME).read_bytes() == (model / MODEL_FILENAME).read_bytes()
    assert not list((models / "crosseai").glob(".*"))


def test_an_unreadable_source_leaves_no_trace(model, models, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    place_version(models, model, 1)
    before = tree(models)
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        place_version(models, model, 2)
    assert tree(models) == before


@pytest.mark.parametrize("name", ["../other", "..", ".hidden", "a/b", "/absolute", "", "with space", "a\nb"])
def test_names_that_lead_elsewhere_are_refused(tmp_path, models, name):
    source = write_tiny_model(tmp_path / "model", replace(TINY_SPEC, name=name))
    with pytest.raises(InputError, match="expected a model name"):
        place_version(models, source, 1)
    assert not models.exists()


@pytest.mark.parametrize("version", [0, -1])
def test_versions_start_at_one(model, models, version):
    with pytest.raises(InputError, match="expected a version from 1 up"):
        place_version(models, model, version)


def test_links_are_refused(tmp_path, model, models):
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / MODEL_FILENAME).symlink_to(model / MODEL_FILENAME)
    shutil.copy(model / "model_spec.json", linked)
    with pytest.raises(InputError, match=r"expected a file at .*, found a symbolic link"):
        place_version(models, linked, 1)

    models.mkdir()
    (models / "crosseai").symlink_to(tmp_path)
    with pytest.raises(InputError, match=r"expected a folder at .*, found a symbolic link"):
        place_version(models, model, 1)


def test_a_version_folder_that_is_a_link_is_refused(tmp_path, model, models):
    elsewhere = place_version(tmp_path / "elsewhere", model, 3)
    (models / "crosseai").mkdir(parents=True)
    (models / "crosseai" / "3").symlink_to(elsewhere)
    with pytest.raises(InputError, match=r"expected a folder at .*/3, found a symbolic link"):
        place_version(models, model, 3)


@pytest.mark.parametrize("inner", ["link", "3/link"])
def test_a_repository_with_links_is_not_served(tmp_path, model, models, inner):
    place_version(models, model, 3)
    (models / "crosseai" / inner).symlink_to("/etc")
    with pytest.raises(InputError, match=r"expected files and folders alone in .*, found a symbolic link"):
        models_of(models)


@pytest.mark.parametrize("location", ["weights.bin", "../../secret", "/etc/passwd"])
@pytest.mark.parametrize("where", ["initializer", "constant", "subgraph"])
def test_tensors_in_other_files_are_refused(model, models, location, where):
    graph = onnx.load(model / MODEL_FILENAME)
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[1], data_location=1)
    tensor.external_data.add(key="location", value=location)
    if where == "initializer":
        graph.graph.initializer.append(tensor)
    else:
        node = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
        inner = onnx.helper.make_graph([node], "inner", [], [])
        outer = onnx.helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
        graph.graph.node.append(node if where == "constant" else outer)
    (model / MODEL_FILENAME).write_bytes(graph.SerializeToString())
    with pytest.raises(InputError, match=r"expected all tensors inside .*model\.onnx, found 'w' in another file"):
        place_version(models, model, 3)
    assert not models.exists()


def test_a_file_that_is_no_onnx_model_is_refused(model, models):
    (model / MODEL_FILENAME).write_bytes(b"\xff not a model")
    with pytest.raises(InputError, match=r"expected an ONNX model at .*model\.onnx"):
        place_version(models, model, 3)


def test_a_listed_version_that_is_gone_is_named(model, models):
    shutil.rmtree(place_version(models, model, 3))
    with pytest.raises(InputError, match=r"expected a folder at .*/crosseai/3, found nothing"):
        versions_of(models, "crosseai")


def test_missing_files_are_named(tmp_path, model, models):
    (model / MODEL_FILENAME).unlink()
    with pytest.raises(InputError, match=r"expected a file at .*model\.onnx, found nothing"):
        place_version(models, model, 1)
    with pytest.raises(InputError, match="expected a Triton model repository with at least one model"):
        models_of(tmp_path)
