"""``config.pbtxt`` says what the specs say, and nothing gets lost on the way."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from crosseai.contract import Architecture, BoxParameters, ContractError, ModelSpec
from crosseai.serve.cli import main
from crosseai.serve.config import MAX_BATCH_SIZE, Runtime, ServedVersion, read_champion, read_config, write_config

GOLDEN = Path(__file__).with_name("golden_config.pbtxt")
SPEC = ModelSpec()
SHA256 = "0123456789abcdef" * 4


def parse(text: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_golden_file():
    newer = replace(SPEC, operating_points=(0.25,) * 8, architecture=Architecture("resnet26"))
    text = write_config(SPEC, {3: ServedVersion(SPEC, SHA256), 12: ServedVersion(newer, SHA256[::-1])})
    assert text == GOLDEN.read_text(encoding="utf-8")
    assert read_config(text) == {3: ServedVersion(SPEC, SHA256), 12: ServedVersion(newer, SHA256[::-1])}


@pytest.mark.parametrize("runtime", get_args(Runtime)[1:])
def test_golden_file_of_another_runtime(runtime):
    half = replace(SPEC, precision="fp16")
    text = write_config(half, {3: ServedVersion(half, SHA256)}, runtime=runtime, max_batch_size=64)
    assert text == GOLDEN.with_name(f"golden_config_{runtime.replace('+', '_')}.pbtxt").read_text(encoding="utf-8")
    assert read_config(text) == {3: ServedVersion(half, SHA256)}
    config, usual = parse(text), parse(write_config(half, {3: ServedVersion(half, SHA256)}))
    assert (config.backend, config.max_batch_size) == (runtime.partition("+")[0], 64)
    for changed in ("backend", "max_batch_size", "optimization"):  # all else is as ever
        for one in (config, usual):
            one.ClearField(changed)
    assert config == usual


def test_the_accelerator_gets_the_specs_precision_and_one_profile_for_all_batches():
    config = parse(write_config(SPEC, {}, runtime="onnxruntime+tensorrt", max_batch_size=16, max_explained=8))
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    assert dict(accelerator.parameters) == {
        "precision_mode": "FP32",
        "trt_profile_min_shapes": "image:1x1x224x224,targets:1x1",
        "trt_profile_opt_shapes": "image:16x1x224x224,targets:16x1",
        "trt_profile_max_shapes": "image:16x1x224x224,targets:16x8",
    }


def test_command_prints_the_configuration_of_a_plan(tmp_path):
    spec = replace(SPEC, precision="fp16")
    spec.save(tmp_path)
    (tmp_path / "model.plan").write_bytes(b"a plan")
    printed = CliRunner().invoke(main, ["config", str(tmp_path), "--version", "4", "--max-batch-size", "64"])
    versions = {4: ServedVersion(spec, hashlib.sha256(b"a plan").hexdigest())}
    assert printed.stdout == write_config(spec, versions, runtime="tensorrt", max_batch_size=64)
    missing = CliRunner().invoke(main, ["config", str(tmp_path), "--runtime", "onnxruntime+tensorrt"])
    assert (missing.exit_code, "model.onnx, found none" in missing.output) == (1, True)


def test_shipped_repository_is_up_to_date(repository: Path):
    shipped = repository / "triton_models" / "repository" / "crosseai" / "config.pbtxt"
    assert shipped.read_text(encoding="utf-8") == write_config(ModelSpec(), {})


def test_tensors_are_those_of_the_spec():
    config = parse(write_config(SPEC, {}))
    for tensors, specs in ((config.input, SPEC.inputs), (config.output, SPEC.outputs)):
        written = [(t.name, model_config_pb2.DataType.Name(t.data_type), tuple(t.dims)) for t in tensors]
        assert written == [(s.name, f"TYPE_{s.triton_dtype}", s.triton_dims) for s in specs]


def test_config_is_portable():
    config = parse(write_config(SPEC, {1: ServedVersion(SPEC, SHA256)}))
    assert (config.name, config.backend, config.max_batch_size) == ("crosseai", "onnxruntime", MAX_BATCH_SIZE)
    assert config.HasField("dynamic_batching")
    assert not config.dynamic_batching.HasField("default_queue_policy")
    (group,) = config.instance_group
    assert (group.count, group.kind) == (1, model_config_pb2.ModelInstanceGroup.KIND_AUTO)
    assert not config.runtime
    assert not config.platform


def test_a_version_is_warmed_up_for_every_number_of_explained_diseases():
    config = parse(write_config(SPEC, {1: ServedVersion(SPEC, SHA256)}, max_explained=4))
    shapes = [{name: tuple(tensor.dims) for name, tensor in sample.inputs.items()} for sample in config.model_warmup]
    assert shapes == [{"image": (1, 224, 224), "targets": (k,)} for k in (1, 2, 3, 4)]
    assert all(
        sample.inputs["image"].random_data and sample.inputs["targets"].zero_data for sample in config.model_warmup
    )


def test_no_answer_comes_from_a_cache():
    assert not parse(write_config(SPEC, {})).response_cache.enable


def test_only_listed_versions_are_served():
    config = parse(write_config(SPEC, {n: ServedVersion(SPEC, SHA256) for n in (12, 3)}))
    assert list(config.version_policy.specific.versions) == [3, 12]


@pytest.mark.parametrize("champion", [3, 12, None])
def test_the_champion_is_named(champion):
    text = write_config(SPEC, {n: ServedVersion(SPEC, SHA256) for n in (3, 12)}, champion)
    assert read_champion(text) == champion
    assert sorted(read_config(text)) == [3, 12]


def test_a_champion_that_is_not_served_is_refused():
    with pytest.raises(ContractError, match=r"champion: expected one of the versions \[3\], found 4"):
        write_config(SPEC, {3: ServedVersion(SPEC, SHA256)}, 4)


specs = st.builds(
    lambda classes, input_size, feature_shape, preset, layer, threshold: ModelSpec(
        classes=tuple(classes),
        input_size=input_size,
        feature_shape=feature_shape,
        layer=layer,
        boxes=BoxParameters(preset=preset, threshold=threshold),
    ),
    st.lists(st.text(min_size=1), min_size=1, max_size=4, unique=True),
    st.integers(1, 2048),
    st.tuples(*(st.integers(1, 4096),) * 3),
    st.text(),
    st.text(),
    st.floats(0, 1),
)


@given(specs, st.integers(1, 10**9))
def test_any_spec_survives(spec, version):
    versions = {version: ServedVersion(spec, SHA256)}
    assert read_config(write_config(spec, versions)) == versions


def test_a_client_reads_the_spec_from_the_parameters():
    config = parse(write_config(SPEC, {7: ServedVersion(SPEC, SHA256)}))
    assert ModelSpec.from_json(config.parameters["model_spec.7"].string_value) == SPEC
    assert json.loads(config.parameters["model_spec.7"].string_value)["name"] == "crosseai"
    assert config.parameters["model_sha256.7"].string_value == SHA256


@pytest.mark.parametrize(
    "other", [replace(SPEC, input_size=256), replace(SPEC, name="other"), replace(SPEC, feature_shape=(512, 7, 7))]
)
def test_versions_with_other_tensors_are_refused(other):
    with pytest.raises(ContractError, match="version 2 cannot be served beside the others"):
        write_config(SPEC, {1: ServedVersion(SPEC, SHA256), 2: ServedVersion(other, SHA256)})


@pytest.mark.parametrize("missing", ["model_spec.1", "model_sha256.1"])
def test_missing_parameters_are_named(missing):
    config = parse(write_config(SPEC, {1: ServedVersion(SPEC, SHA256)}))
    del config.parameters[missing]
    with pytest.raises(ContractError, match=f"expected a parameter '{missing}', found none"):
        read_config(text_format.MessageToString(config))


def test_text_that_is_no_configuration():
    with pytest.raises(ContractError, match="expected a Triton model configuration"):
        read_config("input { nonsense: 1 }")
