"""Triton backend ``onnxruntime`` for machines without a GPU: a python-based backend over the onnxruntime package.

It serves any ONNX model whose ``config.pbtxt`` says ``backend: "onnxruntime"`` and lists its inputs and outputs. The
same model repository runs unchanged in NVIDIA's container, where Triton's C++ backend of that name takes over.

Unlike that one, it computes only what a request asks for. ONNX Runtime itself always runs the whole graph (its
``only_execute_path_to_fetches`` works in training builds alone), so the graph is pruned: one session computes the
outputs asked for, and all others that need no further convolution or matrix product.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.utils
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

HEAVY_OPERATORS = frozenset({"Conv", "ConvTranspose", "Einsum", "Gemm", "If", "Loop", "MatMul", "Scan"})

Feed = dict[str, np.ndarray[Any, Any]]


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
        self.model = PrunedModel(file, threads)
        self.batched = config["max_batch_size"] > 0
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


class PrunedModel:
    """An ONNX model that computes only what is asked for.

    The session of the whole graph is made at once; that of a smaller set of outputs when it is first asked for.
    """

    def __init__(self, file: Path, threads: int) -> None:
        self._file = file
        self._options = ort.SessionOptions()
        self._options.intra_op_num_threads = threads
        # Between requests the cores are for others, such as a client on this machine that decodes images.
        self._options.add_session_config_entry("session.force_spinning_stop", "1")
        self._heavy_nodes = _heavy_nodes(onnx.load(file, load_external_data=False).graph)
        session = self._session(str(file))
        self.inputs = [tensor.name for tensor in session.get_inputs()]
        self.metadata = session.get_modelmeta().custom_metadata_map
        self._sessions = {frozenset(self._heavy_nodes): session}

    @property
    def outputs(self) -> frozenset[str]:
        """Names of all outputs."""
        return frozenset(self._heavy_nodes)

    def closure(self, outputs: frozenset[str]) -> frozenset[str]:
        """Outputs that come for the price of the given ones."""
        paid = frozenset[int]().union(*(self._heavy_nodes[name] for name in outputs))
        return frozenset(name for name, nodes in self._heavy_nodes.items() if nodes <= paid)

    def run(self, outputs: Sequence[str], feed: Feed) -> list[np.ndarray[Any, Any]]:
        """Compute these outputs."""
        closure = self.closure(frozenset(outputs))
        if closure not in self._sessions:
            extractor = onnx.utils.Extractor(onnx.load(self._file))
            self._sessions[closure] = self._session(
                extractor.extract_model(self.inputs, sorted(closure)).SerializeToString()
            )
        arrays: list[np.ndarray[Any, Any]] = self._sessions[closure].run(outputs, feed)
        return arrays

    def _session(self, model: str | bytes) -> ort.InferenceSession:
        return ort.InferenceSession(model, self._options, providers=["CPUExecutionProvider"])


def _heavy_nodes(graph: onnx.GraphProto) -> dict[str, frozenset[int]]:
    """For each output, the positions of the costly nodes that it needs."""
    needs: dict[str, frozenset[int]] = {}
    for i, node in enumerate(graph.node):  # sorted topologically, so one pass is enough
        own = {i} if node.op_type in HEAVY_OPERATORS or node.domain else set[int]()
        nodes = frozenset(own).union(*(needs.get(name, frozenset()) for name in node.input))
        needs.update(dict.fromkeys(node.output, nodes))
    return {output.name: needs.get(output.name, frozenset()) for output in graph.output}


def _check_sha256(file: Path, expected: str | None) -> None:
    """Refuse a model file that is not the one that was deployed."""
    if expected is None:
        return
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected:
        raise pb_utils.TritonModelException(f"{file}: expected SHA-256 {expected} (config.pbtxt), found {found}")


def _check_tensors(model: PrunedModel, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Refuse a configuration that names other tensors than the model has."""
    if set(inputs) != set(model.inputs) or not set(outputs) <= model.outputs:
        raise pb_utils.TritonModelException(
            f"config.pbtxt has the inputs {sorted(inputs)} and outputs {sorted(outputs)}, "
            f"the ONNX model {sorted(model.inputs)} and {sorted(model.outputs)}"
        )


def _check_spec(model: PrunedModel, spec: str | None) -> None:
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
