"""The report of a run: one HTML page that needs no network, and the layers of each image beside it."""

from crosseai.client.report.layers import write_layers
from crosseai.client.report.page import write_report

__all__ = ["write_layers", "write_report"]
