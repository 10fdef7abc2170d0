"""One exported file: its form, its numbers in ONNX Runtime, and what is refused."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from crosseai.contract import ContractError, InputError, ModelSpec
from crosseai.export import ExportReport, export_onnx, prune, verify
from crosseai.export.tensorrt import build_plan
from crosseai.export.verify import onnx_runtime, sample_images
from tests.unit.export import networks
from tests.unit.export.test_combined import TINY, combine, explain

SPEC = ModelSpec(input_size=32)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    return export_onnx(networks.residual(), SPEC, tmp_path_factory.mktemp("exported") / "model.onnx")


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    return export_onnx(networks.residual(), SPEC, tmp_path_factory.mktemp("half") / "model.onnx", precision="fp16")


@pytest.fixture(scope="module")
def session(exported: ExportReport) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])


def test_report_describes_the_file(exported):
    content = exported.path.read_bytes()
    assert exported.size_bytes == len(content)
    assert exported.sha256 == hashlib.sha256(content).hexdigest()
    assert [parity.output for parity in exported.parity] == [output.name for output in exported.spec.outputs]
    assert all(parity.holds for parity in exported.parity)
    assert exported.spec == replace(SPEC, feature_shape=(128, 1, 1))
    assert sorted(path.name for path in exported.path.parent.iterdir()) == ["model.onnx"]


def test_the_graph_has_no_operator_that_tensorrt_refuses(exported):
    """What TensorRT's parsers refuse of the usual lowerings of a reverse pass."""
    nodes = onnx.load(exported.path).graph.node
    assert {node.op_type for node in nodes}.isdisjoint({"MaxUnpool", "ScatterND", "Col2Im", "NonZero"})
    assert all(len(node.output) == 1 for node in nodes if node.op_type == "MaxPool")
    scatters = [node for node in nodes if node.op_type == "ScatterElements"]
    assert scatters, "attention's maxima"
    assert {attribute.s for node in scatters for attribute in node.attribute if attribute.name == "reduction"} <= {
        b"none"
    }


def test_file_holds_the_spec_and_nothing_of_the_machine(exported):
    model = onnx.load(exported.path)
    assert ModelSpec.from_json({p.key: p.value for p in model.metadata_props}["model_spec"]) == exported.spec
    assert model.producer_name == "crosseai"
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]
    assert model.ir_version <= 10
    content = exported.path.read_bytes()
    assert str(Path.cwd()).encode() not in content
    assert b"stack_trace" not in content


def test_tensors_are_those_of_the_spec(exported, session):
    dtypes = {"tensor(uint8)": "uint8", "tensor(int64)": "int64", "tensor(float)": "float32"}
    for specs, found in (
        (exported.spec.inputs, session.get_inputs()),
        (exported.spec.outputs, session.get_outputs()),
    ):
        assert [(t.name, t.dtype, list(t.shape)) for t in specs] == [(t.name, dtypes[t.type], t.shape) for t in found]


