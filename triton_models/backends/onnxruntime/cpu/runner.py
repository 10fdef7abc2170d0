"""Runs an ONNX model on the CPU: no more of it than is asked for, and one image on each thread."""

import logging
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.utils
import onnxruntime as ort

from .blocked import keep_blocked

HEAVY_OPERATORS = frozenset({"Conv", "ConvTranspose", "Einsum", "Gemm", "If", "Loop", "MatMul", "Scan"})

PROVIDERS = ["CPUExecutionProvider"]

LARGEST_DEVIATION = 0.01
"""Of what a compiled graph computes from what ONNX Runtime's own does, in norm; rounding makes 1e-7 to 1e-3."""

logger = logging.getLogger(__name__)

Feed = dict[str, np.ndarray[Any, Any]]
Answer = list[np.ndarray[Any, Any]]


class Runner:
    """An ONNX model that computes only what is asked for.

    ONNX Runtime itself always runs the whole graph (its ``only_execute_path_to_fetches`` works in training builds
    alone), so the graph is pruned: one session computes the outputs asked for, and all others that need no further
    convolution or matrix product.

    A batch that keeps every thread busy is computed image by image, each on one thread: an image's activations stay
    closer to the core, no thread waits for another within an operator, and an image's answer does not depend on its
    neighbours. A smaller batch is computed as one, by all threads.

    A session is tried on the first images that it is made for. Should a compiled graph compute anything else than ONNX
    Runtime makes of the same graph by itself, the latter is served, and a warning says so.

    Parameters
    ----------
    file
        The model.
    threads
        Threads to compute with.
    batched
        Whether the first dimension of every input and output counts images.
    kernels
        Library of our own operators.
    """

    def __init__(self, file: Path, threads: int, *, batched: bool, kernels: Path) -> None:
        self._file = file
        self._kernels = kernels
        self._threads = threads
        self._batched = batched
        self._pool = ThreadPoolExecutor(threads)
        self._heavy_nodes = _heavy_nodes(onnx.load(file, load_external_data=False).graph)
        checked = ort.InferenceSession(file, session_options(1), providers=PROVIDERS)
        self.inputs = [tensor.name for tensor in checked.get_inputs()]
        self.metadata = checked.get_modelmeta().custom_metadata_map
        self._sessions: dict[tuple[frozenset[str], int], ort.InferenceSession] = {}

    @property
    def outputs(self) -> frozenset[str]:
        """Names of all outputs."""
        return frozenset(self._heavy_nodes)

    def closure(self, outputs: frozenset[str]) -> frozenset[str]:
        """Outputs that come for the price of the given ones."""
        paid = frozenset[int]().union(*(self._heavy_nodes[name] for name in outputs))
        return frozenset(name for name, nodes in self._heavy_nodes.items() if nodes <= paid)

    def run(self, outputs: Sequence[str], feed: Feed) -> Answer:
        """Compute these outputs."""
        images = len(feed[self.inputs[0]]) if self._batched else 0
        if images < self._threads:
            together: Answer = self._pruned(outputs, self._threads, feed).run(outputs, feed)
            return together
        apart = [{name: array[i : i + 1] for name, array in feed.items()} for i in range(images)]
        session = self._pruned(outputs, 1, apart[0])

        def run_alone(i: int) -> Answer:
            alone: Answer = session.run(outputs, apart[i])
            return alone

        return [np.concatenate(arrays) for arrays in zip(*self._pool.map(run_alone, range(images)), strict=True)]

    def _pruned(self, outputs: Sequence[str], threads: int, feed: Feed) -> ort.InferenceSession:
        """The session for these outputs, made when it is first needed, and tried on what it is needed for."""
        closure = self.closure(frozenset(outputs))
        if (closure, threads) not in self._sessions:
            model = onnx.utils.Extractor(onnx.load(self._file)).extract_model(self.inputs, sorted(closure))
            self._sessions[closure, threads] = self._tried(model, threads, feed)
        return self._sessions[closure, threads]

    def _tried(self, model: onnx.ModelProto, threads: int, feed: Feed) -> ort.InferenceSession:
        with tempfile.TemporaryDirectory() as folder:
            own, file = optimised(model, Path(folder), threads)
            expected = own.run(None, feed)  # before all else: a bad request is no fault of the compiled graph
            try:
                session = compiled(model, file, session_options(threads), self._kernels)
                deviations = list(map(_deviation, session.run(None, feed), expected))
            except Exception as error:  # whatever it is, there is another session
                found = f"fails: {error}"
            else:
                if all(deviation <= LARGEST_DEVIATION for deviation in deviations):
                    return session
                found = f"deviates by {deviations}"
        logger.warning("%s: compiled for this CPU it %s; ONNX Runtime's own is served", self._file, found)
        return own


def optimised(model: onnx.ModelProto, folder: Path, threads: int) -> tuple[ort.InferenceSession, Path]:
    """Have ONNX Runtime optimise a graph; a session of what it makes of it, and that as a file."""
    source, file, options = folder / "source.onnx", folder / "optimised.onnx", _options(threads)
    onnx.save(model, source)
    options.optimized_model_filepath = str(file)
    options.log_severity_level = 3  # it warns that such a file is for this machine alone
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
    return ort.InferenceSession(source, options, providers=PROVIDERS), file


def compiled(model: onnx.ModelProto, file: Path, options: ort.SessionOptions, kernels: Path) -> ort.InferenceSession:
    """A session of an optimised graph, which is then kept in the layout of the convolutions.

    Parameters
    ----------
    model
        What was optimised.
    file
        What ONNX Runtime made of it; rewritten.
    options
        See :func:`session_options`.
    kernels
        Library of our own operators.
    """
    options.register_custom_ops_library(str(kernels))
    graph = onnx.load(file, load_external_data=False)
    keep_blocked(graph, model)
    onnx.save(graph, file)
    return ort.InferenceSession(file, options, providers=PROVIDERS)


def session_options(threads: int) -> ort.SessionOptions:
    """How a compiled graph is run: as it stands."""
    options = _options(threads)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED  # that of the file
    return options


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # Between requests the cores are for others, such as a client on this machine that decodes images.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _deviation(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """Norm of the difference over that of what is expected, where that is not zero."""
    wide = expected.astype(np.float64)
    return float(np.linalg.norm(found - wide)) / (float(np.linalg.norm(wide)) or 1.0)


def _heavy_nodes(graph: onnx.GraphProto) -> dict[str, frozenset[int]]:
    """For each output, the positions of the costly nodes that it needs."""
    needs: dict[str, frozenset[int]] = {}
    for i, node in enumerate(graph.node):  # sorted topologically, so one pass is enough
        own = {i} if node.op_type in HEAVY_OPERATORS or node.domain else set[int]()
        nodes = frozenset(own).union(*(needs.get(name, frozenset()) for name in node.input))
        needs.update(dict.fromkeys(node.output, nodes))
    return {output.name: needs.get(output.name, frozenset()) for output in graph.output}
