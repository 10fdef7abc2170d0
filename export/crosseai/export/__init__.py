"""The combined graph of a classifier and its explanations. Research software, not a medical device."""

from crosseai.export.onnx_export import ExportReport, export_onnx
from crosseai.export.prune import prune
from crosseai.export.verify import Parity, verify

__all__ = ["ExportReport", "Parity", "export_onnx", "prune", "verify"]
