"""Data sets, the classifier and its training. Research software, not a medical device."""

from crosseai.training.checkpoint import load_checkpoint, save_checkpoint
from crosseai.training.model import ARCHITECTURES, build_model

__all__ = ["ARCHITECTURES", "build_model", "load_checkpoint", "save_checkpoint"]
