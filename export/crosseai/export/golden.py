"""The recorded explanations, which belong to the contract."""

from crosseai.contract.golden import Array, Golden

__all__ = ["Array", "Golden"]
