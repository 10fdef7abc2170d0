"""TensorRT plans of exported graphs.

A plan loads only in the TensorRT that built it, on the kind of GPU that it was built on: build it inside the serving
image. Precision is what the types of the ONNX file say (TensorRT 11 knows nothing else), so plans of TensorRT 10 and 11
compute the same. TensorRT-RTX has the same Python API and builds without a GPU; where TensorRT is absent it stands in,
and the report says so: its plans run in TensorRT-RTX alone.
"""

import hashlib
import importlib
import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import torch

from crosseai.contract import MODEL_FILENAME, ContractError, InputError, ModelSpec
from crosseai.contract.golden import Array, Golden
from crosseai.export.verify import Parity, Run, compare, require

BUILDERS = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
"""Python packages that build plans, best first, and what their plans are called."""

Sizes: TypeAlias = tuple[int, int, int]
"""The smallest, the usual and the greatest size of a dynamic dimension."""


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What :func:`build_plan` made; ``save`` keeps it beside the plan.

    Parameters
    ----------
    builder, version
        ``TensorRT`` or ``TensorRT-RTX``: only the same one, in the same version, loads the plan.
    gpu
        The GPU it was built on, or empty: TensorRT-RTX needs none.
    driver
        Version of the GPU's driver, or empty.
    cuda, triton
        Versions of CUDA and Triton in the image that it was built in, as the image's variables say; empty elsewhere.
    precision
        As of the ONNX file.
    batch, explained
        Sizes of ``N`` and ``K`` that the plan takes; it is tuned for the usual one.
    onnx_sha256, sha256
        Of the ONNX file and of the plan.
    size_bytes
        Of the plan.
    seconds
        Wall time of the build.
    parity
        Agreement with eager PyTorch, output by output; empty if there was no GPU to run the plan.
    """

    builder: str
    version: str
    gpu: str
    driver: str
    cuda: str
    triton: str
    precision: str
    batch: Sizes
    explained: Sizes
    onnx_sha256: str
    sha256: str
    size_bytes: int
    seconds: float
    parity: tuple[Parity, ...]

    def save(self, plan: Path) -> Path:
        """Write the report as JSON beside the plan: ``model.plan.json``."""
        file = plan.with_name(f"{plan.name}.json")
        file.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        return file


def build_plan(
    model_dir: Path, output: Path, *, batch: Sizes, explained: Sizes, timing_cache: Path | None = None
) -> PlanReport:
    """Build a plan of an exported model and, on a GPU, compare what it computes with eager PyTorch.

    Parameters
    ----------
    model_dir
        Folder with ``model.onnx``, ``model_spec.json`` and ``golden.npz``.
    output
        The plan; written if it agrees, its report beside it.
    batch, explained
        Sizes of ``N`` and ``K``.
    timing_cache
        File of measured kernel times, read if it exists and written: builds of similar models get faster.

    Raises
    ------
    InputError
        If no builder is installed, it finds no GPU that it can use, it refuses an operator, or the timing cache is not
        its own.
    ContractError
        If the model folder is not whole, or the plan does not agree with PyTorch; nothing is written then.
    """
    start, spec = time.perf_counter(), ModelSpec.load(model_dir)
    golden, content = Golden.load(model_dir, spec), (model_dir / MODEL_FILENAME).read_bytes()
    trt = find_builder()
    plan = _build(trt, content, _profile_shapes(spec, batch, explained), timing_cache)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    parity: tuple[Parity, ...] = ()
    if gpu:
        sizes = [(n, k) for n, k in zip(batch, explained, strict=True)]
        parity = compare(plan_runtime(trt, plan, spec), spec, golden, sizes)
        require(parity)
    _write(output, plan)
    report = PlanReport(
        builder=BUILDERS[trt.__name__],
        version=trt.__version__,
        gpu=gpu,
        driver=_driver() if gpu else "",
        cuda=os.environ.get("CUDA_VERSION", ""),
        triton=os.environ.get("NVIDIA_TRITON_SERVER_VERSION", ""),
        precision=spec.precision,
        batch=batch,
        explained=explained,
        onnx_sha256=hashlib.sha256(content).hexdigest(),
        sha256=hashlib.sha256(plan).hexdigest(),
        size_bytes=len(plan),
        seconds=time.perf_counter() - start,
        parity=parity,
    )
    report.save(output)
    return report


def find_builder() -> ModuleType:
    """The TensorRT Python package of this environment.

    Raises
    ------
    InputError
        If there is none, or it cannot be loaded.
    """
    problems = []
    for name in BUILDERS:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError) as error:  # a package without its libraries is as good as none
            problems.append(f"{name}: {error}")
    raise InputError(
        "TensorRT: expected the Python package 'tensorrt' (build the plan inside NVIDIA's image that will serve it), "
        f"found none that loads: {'; '.join(problems)}"
    )


def _profile_shapes(spec: ModelSpec, batch: Sizes, explained: Sizes) -> dict[str, list[tuple[int, ...]]]:
    """Smallest, usual and greatest shape of each input."""
    sizes = [{"N": n, "K": k} for n, k in zip(batch, explained, strict=True)]
    return {
        tensor.name: [tuple(size[d] if isinstance(d, str) else d for d in tensor.shape) for size in sizes]
        for tensor in spec.inputs
    }


def _build(
    trt: ModuleType, content: bytes, shapes: dict[str, list[tuple[int, ...]]], timing_cache: Path | None
) -> bytes:
    messages: list[str] = []
    logger = _logger(trt, messages)
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # the constructor gave nothing
        raise InputError(
            f"{BUILDERS[trt.__name__]} {trt.__version__}: expected a GPU, and a driver that is new enough for it; "
            f"{_said(messages)}"
        ) from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(trt, network, content, logger)
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 means float32; float16 is the fast one
    for name, (least, usual, greatest) in shapes.items():
        profile.set_shape(name, least, usual, greatest)
    config.add_optimization_profile(profile)
    if timing_cache:
        _read_timing_cache(config, timing_cache, messages)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise InputError(f"{BUILDERS[trt.__name__]} {trt.__version__}: the build failed; {_said(messages)}")
    if timing_cache:
        _write(timing_cache, bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def _logger(trt: ModuleType, messages: list[str]) -> Any:
    """A logger that keeps what TensorRT says of its errors, which it raises as nothing at all."""

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                messages.append(message.strip())

    return Logger()


def _said(messages: Sequence[str]) -> str:
    return f"it says: {'; '.join(messages)}" if messages else "it does not say why"


def _parse(trt: ModuleType, network: Any, content: bytes, logger: Any) -> None:
    parser = trt.OnnxParser(network, logger)
    if parser.parse(content):
        return
    errors = [parser.get_error(number) for number in range(parser.num_errors)]
    listed = "".join(f"\n  {error.node_operator()} (node {error.node_name()!r}): {error.desc()}" for error in errors)
    raise InputError(f"{BUILDERS[trt.__name__]} {trt.__version__}: its parser refuses {len(errors)} operators:{listed}")


def _read_timing_cache(config: Any, file: Path, messages: Sequence[str]) -> None:
    cache = config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise InputError(f"timing cache {file}: made by another TensorRT, or on another GPU; {_said(messages)}")


def plan_runtime(trt: ModuleType, plan: bytes, spec: ModelSpec) -> Run:
    """Run a plan on the GPU, with PyTorch's memory and stream.

    Raises
    ------
    ContractError
        If this GPU, or this version, cannot load the plan.
    """
    messages: list[str] = []
    runtime = trt.Runtime(_logger(trt, messages))
    engine = runtime.deserialize_cuda_engine(plan)
    context = engine and engine.create_execution_context()
    if not context:
        raise ContractError(f"plan: expected one that this GPU and {trt.__version__} can load; {_said(messages)}")

    def run(images: Array, targets: Array) -> dict[str, Array]:
        tensors = {"image": torch.from_numpy(images.copy()).cuda(), "targets": torch.from_numpy(targets.copy()).cuda()}
        for name, tensor in tensors.items():
            if not context.set_input_shape(name, tuple(tensor.shape)):
                raise ContractError(f"plan: expected {name} within its profile, found {tuple(tensor.shape)}")
        for output in spec.outputs:
            shape = tuple(context.get_tensor_shape(output.name))
            tensors[output.name] = torch.empty(shape, dtype=getattr(torch, output.dtype), device="cuda")
        for name, tensor in tensors.items():
            context.set_tensor_address(name, tensor.data_ptr())
        if not context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise ContractError(f"plan: the run failed; {_said(messages)}")
        torch.cuda.synchronize()
        return {output.name: tensors[output.name].cpu().numpy() for output in spec.outputs}

    return run


def _driver() -> str:
    """Version of NVIDIA's driver."""
    command = ("nvidia-smi", "--id=0", "--query-gpu=driver_version", "--format=csv,noheader")
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _write(file: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    partial = file.with_name(f"{file.name}.partial")
    partial.write_bytes(content)
    partial.replace(file)
