"""Names, dtypes and shapes of the tensors that cross a process boundary."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crosseai.contract.errors import ContractError

TRITON_DTYPES: Mapping[str, str] = {"uint8": "UINT8", "int64": "INT64", "float32": "FP32"}
"""NumPy dtype name to the name used by Triton's protocol (KServe v2)."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of the served model.

    Parameters
    ----------
    name
        Tensor name in ONNX and in Triton.
    dtype
        NumPy dtype name, one of ``uint8``, ``int64``, ``float32``.
    shape
        One entry a dimension: a fixed size, or a symbol (``"N"`` batch, ``"K"`` explained classes).
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __post_init__(self) -> None:
        if self.dtype not in TRITON_DTYPES:
            raise ContractError(
                f"tensor {self.name!r}: dtype must be one of {', '.join(TRITON_DTYPES)}, found {self.dtype!r}"
            )

    @property
    def triton_dtype(self) -> str:
        """The dtype's name in Triton's protocol."""
        return TRITON_DTYPES[self.dtype]

    @property
    def triton_dims(self) -> tuple[int, ...]:
        """Dimensions as ``config.pbtxt`` wants them: without the batch, -1 where dynamic."""
        return tuple(-1 if isinstance(size, str) else size for size in self.shape[1:])

    def check(self, array: npt.NDArray[Any]) -> dict[str, int]:
        """Compare an array with this spec.

        Returns
        -------
        dict
            Size bound to every symbol, for example ``{"N": 8, "K": 3}``.

        Raises
        ------
        ContractError
            If dtype, rank or a fixed dimension differs, or one symbol stands for two sizes.
        """
        expected = f"{self.dtype}[{','.join(map(str, self.shape))}]"
        found = f"{array.dtype}[{','.join(map(str, array.shape))}]"
        mismatch = ContractError(f"tensor {self.name!r}: expected {expected}, found {found}")
        if array.dtype != np.dtype(self.dtype) or array.ndim != len(self.shape):
            raise mismatch
        symbols: dict[str, int] = {}
        for size, actual in zip(self.shape, array.shape, strict=True):
            if (symbols.setdefault(size, actual) if isinstance(size, str) else size) != actual:
                raise mismatch
        return symbols