@pytest.mark.parametrize("kind", ["exported", "half"])
def test_tensorrt_rtx_parses_and_builds_the_graph(kind, request, tmp_path):
    """TensorRT-RTX, whose parser is a little stricter than TensorRT's, builds without a GPU; it cannot run there."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    report: ExportReport = request.getfixturevalue(kind)
    report.save(tmp_path)
    (tmp_path / "model.onnx").symlink_to(report.path)
    plan = build_plan(tmp_path, tmp_path / "model.plan", batch=(1, 8, 16), explained=(1, 3, 8))
    assert plan.precision == report.spec.precision
    assert plan.size_bytes == (tmp_path / "model.plan").stat().st_size > 0


@pytest.mark.parametrize(
    ("heatmap", "gradient", "precision"),
    [("gradcam", "plain", "fp32"), ("layercam", "deconvnet", "fp32"), ("layercam", "deconvnet", "fp16")],
)
def test_the_spec_says_how_the_maps_are_made(heatmap, gradient, precision, tmp_path):
    """The export has compared them with eager PyTorch; they are not the usual ones, and all else is."""
    spec = replace(TINY, heatmap=heatmap, gradient=gradient)
    report = export_onnx(networks.tiny(), spec, tmp_path / "model.onnx", layer="features", precision=precision)
    assert report.spec == replace(spec, feature_shape=(4, 7, 7), precision=precision)
    assert all(parity.holds for parity in report.parity)
    images, targets = sample_images(16, 2), np.array([[0, 2], [1, 2]])
    found = onnx_runtime(report.path)(images, targets)
    usual = explain(combine(networks.tiny(), TINY), torch.from_numpy(images), targets.tolist())
    for name, expected in usual.items():
        difference = np.linalg.norm(found[name].astype(float) - expected.numpy()) / expected.double().norm()
        made_otherwise = name in ("heatmaps", "gradient_maps", "input_gradients")
        assert difference > 0.1 if made_otherwise else difference < (2e-2 if precision == "fp16" else 1e-5), name


def test_cam_is_exported_where_the_head_is_linear_and_refused_where_it_is_not(tmp_path):
    report = export_onnx(networks.tiny(), replace(TINY, heatmap="cam"), tmp_path / "cam.onnx", layer="features")
    found = onnx_runtime(report.path)(sample_images(16, 2), np.array([[0, 1, 2]] * 2))
    weights = networks.tiny().head.weight.detach().numpy()
    expected = np.einsum("kd,ndhw->nkhw", weights, found["activations"])
    np.testing.assert_allclose(found["heatmaps"], expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="expected global average pooling and one linear layer after 'layer4'"):
        export_onnx(networks.residual(triplet_attention=False), replace(SPEC, heatmap="cam"), tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["cam.onnx"]


def test_half_precision_has_the_same_inputs_and_outputs(exported, half):
    assert half.spec == replace(exported.spec, precision="fp16")
    assert all(parity.holds for parity in half.parity), half.parity
    graphs = [onnx.load(report.path).graph for report in (exported, half)]
    assert graphs[0].input == graphs[1].input
    assert graphs[0].output == graphs[1].output


def test_half_precision_computes_in_float16_where_it_costs(half):
    graph = onnx.shape_inference.infer_shapes(onnx.load(half.path), strict_mode=True).graph
    dtypes = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    by_operator = {
        operator: {dtypes[node.output[0]] for node in graph.node if node.op_type == operator}
        for operator in ("Conv", "ConvTranspose", "Sigmoid", "ReduceMean", "Gemm", "TopK")
    }
    narrow, wide = {onnx.TensorProto.FLOAT16}, {onnx.TensorProto.FLOAT}
    assert by_operator == {
        "Conv": narrow, "ConvTranspose": narrow, "Sigmoid": narrow, "ReduceMean": wide, "Gemm": wide, "TopK": wide
    }  # fmt: skip


def test_half_precision_halves_the_weights(exported, half):
    parameters = sum(parameter.numel() for parameter in networks.residual().parameters())
    assert exported.size_bytes - half.size_bytes > 1.5 * parameters


def test_weights_are_stored_once(exported):
    parameters = sum(parameter.numel() for parameter in networks.residual().parameters())
    assert exported.size_bytes < 1.2 * 4 * parameters + 200_000


def test_logits_alone_need_no_reverse_pass(exported, session):
    cut = prune(onnx.load(exported.path), ["logits"])
    convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in networks.residual().modules())
    assert sum(node.op_type == "Conv" for node in cut.graph.node) == convolutions
    images = sample_images(32, 2)
    feeds = {"image": images, "targets": np.full((2, 1), -1)}
    (logits,) = onnxruntime.InferenceSession(cut.SerializeToString()).run(["logits"], feeds)
    (expected,) = session.run(["logits"], feeds)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_a_pruned_graph_keeps_inputs_spec_and_numbers(exported, session):
    names = ["heatmaps", "gradient_maps"]
    cut = prune(onnx.load(exported.path), names)
    onnx.checker.check_model(cut, full_check=True)
    assert [tensor.name for tensor in cut.graph.input] == ["image", "targets"]
    assert [tensor.name for tensor in cut.graph.output] == names
    assert ModelSpec.from_json({p.key: p.value for p in cut.metadata_props}["model_spec"]) == exported.spec
    feeds = {"image": sample_images(32, 2), "targets": np.array([[0, 5], [-1, 8]])}
    found = onnxruntime.InferenceSession(cut.SerializeToString()).run(names, feeds)
    for array, expected in zip(found, session.run(names, feeds), strict=True):
        np.testing.assert_allclose(array.astype(float), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("names", "message"), [(["boxes"], "found boxes"), ([], "found none")])
def test_unknown_outputs_are_refused(exported, names, message):
    with pytest.raises(InputError, match=rf"expected some of logits, explained.*{message}"):
        prune(onnx.load(exported.path), names)


@pytest.mark.parametrize(("count", "explained"), [(1, 1), (2, 8), (5, 3)])
def test_any_batch_and_number_of_classes(exported, session, count, explained):
    images = sample_images(32, count)
    targets = np.arange(count * explained).reshape(count, explained) % 8
    names = [output.name for output in exported.spec.outputs]
    outputs = dict(zip(names, session.run(names, {"image": images, "targets": targets}), strict=True))
    alone = session.run(names, {"image": images[-1:], "targets": targets[-1:, -1:]})
    for output, single in zip(exported.spec.outputs, alone, strict=True):
        together = outputs[output.name]
        sizes = output.check(together)
        assert sizes["N"] == count
        assert sizes.get("K", explained) == explained
        last = together[-1:, -1:] if "K" in output.shape else together[-1:]
        np.testing.assert_allclose(last.astype(float), single, rtol=1e-3, atol=1e-6 + 1e-4 * np.abs(single).max())


def test_verification_notices_other_weights(exported):
    other = networks.residual()
    other.layer3[0].conv2.weight.data.mul_(1.01)
    failed = {p.output for p in verify(exported.path, other, exported.spec) if not p.holds}
    assert failed >= {"logits", "activations", "input_gradients"}


def test_a_graph_that_differs_from_the_model_is_not_written(tmp_path):
    class TwoFaced(networks.Tiny):
        def forward(self, x):
            return super().forward(x) * (2 if torch.compiler.is_exporting() else 1)

    spec = ModelSpec(input_size=16, classes=("a", "b", "c"))
    with pytest.raises(ContractError, match=r"differs from eager PyTorch: logits"):
        export_onnx(TwoFaced().eval(), spec, tmp_path / "model.onnx", layer="features")
    assert list(tmp_path.iterdir()) == []


def test_same_model_same_bytes_in_another_process(tmp_path, repository):
    program = """
