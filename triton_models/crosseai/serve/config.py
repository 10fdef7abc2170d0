"""Triton's ``config.pbtxt``, written from model specs and read back to them.

All versions of a model share one file, so they share their tensors' names, dtypes and shapes. Each version's whole
spec and checksum travel as parameters: ``model_spec.<N>`` (JSON) and ``model_sha256.<N>``. That is how a client that
knows nothing but a server's address learns what the model means. ``champion`` names the version to ask for when several
are loaded.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from crosseai.contract import CHAMPION, MODEL_FILENAME, ContractError, ModelSpec, TensorSpec

CONFIG_FILENAME = "config.pbtxt"
PLAN_FILENAME = "model.plan"
MAX_BATCH_SIZE = 8
"""Images in one run. The graph holds a backward pass for each of the ``N * K`` maps, so memory sets the limit."""

_HEADER = "# Written by crosseai-serve from the model specs of the versions in this folder.\n"


Runtime: TypeAlias = Literal["onnxruntime", "onnxruntime+tensorrt", "tensorrt"]
"""ONNX Runtime; the same with NVIDIA's TensorRT as its accelerator, which builds an engine when the model is loaded; or
a plan that ``crosseai-export tensorrt`` built, ``model.plan`` in place of ``model.onnx``."""


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """What ``config.pbtxt`` says about one version of a model.

    Parameters
    ----------
    spec
        The version's model spec.
    sha256
        SHA-256 of its model file, in hexadecimal.
    """

    spec: ModelSpec
    sha256: str


def write_config(
    spec: ModelSpec,
    versions: Mapping[int, ServedVersion],
    champion: int | None = None,
    *,
    runtime: Runtime = "onnxruntime",
    max_batch_size: int = MAX_BATCH_SIZE,
    max_explained: int = 3,
) -> str:
    """Text of ``config.pbtxt``, valid for the embedded server and for NVIDIA's container.

    It names neither a device nor a thread count, so each server uses what it has: a GPU where there is one.

    Parameters
    ----------
    spec
        The model; its tensors are those of every version.
    versions
        The versions to serve. Without any, the newest one in the folder would be served, but no client can know it.
    champion
        The version that clients shall ask for, one of these; None leaves them the newest.
    runtime
        What runs the model. The embedded server knows ``onnxruntime`` only.
    max_batch_size
        Images in one run; at most the plan's.
    max_explained
        Up to so many diseases an image the model is run once before it is ready. ``onnxruntime+tensorrt`` builds its
        engine for them; more make it build another one.

    Raises
    ------
    ContractError
        If a version's name or tensors differ from the model's, or the champion is not among the versions.
    """
    backend = "tensorrt" if runtime == "tensorrt" else "onnxruntime"
    config = model_config_pb2.ModelConfig(name=spec.name, backend=backend, max_batch_size=max_batch_size)
    if runtime == "onnxruntime+tensorrt":
        _accelerate(config, spec, max_explained)
    for tensor in spec.inputs:
        config.input.add(name=tensor.name, data_type=_data_type(tensor), dims=tensor.triton_dims)
    for tensor in spec.outputs:
        config.output.add(name=tensor.name, data_type=_data_type(tensor), dims=tensor.triton_dims)
    # One instance uses all cores; the default is two on a CPU. Nothing else shares the device, so no rate limiter.
    config.instance_group.add(count=1)
    # Without a queue delay or limit: they add latency, and limits have caused stalls of half a second. Without
    # preferred sizes Triton prefers the greatest, which is the fastest for each image (benchmarks/graph.md).
    config.dynamic_batching.SetInParent()
    # Off, as by default: each radiograph comes once, and the key is a hash of all its pixels.
    config.response_cache.enable = False
    for explained in range(1, max_explained + 1):
        _warm_up(config, spec, explained)
    for number, version in sorted(versions.items()):
        check_same_tensors(spec, version.spec, f"version {number}")
        config.version_policy.specific.versions.append(number)
        config.parameters[f"model_spec.{number}"].string_value = _compact(version.spec)
        config.parameters[f"model_sha256.{number}"].string_value = version.sha256
    if champion is not None:
        if champion not in versions:
            raise ContractError(f"champion: expected one of the versions {sorted(versions)}, found {champion}")
        config.parameters[CHAMPION].string_value = str(champion)
    return _HEADER + text_format.MessageToString(config)


def read_config(text: str) -> dict[int, ServedVersion]:
    """Read what :func:`write_config` says about each version.

    Raises
    ------
    ContractError
        If the text is not a Triton model configuration, or a version lacks its spec or its checksum.
    """
    config = parse_config(text)
    versions = {}
    for number in config.version_policy.specific.versions:
        for key in (f"model_spec.{number}", f"model_sha256.{number}"):
            if key not in config.parameters:
                raise ContractError(f"model configuration {config.name!r}: expected a parameter {key!r}, found none")
        versions[int(number)] = ServedVersion(
            ModelSpec.from_json(config.parameters[f"model_spec.{number}"].string_value),
            config.parameters[f"model_sha256.{number}"].string_value,
        )
    return versions


def read_champion(text: str) -> int | None:
    """Version that a configuration names as the one to ask for, if any.

    Raises
    ------
    ContractError
        If the text is not a Triton model configuration.
    """
    config = parse_config(text)
    if CHAMPION not in config.parameters:
        return None
    return int(config.parameters[CHAMPION].string_value)


def served_filename(text: str) -> str:
    """Name of the file that a configuration's backend runs: an ONNX model, or a plan."""
    return PLAN_FILENAME if parse_config(text).backend == "tensorrt" else MODEL_FILENAME


