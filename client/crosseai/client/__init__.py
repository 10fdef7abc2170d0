"""Score radiographs on a Triton server, and evaluate the boxes."""

from crosseai.client.evaluation import LocalisationTable, evaluate_boxes
from crosseai.client.scoring import Progress, RunSummary, score_directory

__all__ = ["LocalisationTable", "Progress", "RunSummary", "evaluate_boxes", "score_directory"]
