"""Checkpoints: a folder with ``model.safetensors`` and ``model_spec.json``, and no code to unpickle."""

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from crosseai.contract import ContractError, InputError, ModelSpec
from crosseai.training.model import ResNet, build_model

WEIGHTS_FILENAME = "model.safetensors"


@dataclass(frozen=True, slots=True)
class WeightsReport:
    """What :func:`load_weights` made of a state dict.

    Parameters
    ----------
    loaded
        Tensors of the model that came from the file.
    fresh
        Tensors of the model that keep their initial values.
    unused
        Tensors of the file that the model has no place for, by name or by shape.
    """

    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]


def save_checkpoint(model: nn.Module, spec: ModelSpec, folder: Path) -> ModelSpec:
    """Write a model's weights and spec into a folder; an interrupted write leaves the old weights whole.

    Returns
    -------
    ModelSpec
        The spec as written: with the SHA-256 of the weights file.

    Raises
    ------
    ContractError
        If the spec does not say how to rebuild the network.
    """
    if spec.architecture is None:
        raise ContractError(f"checkpoint {folder}: expected a spec with an architecture, found none")
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / WEIGHTS_FILENAME
    partial = weights.with_suffix(".partial")
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, partial)
    written = replace(spec, weights_sha256=_sha256(partial))
    partial.replace(weights)
    written.save(folder)
    return written


def load_checkpoint(folder: Path) -> tuple[ResNet, ModelSpec]:
    """Rebuild a trained model.

    Returns
    -------
    model
        In evaluation mode, on the CPU.
    spec
        Its spec.

    Raises
    ------
    ContractError
        If a file is missing, the weights are not those of the spec, or they do not fit its architecture.
    """
    spec = ModelSpec.load(folder)
    weights = folder / WEIGHTS_FILENAME
    if spec.architecture is None:
        raise ContractError(f"checkpoint {folder}: expected a spec with an architecture, found none")
    if not weights.is_file():
        raise ContractError(f"checkpoint {folder}: expected a file {WEIGHTS_FILENAME}, found none")
    if (found := _sha256(weights)) != spec.weights_sha256:
        raise ContractError(f"{weights}: expected SHA-256 {spec.weights_sha256!r} as in the spec, found {found!r}")
    model = build_model(
        spec.architecture.name,
        triplet_attention=spec.architecture.triplet_attention,
        classes=len(spec.classes),
        width=spec.architecture.width,
    )
    try:
        model.load_state_dict(_read_state_dict(weights))
    except RuntimeError as error:
        raise ContractError(f"{weights}: the weights do not fit {spec.architecture}: {error}") from error
    return model.eval(), spec


def load_weights(model: nn.Module, path: Path) -> WeightsReport:
    """Start from published weights: copy every tensor whose name and shape the model shares.

    A stem of three input channels is summed into one, which is what it computes on a gray image repeated three
    times. The ``module.`` prefix of torch's ``DataParallel`` is dropped.

    Parameters
    ----------
    model
        Changed in place.
    path
        Safetensors, or a torch file that holds tensors only (or a dict with them under ``state_dict``).

    Raises
    ------
    InputError
        If the file cannot be read as tensors, or nothing in it fits the model.
    """
    source = {name.removeprefix("module."): tensor for name, tensor in _read_state_dict(path).items()}
    target = model.state_dict()
    matched: dict[str, Tensor] = {}
    for name, tensor in source.items():
        wanted = target.get(name)
        if wanted is None:
            continue
        gray = tensor.sum(1, keepdim=True) if tensor.ndim == 4 and tensor.shape[1] == 3 else tensor
        candidate = tensor if tensor.shape == wanted.shape else gray
        if candidate.shape == wanted.shape:
            matched[name] = candidate.to(wanted.dtype)
    if not matched:
        raise InputError(f"{path}: expected weights such as {next(iter(target))!r}, found {sorted(source)[:3]}")
    model.load_state_dict(matched, strict=False)
    return WeightsReport(
        loaded=tuple(name for name in target if name in matched),
        fresh=tuple(name for name in target if name not in matched),
        unused=tuple(name for name in source if name not in matched),
    )


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, SafetensorError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: expected a file of tensors: {error}") from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else loaded
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise InputError(f"{path}: expected a state dict of tensors, found {type(state).__name__}")
    return dict(state)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
