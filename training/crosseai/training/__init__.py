"""Data sets, the classifier and its training. Research software, not a medical device."""

from crosseai.training.model import ARCHITECTURES, build_model

__all__ = ["ARCHITECTURES", "build_model"]
