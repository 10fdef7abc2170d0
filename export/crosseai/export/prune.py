"""A graph cut down to some of its outputs.

ONNX Runtime computes the whole graph whatever is asked of it, so a smaller graph is how to pay for less: logits alone,
or all but the raw tensors.
"""

from collections.abc import Sequence

import onnx
import onnx.utils

from crosseai.contract import InputError


def prune(graph: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """Keep some outputs, and nothing that none of them needs.

    Parameters
    ----------
    graph
        An exported graph.
    outputs
        Names of the outputs to keep.

    Returns
    -------
    onnx.ModelProto
        With the same inputs, read or not, and the same metadata: one server configuration fits both.

    Raises
    ------
    InputError
        If the graph has no such output.
    """
    known = [output.name for output in graph.graph.output]
    unknown = sorted(set(outputs) - set(known))
    if unknown or not outputs:
        raise InputError(f"outputs: expected some of {', '.join(known)}, found {', '.join(unknown) or 'none'}")
    inputs = [tensor.name for tensor in graph.graph.input]
    pruned = onnx.utils.Extractor(graph).extract_model(inputs, list(outputs))
    pruned.producer_name, pruned.producer_version = graph.producer_name, graph.producer_version
    pruned.metadata_props.extend(graph.metadata_props)
    return pruned
