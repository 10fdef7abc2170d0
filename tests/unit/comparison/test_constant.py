import numpy as np

from crosseai.client.evaluation import intersection_over_union
from crosseai.comparison.constant import ConstantLocaliser, best_box, grid_boxes
from crosseai.contract import ModelSpec


def test_best_box_by_trying_all() -> None:
    random = np.random.default_rng(0)
    low = random.integers(0, 20, (7, 2))
    truth = np.hstack([low, low + random.integers(2, 12, (7, 2))]).astype(np.float64)
    candidates = grid_boxes(32)
    scores = [np.mean([intersection_over_union(box, true) for true in truth]) for box in candidates.tolist()]
    assert best_box(candidates, truth).tolist() == candidates[int(np.argmax(scores))].tolist()


def test_grid_has_every_box_once_within_the_square() -> None:
    boxes = grid_boxes(64)
    assert len(np.unique(boxes, axis=0)) == len(boxes) == (17 * 16 // 2) ** 2
    assert boxes.min() == 0
    assert boxes.max() == 64


def test_says_the_same_of_every_image() -> None:
    boxes = np.array([[0, 0, 2, 4], [1, 1, 3, 3]], np.int32)
    localiser = ConstantLocaliser(ModelSpec(classes=("a", "b"), input_size=4), boxes)
    images = np.random.default_rng(0).integers(0, 255, (3, 1, 4, 4), dtype=np.uint8)
    found = localiser.localise(images, np.array([1, 0, 1]))
    assert found.boxes.tolist() == boxes[[1, 0, 1]].tolist()
    assert found.maps.sum((1, 2)).tolist() == [4, 8, 4]
    assert found.maps[1, :4, :2].all()
    assert localiser.logits(images).tolist() == [[0, 0]] * 3
