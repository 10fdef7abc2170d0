import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crosseai.client.evaluation import intersection_over_union
from crosseai.comparison.overlap import overlaps

edges = st.tuples(*[st.integers(0, 20)] * 2).map(sorted).filter(lambda pair: pair[0] < pair[1])
boxes = st.tuples(edges, edges).map(lambda pairs: (pairs[0][0], pairs[1][0], pairs[0][1], pairs[1][1]))


@given(a=boxes, b=boxes)
def test_equals_the_client_s_iou_and_counted_pixels(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    iou, iobb = overlaps(np.array(a), np.array(b, np.float64))
    assert iou == intersection_over_union(a, b)
    masks = np.zeros((2, 20, 20), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, (a, b), strict=True):
        mask[y0:y1, x0:x1] = True
    assert iobb == masks.all(0).sum() / masks[0].sum()


def test_no_box_overlaps_nothing() -> None:
    iou, iobb = overlaps(np.zeros((1, 4), np.int32), np.array([[0.0, 0.0, 5.0, 5.0]]))
    assert (iou.tolist(), iobb.tolist()) == ([0.0], [0.0])


def test_broadcasts() -> None:
    candidates = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [0, 0, 4, 4]])
    truth = np.array([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 4.0, 4.0]])
    iou, iobb = overlaps(candidates[:, None], truth)
    np.testing.assert_allclose(iou, [[1, 0.25], [1 / 7, 0.25], [0.25, 1]])
    np.testing.assert_allclose(iobb, [[1, 1], [0.25, 1], [0.25, 1]])
