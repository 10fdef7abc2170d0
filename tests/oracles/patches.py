"""The loss of Li et al. 2018 (equations 1 to 3), patch by patch in plain Python."""

import math
from collections.abc import Collection, Sequence

UNCERTAIN = 255


def joint_loss(
    logits: Sequence[Sequence[Sequence[float]]],
    labels: Sequence[Sequence[int]],
    inside: Sequence[Sequence[Collection[int]]],
    *,
    box_weight: float,
    floor: float,
) -> float:
    """Mean over images of the sum over diseases; ``inside`` names the patches in a box, none where there is no box."""
    total = 0.0
    for image, image_labels, image_boxes in zip(logits, labels, inside, strict=True):
        for patches, label, box in zip(image, image_labels, image_boxes, strict=True):
            p = [1 / (1 + math.exp(-logit)) for logit in patches]
            raised = [floor + (1 - floor) * probability for probability in p]
            raised_not = [floor + (1 - floor) * (1 - probability) for probability in p]
            if box:
                likelihood = math.prod(raised[j] if j in box else raised_not[j] for j in range(len(p)))
                total -= box_weight * math.log(likelihood)
            elif label != UNCERTAIN:
                nothing = math.prod(raised_not)
                total -= math.log(1 - nothing) if label == 1 else math.log(nothing)
    return total / len(logits)
