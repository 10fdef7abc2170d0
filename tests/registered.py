"""An MLflow registry with tiny models, as training and export would have filled it."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnxruntime as ort
from mlflow import MlflowClient
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from crosseai.contract import (
    GOLDEN_FILENAME,
    GOLDEN_SHA256_TAG,
    MODEL_FILENAME,
    ONNX_SHA256_TAG,
    PARITY_TAG,
    ModelSpec,
)
from crosseai.serve.repository import sha256_of
from tests.tiny_model import TINY_SPEC, write_tiny_model


def make_registry(folder: Path, seeds: Iterable[int]) -> MlflowClient:
    """Make a store with one version of ``crosseai`` for each seed; version N has the N-th seed's weights."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    client.create_registered_model("crosseai")
    for seed in seeds:
        register_tiny_model(client, folder / "artifacts" / f"seed-{seed}", seed=seed)
    return client


def register_tiny_model(client: MlflowClient, source: Path, spec: ModelSpec = TINY_SPEC, *, seed: int = 0) -> int:
    """Add a version whose files are in a folder of this machine."""
    tags = write_registered_model(source, spec, seed=seed)
    return int(client.create_model_version(spec.name, source.as_uri(), tags=tags).version)


def write_registered_model(source: Path, spec: ModelSpec = TINY_SPEC, *, seed: int = 0) -> dict[str, str]:
    """Write graph, spec, golden file and signature into a folder; the tags that ``crosseai-export`` gives them."""
    write_tiny_model(source, spec, seed=seed)
    rng = np.random.default_rng(99)
    feed = {
        "image": rng.integers(0, 256, (3, 1, spec.input_size, spec.input_size), dtype=np.uint8),
        "targets": np.array([[0, -1], [1, -1], [2, 3]]),
    }
    names = [tensor.name for tensor in spec.outputs]
    outputs = ort.InferenceSession(source / MODEL_FILENAME).run(names, feed)
    np.savez_compressed(
        source / GOLDEN_FILENAME,
        images=feed["image"],
        targets=feed["targets"],
        facts=np.array(json.dumps({"eager_errors": dict.fromkeys(names, 0.0), "source": ""})),
        **dict(zip(names, outputs, strict=True)),
    )
    _signed(spec).save(str(source / "MLmodel"))
    accepted = {"explained": 0.0, "gradient_maps": 0.5}
    return {
        ONNX_SHA256_TAG: sha256_of(source / MODEL_FILENAME),
        GOLDEN_SHA256_TAG: sha256_of(source / GOLDEN_FILENAME),
        PARITY_TAG: json.dumps({name: {"error": 0.0, "accepted": accepted.get(name, 1e-4)} for name in names}),
    }


def aliases(client: MlflowClient) -> dict[str, int]:
    """Versions by alias."""
    return {alias: int(number) for alias, number in client.get_registered_model("crosseai").aliases.items()}


def remove_aliases(client: MlflowClient) -> None:
    """Leave no version with an alias."""
    for alias in aliases(client):
        client.delete_registered_model_alias("crosseai", alias)


def _signed(spec: ModelSpec) -> Model:
    """MLflow's description of a model with these tensors."""
    inputs, outputs = (
        Schema(
            [
                TensorSpec(np.dtype(t.dtype), tuple(-1 if isinstance(d, str) else d for d in t.shape), t.name)
                for t in tensors
            ]
        )
        for tensors in (spec.inputs, spec.outputs)
    )
    return Model(signature=ModelSignature(inputs, outputs))
