"""Triton backend ``onnxruntime`` for machines without a GPU: a python-based backend over the onnxruntime package.

It serves any ONNX model whose ``config.pbtxt`` says ``backend: "onnxruntime"`` and lists its inputs and outputs. The
same model repository runs unchanged in NVIDIA's container, where Triton's C++ backend of that name takes over.

Unlike that one, it computes only what a request asks for.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from cpu.runner import Feed, Runner


class TritonPythonModel:
    """One model instance, as Triton's Python backend wants it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Check the model file against its configuration and make it ready to run."""
        if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
            # Triton's stub would read every input as zeros, silently.
            raise pb_utils.TritonModelException(f"the server environment needs numpy < 2, found {np.__version__}")
        config = json.loads(args["model_config"])
        version = args["model_version"]
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        file = Path(pb_utils.get_model_dir()) / (config.get("default_model_filename") or "model.onnx")
        _check_sha256(file, parameters.get(f"model_sha256.{version}"))
        threads = int(parameters.get("intra_op_thread_count", 0)) or len(os.sched_getaffinity(0))
        self.batched = config["max_batch_size"] > 0
        kernels = Path(__file__).with_name("kernels.so")
        self.model = Runner(file, threads, batched=self.batched, kernels=kernels)
        self.inputs = [tensor["name"] for tensor in config["input"]]
        _check_tensors(self.model, self.inputs, [tensor["name"] for tensor in config["output"]])
        _check_spec(self.model, parameters.get(f"model_spec.{version}"))
        pb_utils.Logger.log_info(f"{file}: onnxruntime {ort.__version__}, {threads} threads, process {os.getpid()}")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests, those of equal shapes and outputs in one run."""
        feeds = [{n: pb_utils.get_input_tensor_by_name(r, n).as_numpy() for n in self.inputs} for r in requests]
        wanted = [frozenset(request.requested_output_names()) for request in requests]
        groups: dict[Any, list[int]] = defaultdict(list)
        for i, feed in enumerate(feeds):
            shapes = tuple(feed[name].shape[1:] for name in self.inputs) if self.batched else i
            groups[shapes, self.model.closure(wanted[i])].append(i)
        responses: list[Any] = [None] * len(requests)
        for members in groups.values():
            answers = self._run([feeds[i] for i in members], [wanted[i] for i in members])
            for i, answer in zip(members, answers, strict=True):
                responses[i] = answer
        return responses

    def _run(self, feeds: Sequence[Feed], wanted: Sequence[frozenset[str]]) -> list[Any]:
        """Run one batch; where it fails, run its requests alone, so that only the bad ones fail."""
        outputs = sorted(frozenset().union(*wanted))
        feed = feeds[0] if len(feeds) == 1 else {n: np.concatenate([f[n] for f in feeds]) for n in self.inputs}
        try:
            arrays = self.model.run(outputs, feed)
        except Exception as error:  # onnxruntime's errors have no common base but this
            if len(feeds) > 1:
                return [self._run([f], [w])[0] for f, w in zip(feeds, wanted, strict=True)]
            return [pb_utils.InferenceResponse(error=pb_utils.TritonError(f"onnxruntime: {error}"))]
        bounds = np.cumsum([len(f[self.inputs[0]]) for f in feeds])[:-1]
        parts = zip(*(np.split(a, bounds) if len(feeds) > 1 else [a] for a in arrays), strict=True)
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(n, a) for n, a in zip(outputs, part, strict=True) if n in want])
            for part, want in zip(parts, wanted, strict=True)
        ]


def _check_sha256(file: Path, expected: str | None) -> None:
    """Refuse a model file that is not the one that was deployed."""
    if expected is None:
        return
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected:
        raise pb_utils.TritonModelException(f"{file}: expected SHA-256 {expected} (config.pbtxt), found {found}")


def _check_tensors(model: Runner, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Refuse a configuration that names other tensors than the model has."""
    if set(inputs) != set(model.inputs) or not set(outputs) <= model.outputs:
        raise pb_utils.TritonModelException(
            f"config.pbtxt has the inputs {sorted(inputs)} and outputs {sorted(outputs)}, "
            f"the ONNX model {sorted(model.inputs)} and {sorted(model.outputs)}"
        )


def _check_spec(model: Runner, spec: str | None) -> None:
    """Refuse a model whose own spec differs from the one that clients are told."""
    if spec is None or "model_spec" not in model.metadata:
        return
    told, own = json.loads(spec), json.loads(model.metadata["model_spec"])
    for field in sorted(told.keys() | own.keys()):
        if told.get(field) != own.get(field):
            raise pb_utils.TritonModelException(
                f"model spec: expected {field} = {own.get(field)} (the ONNX model), "
                f"found {told.get(field)} (config.pbtxt)"
            )
