"""Score radiographs on a Triton server, and evaluate the boxes."""

from crosseai.client.credentials import Credentials
from crosseai.client.evaluation import LocalisationTable, evaluate_boxes
from crosseai.client.index import IndexSummary, write_index
from crosseai.client.run import Progress, RunSummary
from crosseai.client.scoring import score_directory

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
