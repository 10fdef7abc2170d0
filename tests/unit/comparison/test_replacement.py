import numpy as np
import numpy.typing as npt
import pytest

from crosseai.comparison.constant import ConstantLocaliser
from crosseai.comparison.replacement import replacement_scores
from crosseai.contract import ModelSpec
from crosseai.training.evaluation import Images

SPEC = ModelSpec(classes=("a", "b"), input_size=32)


class SquareDetector(ConstantLocaliser):
    """Its logit of the first disease grows with the contrast of one square; the second is always absent."""

    def logits(self, images: Images) -> npt.NDArray[np.float32]:
        square = images[:, 0, 8:16, 8:16].astype(np.float32)
        evidence = square.std((1, 2)) / 20 - 3
        return np.stack([evidence, np.full(len(images), -50.0)], 1).astype(np.float32)


@pytest.fixture
def detector() -> SquareDetector:
    return SquareDetector(SPEC, np.zeros((2, 4), np.int32))


@pytest.fixture
def images() -> Images:
    return np.random.default_rng(0).integers(0, 2, (2, 1, 32, 32), dtype=np.uint8) * 255


def test_a_map_of_what_the_network_uses_beats_one_of_what_it_does_not(detector: SquareDetector, images: Images) -> None:
    right = np.zeros((2, 32, 32), np.float32)
    right[:, 8:16, 8:16] = 1
    found, missed = (
        replacement_scores(detector.logits, detector.spec, images, np.zeros(2, np.int64), maps)
        for maps in (right, 1 - right)
    )
    assert (found[:, 0] > missed[:, 0] + 0.5).all()  # insertion
    assert (found[:, 1] < missed[:, 1] - 0.5).all()  # deletion


def test_probability_that_never_changes(detector: SquareDetector, images: Images) -> None:
    maps = np.random.default_rng(1).random((2, 32, 32)).astype(np.float32)
    np.testing.assert_allclose(
        replacement_scores(detector.logits, detector.spec, images, np.ones(2, np.int64), maps), 0, atol=1e-9
    )
    constant = ConstantLocaliser(SPEC, np.zeros((2, 4), np.int32))
    np.testing.assert_allclose(
        replacement_scores(constant.logits, constant.spec, images, np.zeros(2, np.int64), maps), 0.5
    )
