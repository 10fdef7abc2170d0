"""Checkpoints: a folder with ``model.safetensors`` and ``model_spec.json``, and no code to unpickle."""

import hashlib
import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from crosseai.contract import SPEC_FILENAME, ContractError, InputError, ModelSpec, OutputError
from crosseai.training.model import build_model

WEIGHTS_FILENAME = "model.safetensors"

PUBLISHED_NAMES = (
    (r"^module\.", ""),  # DataParallel
    (r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),  # torchvision's DenseNets of 2017
    (r"\.ChannelGateH\.spatial\.", ".cw.conv."),  # the weights that Misra et al. published with their paper
    (r"\.ChannelGateW\.spatial\.", ".hc.conv."),
    (r"\.SpatialGate\.spatial\.", ".hw.conv."),
)
"""Names in published state dicts, as patterns, and what the same tensors are called here."""


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

    def __str__(self) -> str:
        loaded, fresh, unused = (
            [name for name in names if not name.endswith("num_batches_tracked")]  # absent from many published files
            for names in (self.loaded, self.fresh, self.unused)
        )
        kinds = [
            f"{kind}: {', '.join(dict.fromkeys(name.rpartition('.')[0] or name for name in names)) or 'none'}"
            for kind, names in (("fresh", fresh), ("unused", unused))
        ]
        return f"{len(loaded)} of {len(loaded) + len(fresh)} tensors loaded; {'; '.join(kinds)}"


def save_checkpoint(model: nn.Module, spec: ModelSpec, folder: Path) -> ModelSpec:
    """Write a model's weights and spec into a folder; an interrupted write leaves the old weights whole.

    Returns
    -------
    ModelSpec
        The spec as written: with the SHA-256 of the weights file.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    weights = to_safetensors({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()})
    written = replace(spec, weights_sha256=hashlib.sha256(weights).hexdigest())
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / WEIGHTS_FILENAME, weights)
    write_atomically(folder / SPEC_FILENAME, f"{written.to_json()}\n".encode())
    return written


def load_checkpoint(folder: Path, model: nn.Module | None = None) -> tuple[nn.Module, ModelSpec]:
    """Rebuild a trained model.

    Parameters
    ----------
    folder
        What :func:`save_checkpoint` wrote.
    model
        A network to load the weights into, for one that ``build_model`` did not make; a checkpoint holds no code.

    Returns
    -------
    model
        In evaluation mode, on the CPU.
    spec
        Its spec.

    Raises
    ------
    ContractError
        If a file is missing, the weights are not those of the spec, or they do not fit the network.
    """
    spec = ModelSpec.load(folder)
    weights = folder / WEIGHTS_FILENAME
    if model is None:
        if spec.architecture is None:
            raise ContractError(f"checkpoint {folder}: expected a spec with an architecture, or the network itself")
        model = build_model(
            spec.architecture.name,
            triplet_attention=spec.architecture.triplet_attention,
            classes=len(spec.classes),
            width=spec.architecture.width,
        )
    if not weights.is_file():
        raise ContractError(f"checkpoint {folder}: expected a file {WEIGHTS_FILENAME}, found none")
    if (found := _sha256(weights)) != spec.weights_sha256:
        raise ContractError(f"{weights}: expected SHA-256 {spec.weights_sha256!r} as in the spec, found {found!r}")
    try:
        model.load_state_dict(_read_state_dict(weights))
    except RuntimeError as error:
        raise ContractError(
            f"{weights}: the weights do not fit {spec.architecture or 'the network'}: {error}"
        ) from error
    return model.eval(), spec


def load_weights(model: nn.Module, path: Path) -> WeightsReport:
    """Start from published weights: copy every tensor whose name and shape the model shares.

    Names of older publications are translated (``PUBLISHED_NAMES``). A stem of three input channels is summed into one,
    which is what it computes on a gray image repeated three times.

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
    source = {_current_name(name): tensor for name, tensor in _read_state_dict(path).items()}
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


def read_tensors(path: Path) -> Any:
    """Content of a torch file that holds tensors and plain values, and no code.

    Raises
    ------
    InputError
        If there is no such file, or it is none of that kind.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: expected a file of tensors: {error}") from error


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file such that its name always leads to the whole old or the whole new content, even after a crash.

    Raises
    ------
    OutputError
        If it cannot be written: a full disk, a read-only folder.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written: {error.strerror}; the file before is intact") from error


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: expected a file of tensors: {error}") from error
    loaded = read_tensors(path)
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else loaded
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise InputError(f"{path}: expected a state dict of tensors, found {type(state).__name__}")
    return dict(state)


def _current_name(name: str) -> str:
    for published, current in PUBLISHED_NAMES:
        name = re.sub(published, current, name)
    return name


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