import sys
from pathlib import Path
from crosseai.contract import ModelSpec
from crosseai.export import export_onnx
from tests.unit.export import networks
for precision in ("fp32", "fp16"):
    file = Path(sys.argv[1]) / f"{precision}.onnx"
    spec = ModelSpec(input_size=16, classes=("a", "b", "c"))
    export_onnx(networks.tiny(), spec, file, layer="features", precision=precision)
"""
    for seed in ("1", "7"):
        (tmp_path / seed).mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(repository)}
        command = [sys.executable, "-c", program, str(tmp_path / seed)]
        subprocess.run(command, check=True, cwd=tmp_path, env=environment)
    for precision in ("fp32", "fp16"):
        files = [tmp_path / seed / f"{precision}.onnx" for seed in ("1", "7")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_weights_that_one_file_cannot_hold_are_refused(exported, monkeypatch, tmp_path):
    """Protobuf ends at 2 GiB: what is counted before the export is what the file holds, but for small constants."""
    monkeypatch.setattr("crosseai.export.onnx_export.MAX_WEIGHTS_BYTES", 1000)
    message = "expected weights up to 1000 bytes, which fit into one ONNX file, found"
    with pytest.raises(InputError, match=message) as refused:
        export_onnx(networks.residual(), SPEC, tmp_path / "model.onnx")
    counted = int(str(refused.value).rpartition(" ")[2])
    stored = sum(onnx.numpy_helper.to_array(t).nbytes for t in onnx.load(exported.path).graph.initializer)
    assert counted <= stored < 1.2 * counted + 200_000
    assert not list(tmp_path.iterdir())


def test_logits_that_are_not_the_specs_classes_are_refused(tmp_path):
    with pytest.raises(InputError, match="expected 8 logits as the spec has classes, found 3"):
        export_onnx(networks.tiny(), ModelSpec(input_size=16), tmp_path / "model.onnx", layer="features")
