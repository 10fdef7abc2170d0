import numpy as np

from crosseai.client.evaluation import THRESHOLDS, intersection_over_union
from crosseai.comparison.proposals import COLUMNS, IOBB_THRESHOLDS, found_by_any


def test_any_proposal_and_false_positives_one_by_one() -> None:
    random = np.random.default_rng(1)
    truth = np.array([[2.0, 2.0, 9.5, 8.0], [0.0, 0.0, 4.0, 12.0], [5.0, 5.0, 12.0, 12.0]])
    candidates = []
    for count in (5, 0, 40):
        low = random.integers(0, 8, (count, 2))
        candidates.append(np.hstack([low, low + random.integers(1, 6, (count, 2))]).astype(np.int32))
    hits, false_positives = found_by_any(candidates, truth)
    for i, boxes in enumerate(candidates):
        for column, name in enumerate(COLUMNS):
            right = []
            for box in boxes.tolist():
                if column < len(THRESHOLDS):
                    right.append(intersection_over_union(box, truth[i]) > THRESHOLDS[column])
                else:
                    shared = max(0, min(box[2], truth[i, 2]) - max(box[0], truth[i, 0])) * max(
                        0, min(box[3], truth[i, 3]) - max(box[1], truth[i, 1])
                    )
                    area = (box[2] - box[0]) * (box[3] - box[1])
                    right.append(shared / area > IOBB_THRESHOLDS[column - len(THRESHOLDS)])
            assert hits[i, column] == any(right), name
            assert false_positives[i, column] == right.count(False), name