def parse_config(text: str) -> model_config_pb2.ModelConfig:
    """Parse ``config.pbtxt``.

    Raises
    ------
    ContractError
        If the text is not a Triton model configuration.
    """
    try:
        return text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise ContractError(f"expected a Triton model configuration: {error}") from error


def check_same_tensors(expected: ModelSpec, found: ModelSpec, what: str) -> None:
    """Check that a spec can share a configuration with another.

    Raises
    ------
    ContractError
        If name or tensors differ.
    """
    if (found.name, found.inputs, found.outputs) != (expected.name, expected.inputs, expected.outputs):
        raise ContractError(
            f"{what} cannot be served beside the others: all versions of a Triton model share name and tensors. "
            f"Expected {_summary(expected)}, found {_summary(found)}"
        )


def _accelerate(config: model_config_pb2.ModelConfig, spec: ModelSpec, max_explained: int) -> None:
    """Let ONNX Runtime hand the graph to TensorRT, with one engine for all batches: each takes minutes to build."""
    accelerator = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="tensorrt")
    accelerator.parameters["precision_mode"] = spec.precision.upper()
    sizes = {"min": (1, 1), "opt": (config.max_batch_size, 1), "max": (config.max_batch_size, max_explained)}
    for which, (n, k) in sizes.items():
        shapes = [(t.name, "x".join(str({"N": n, "K": k}.get(str(d), d)) for d in t.shape)) for t in spec.inputs]
        accelerator.parameters[f"trt_profile_{which}_shapes"] = ",".join(f"{name}:{shape}" for name, shape in shapes)


def _warm_up(config: model_config_pb2.ModelConfig, spec: ModelSpec, explained: int) -> None:
    """Have one image of noise explained before a version is ready: the first run of a shape is slow."""
    sample = config.model_warmup.add(name=f"K={explained}", batch_size=1)
    for tensor in spec.inputs:
        dims = [explained if size == -1 else size for size in tensor.triton_dims]
        values = {"random_data": True} if tensor.name == "image" else {"zero_data": True}
        sample.inputs[tensor.name].CopyFrom(
            model_config_pb2.ModelWarmup.Input(data_type=_data_type(tensor), dims=dims, **values)
        )


def _summary(spec: ModelSpec) -> str:
    return f"{spec.name} ({len(spec.classes)} classes, input {spec.input_size}, features {spec.feature_shape})"


def _compact(spec: ModelSpec) -> str:
    return json.dumps(json.loads(spec.to_json()), separators=(",", ":"))


def _data_type(tensor: TensorSpec) -> int:
    number: int = model_config_pb2.DataType.Value(f"TYPE_{tensor.triton_dtype}")
    return number
