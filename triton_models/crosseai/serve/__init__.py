"""A real Triton server on any machine, and the model repository it serves."""

from crosseai.serve.embedded import EmbeddedTriton

__all__ = ["EmbeddedTriton"]
