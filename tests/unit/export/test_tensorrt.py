"""Plans: built by TensorRT-RTX, which needs no GPU; and the names of TensorRT's own API, which is not on PyPI.

``tensorrt_api.json`` holds the attributes that the Python bindings of TensorRT 10.16.1, 11.1 and 11.4 have in common,
listed by importing the wheels ``tensorrt-cu13-bindings`` of these versions against empty libraries.
"""

import ast
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper

from crosseai.contract import ContractError, InputError, ModelSpec
from crosseai.export import export_onnx
from crosseai.export.cli import main
from crosseai.export.tensorrt import _read_timing_cache, build_plan, find_builder
from tests.unit.export import networks

API = json.loads(Path(__file__).with_name("tensorrt_api.json").read_text(encoding="utf-8"))["names"]
CLASSES = {
    "builder": "Builder",
    "parser": "OnnxParser",
    "error": "ParserError",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "cache": "ITimingCache",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
}
"""Class of each variable of the module that holds an object of TensorRT's."""

SIZES = {"batch": (1, 2, 4), "explained": (1, 1, 3)}

needs_rtx = pytest.mark.skipif(
    not importlib.util.find_spec("tensorrt_rtx"), reason="the package tensorrt_rtx is not installed"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    spec = ModelSpec(input_size=16, classes=("a", "b", "c"))
    export_onnx(networks.tiny(), spec, folder / "model.onnx", layer="features").save(folder)
    return folder


def used_names() -> set[tuple[str, str]]:
    """``(class, attribute)`` of TensorRT's API that the module uses; of the module itself, the class is empty."""
    source = Path(str(importlib.util.find_spec("crosseai.export.tensorrt").origin)).read_text(encoding="utf-8")
    used = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute):
            continue
        owner = node.value
        if isinstance(owner, ast.Attribute) and isinstance(owner.value, ast.Name) and owner.value.id == "trt":
            used.add((owner.attr, node.attr))
        elif isinstance(owner, ast.Name) and owner.id in CLASSES:
            used.add((CLASSES[owner.id], node.attr))
        elif isinstance(owner, ast.Name) and owner.id == "trt":
            used.add(("", node.attr))
    return {(owner, name) for owner, name in used if not name.startswith("__")}


def test_every_name_is_in_tensorrt_10_and_11() -> None:
    used = used_names()
    assert {owner for owner, _ in used} >= {"", *CLASSES.values()} - {"ITimingCache"}
    assert {name for owner, name in used if not owner} <= set(API)
    assert {(owner, name) for owner, name in used if owner} <= {(o, name) for o, names in API.items() for name in names}


@needs_rtx
def test_every_name_is_in_tensorrt_rtx() -> None:
    trt = importlib.import_module("tensorrt_rtx")
    for owner, name in used_names():
        assert hasattr(getattr(trt, owner) if owner else trt, name), (owner, name)


@needs_rtx
@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops in TensorRT-RTX:DeprecationWarning")
def test_plan_and_its_report(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VERSION", "13.4.1")
    monkeypatch.delenv("NVIDIA_TRITON_SERVER_VERSION", raising=False)
    plan, cache = tmp_path / "model.plan", tmp_path / "timing.cache"
    arguments = [folder, "--output", plan, "--batch", "1,2,4", "--explain", "1,3", "--timing-cache", cache]
    for _ in range(2):  # writes the timing cache, then reads it
        result = CliRunner().invoke(main, ["tensorrt", *map(str, arguments)])
        assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "model.plan.json").read_text(encoding="utf-8"))
    trt = find_builder()
    assert (report["builder"], report["version"]) == ("TensorRT-RTX", trt.__version__)
    assert (report["batch"], report["explained"]) == ([1, 2, 4], [1, 3, 3])
    assert (report["cuda"], report["triton"]) == ("13.4.1", "")
    assert report["size_bytes"] == plan.stat().st_size > 0
    assert cache.stat().st_size > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.plan", "model.plan.json", "timing.cache"]
    if not torch.cuda.is_available():
        assert "NOT compared with PyTorch" in result.output
        assert report["parity"] == []


@needs_rtx
def test_all_operators_that_the_parser_refuses_are_listed(folder: Path, tmp_path: Path) -> None:
    make, images = helper.make_tensor_value_info, ("N", 1, 16, 16)
    nodes = [
        helper.make_node("MaxPool", ["x"], [f"y{i}", f"indices{i}"], f"pool{i}", kernel_shape=[2, 2]) for i in range(2)
    ]
    graph = helper.make_graph(
        nodes,
        "pools",
        [make("x", TensorProto.FLOAT, images)],
        [make(f"indices{i}", TensorProto.INT64, None) for i in range(2)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    for name in ("model_spec.json", "golden.npz"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(InputError, match=r"parser refuses") as refused:
        build_plan(tmp_path, tmp_path / "model.plan", **SIZES)
    assert "MaxPool (node 'pool0')" in str(refused.value)
    assert not (tmp_path / "model.plan").exists()


@pytest.mark.parametrize(("made", "taken"), [(None, True), (object(), False)])
def test_the_timing_cache_of_another_tensorrt_is_refused(tmp_path: Path, made: object, taken: bool) -> None:
    config = SimpleNamespace(
        create_timing_cache=lambda _content: made, set_timing_cache=lambda _cache, ignore_mismatch: taken
    )
    with pytest.raises(InputError, match=r"timing\.cache: made by another TensorRT.*says: header mismatch"):
        _read_timing_cache(config, tmp_path / "timing.cache", ["header mismatch"])


def test_a_missing_package_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match="expected the Python package 'tensorrt'"):
        build_plan(folder, tmp_path / "model.plan", **SIZES)


def test_a_builder_that_finds_no_gpu_says_what_it_logged(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As TensorRT does: the error goes to the logger, and the constructor returns nothing."""
    trt = ModuleType("tensorrt")

    class ILogger:
        ERROR, INTERNAL_ERROR = "ERROR", "INTERNAL_ERROR"

    def builder(logger: ILogger) -> None:
        logger.log(ILogger.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    trt.__dict__.update(ILogger=ILogger, Builder=builder, __version__="10.16.1")
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    with pytest.raises(InputError, match=r"TensorRT 10\.16\.1: expected a GPU.* failure with error: 35"):
        build_plan(folder, tmp_path / "model.plan", **SIZES)


def test_a_folder_without_golden_outputs_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("model_spec.json", "model.onnx"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ContractError, match=r"golden\.npz: expected the explanations recorded by the export"):
        build_plan(tmp_path, tmp_path / "model.plan", **SIZES)


@pytest.mark.parametrize("batch", ["", "0,8", "8,1", "1,2,3,4", "1,,8", "-1,8", "many"])
def test_sizes_that_do_not_grow_are_refused(folder: Path, tmp_path: Path, batch: str) -> None:
    result = CliRunner().invoke(main, ["tensorrt", str(folder), "--output", str(tmp_path / "p"), f"--batch={batch}"])
    assert result.exit_code == 2
    assert "expected one to three growing numbers" in result.output
