"""What an exported graph must reproduce, kept beside it, so that it can be checked where the network's code is not."""

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from crosseai.contract.errors import ContractError, reason
from crosseai.contract.registry import GOLDEN_FILENAME
from crosseai.contract.spec import ModelSpec

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Golden:
    """Images and their explanations by eager PyTorch in float64.

    Parameters
    ----------
    images
        uint8 ``[n, 1, S, S]``.
    targets
        int64 ``[n, k]``; some are no class.
    outputs
        Every output of the spec for these images and targets, by name; floats are float32.
    eager_errors
        How far eager PyTorch in float32 is from that, by output.
    source
        Where the model came from (``runs:/ID``, ``models:/NAME/N``, a checkpoint folder), or empty.
    """

    images: Array
    targets: Array
    outputs: Mapping[str, Array]
    eager_errors: Mapping[str, float]
    source: str = ""

    def save(self, folder: Path) -> Path:
        """Write ``golden.npz`` into a folder and return its path."""
        file = folder / GOLDEN_FILENAME
        facts = json.dumps({"eager_errors": dict(self.eager_errors), "source": self.source})
        arrays: dict[str, Any] = {"images": self.images, "targets": self.targets, **self.outputs}
        np.savez_compressed(file, facts=np.array(facts), **arrays)
        return file

    @classmethod
    def load(cls, folder: Path, spec: ModelSpec) -> "Golden":
        """Read the ``golden.npz`` in a folder; nothing in it is unpickled.

        Raises
        ------
        ContractError
            If it is missing, cannot be read, or does not fit the spec.
        """
        file = folder / GOLDEN_FILENAME
        try:
            with np.load(file, allow_pickle=False) as arrays:
                outputs = {tensor.name: arrays[tensor.name] for tensor in spec.outputs}
                facts = json.loads(str(arrays["facts"]))
                golden = cls(arrays["images"], arrays["targets"], outputs, facts["eager_errors"], facts["source"])
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise ContractError(f"{file}: expected the explanations recorded by the export: {reason(error)}") from error
        found = {"image": golden.images, "targets": golden.targets, **outputs}
        for tensor in (*spec.inputs, *spec.outputs):
            tensor.check(found[tensor.name])
        return golden
