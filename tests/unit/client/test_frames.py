"""From a planted map through the box algorithm to original pixels."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crosseai.client.evaluation import intersection_over_union
from crosseai.contract import ModelSpec
from crosseai.imaging import Radiograph, RadiographMetadata, box_to_image_px, preprocess
from crosseai.postproc import localize

SIDE = 1024
SPEC = ModelSpec()


def found_box(image: np.ndarray) -> tuple[int, int, int, int]:
    """Box of an image that is its own gradient map, and whose heat map is flat, in pixels of the image."""
    radiograph = Radiograph(image, (0.0, 255.0), RadiographMetadata("png", 8))
    gradient_map = preprocess(radiograph, SPEC)
    boxes, scores = localize(np.zeros((1, 7, 7), np.float32), gradient_map, t=0.0, area_power=1.0)  # never a sliver
    assert scores[0] > 0
    return box_to_image_px(tuple(boxes[0].tolist()), SPEC.input_size, *image.shape)


@given(
    center=st.tuples(st.integers(300, 700), st.integers(300, 700)),
    size=st.tuples(st.integers(60, 200), st.integers(60, 200)),
    margins=st.tuples(*[st.integers(0, 180)] * 4),
)
def test_an_image_and_its_crop_agree(center: tuple, size: tuple, margins: tuple) -> None:
    """A lesion planted in a square image and in a non-square crop is found at the same place of the original."""
    x0, y0 = center[0] - size[0] // 2, center[1] - size[1] // 2
    lesion = (x0, y0, x0 + size[0], y0 + size[1])
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[y0 : lesion[3], x0 : lesion[2]] = 200
    left, top, right, bottom = margins
    cx0, cy0, cx1, cy1 = found_box(np.ascontiguousarray(image[top : SIDE - bottom, left : SIDE - right]))
    whole, cropped = found_box(image), (cx0 + left, cy0 + top, cx1 + left, cy1 + top)
    pixel = SIDE / SPEC.input_size
    assert np.abs(np.subtract(whole, lesion)).max() <= 2 * pixel
    assert np.abs(np.subtract(cropped, lesion)).max() <= 2 * pixel
    assert intersection_over_union(whole, cropped) > 0.75
