"""The losses of arXiv 2310.19835 (section 3.1), number by number in plain Python."""

import math
from collections.abc import Sequence

UNCERTAIN = 255


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / (math.hypot(*a) * math.hypot(*b))


def cross_entropy(logits: Sequence[Sequence[float]], labels: Sequence[Sequence[int]], *, smoothing: float = 0) -> float:
    """Equation 2 as it is printed, then the mean over images; uncertain labels are skipped."""
    total = 0.0
    for row, targets in zip(logits, labels, strict=True):
        for logit, label in zip(row, targets, strict=True):
            if label != UNCERTAIN:
                y = label + smoothing * (0.5 - label)
                probability = 1 / (1 + math.exp(-logit))
                total += -y * math.log(probability) - (1 - y) * math.log(1 - probability)
    return total / len(logits)


def contrastive(
    embeddings: Sequence[Sequence[float]],
    labels: Sequence[Sequence[int]],
    patients: Sequence[object],
    *,
    temperature: float,
    positive_in_denominator: bool,
    same_disease: bool = True,
) -> float:
    """Equation 1 for every anchor i and every positive j of it, then the mean; 0 without any."""
    terms = []
    n = len(embeddings)
    diseases = [{c for c, label in enumerate(row) if label == 1} for row in labels]
    for i in range(n):
        for j in range(n):
            if i == j or patients[i] != patients[j]:
                continue
            shared = diseases[i] & diseases[j]
            if same_disease and not shared:
                continue
            denominator, negatives = 0.0, 0
            for k in range(n):
                if same_disease:
                    is_negative = patients[k] != patients[i] and bool(diseases[k] & shared)
                else:
                    is_negative = k not in (i, j)
                if is_negative:
                    negatives += 1
                    denominator += math.exp(cosine(embeddings[i], embeddings[k]) / temperature)
            if not negatives:
                continue
            numerator = math.exp(cosine(embeddings[i], embeddings[j]) / temperature)
            if positive_in_denominator:
                denominator += numerator
            terms.append(-math.log(numerator / denominator))
    return sum(terms) / len(terms) if terms else 0.0
