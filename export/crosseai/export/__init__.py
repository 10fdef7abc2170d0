"""A classifier and its explanations as one ONNX graph. Research software, not a medical device."""

from crosseai.export.onnx_export import ExportReport, export_onnx

__all__ = ["ExportReport", "export_onnx"]
