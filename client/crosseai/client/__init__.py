"""Score radiographs on a Triton server, and evaluate the boxes."""

from crosseai.client.evaluation import LocalisationTable, evaluate_boxes
from crosseai.client.run import Progress, RunSummary
from crosseai.client.scoring import score_directory
from crosseai.client.servers.credentials import Credentials
from crosseai.client.sources.index import IndexSummary, write_index

__all__ = [
    "Credentials",
    "IndexSummary",
    "LocalisationTable",
    "Progress",
    "RunSummary",
    "evaluate_boxes",
    "score_directory",
    "write_index",
]
