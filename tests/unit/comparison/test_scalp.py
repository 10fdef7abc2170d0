import cv2
import numpy as np

from crosseai.comparison.scalp import contour_boxes


def test_jet_is_red_in_a_band_below_the_peak() -> None:
    ramp = np.tile(np.arange(256, dtype=np.float32), (256, 1))
    ((x0, y0, x1, y1),) = contour_boxes(ramp).tolist()
    assert (y0, y1) == (0, 256)
    assert (round(x0 / 255, 2), round((x1 - 1) / 255, 2)) == (0.62, 0.89)


def test_disc_gives_the_box_around_its_band() -> None:
    y, x = np.mgrid[:224, :224]
    heatmap = np.clip(255 - 2 * np.hypot(x - 100, y - 120), 0, 255).astype(np.float32)
    boxes = contour_boxes(heatmap).tolist()
    radius = np.floor((255 - 0.616 * 255) / 2)
    outer = max(boxes, key=lambda box: box[2] - box[0])
    np.testing.assert_allclose(outer, [100 - radius, 120 - radius, 101 + radius, 121 + radius], atol=1)


def test_two_rounds_of_unions() -> None:
    heatmap = np.zeros((224, 224), np.float32)
    drawn = [(10, 10, 40, 40), (60, 10, 100, 40), (10, 80, 40, 120), (150, 150, 200, 210)]
    for x0, y0, x1, y1 in drawn:
        heatmap[y0:y1, x0:x1] = 200
    expected = set(drawn)
    for _ in range(2):
        expected |= {
            (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])) for a in expected for b in expected
        }
    found = [tuple(box) for box in contour_boxes(heatmap).tolist()]
    assert set(found) == expected
    assert len(found) == len(expected)


def test_short_contours_are_dropped() -> None:
    heatmap = np.zeros((224, 224), np.float32)
    cv2.rectangle(heatmap, (50, 50), (55, 55), 200, -1)  # 6 x 6, a contour of 20 points
    cv2.rectangle(heatmap, (100, 50), (105, 56), 200, -1)  # 22 points
    assert contour_boxes(heatmap).tolist() == [[100, 50, 106, 57]]


def test_nothing_in_a_constant_map() -> None:
    assert contour_boxes(np.zeros((64, 64), np.float32)).shape == (0, 4)
