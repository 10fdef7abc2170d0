import numpy as np

from crosseai.comparison.candidates import brightest


def test_highest_mean_then_larger_then_earlier() -> None:
    intensity = np.zeros((8, 8), np.float32)
    intensity[2:6, 2:6] = 3
    candidates = np.array([[0, 0, 8, 8], [2, 2, 4, 4], [2, 2, 6, 6], [2, 2, 6, 6], [3, 3, 7, 7]], np.int32)
    assert brightest(intensity[None], [candidates]).tolist() == [[2, 2, 6, 6]]


def test_equals_a_search_one_by_one() -> None:
    random = np.random.default_rng(0)
    maps = random.random((20, 16, 16)).astype(np.float32)
    candidates = []
    for _ in maps:
        low, size = random.integers(0, 8, (30, 2)), random.integers(1, 8, (30, 2))
        candidates.append(np.hstack([low, low + size]).astype(np.int32))
    for one, boxes, chosen in zip(maps, candidates, brightest(maps, candidates), strict=True):
        means = [one[y0:y1, x0:x1].mean(dtype=np.float64) for x0, y0, x1, y1 in boxes.tolist()]
        assert chosen.tolist() == boxes[int(np.argmax(means))].tolist()


def test_no_candidate_is_no_box() -> None:
    assert brightest(np.ones((1, 4, 4), np.float32), [np.empty((0, 4), np.int32)]).tolist() == [[0, 0, 0, 0]]
