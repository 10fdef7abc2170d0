import numpy as np
import pytest
import scipy.ndimage
import torch
from scipy.special import logsumexp

from crosseai.comparison.wang import LAYER, LogSumExpPooling, WangLocaliser, isolated_regions, with_wang_head
from crosseai.contract import InputError, ModelSpec
from crosseai.training import build_model
from crosseai.training.model import feature_shape


@pytest.mark.parametrize("sharpness", [0.1, 1.0, 10.0])
def test_pooling_is_equation_4(sharpness: float) -> None:
    x = np.random.default_rng(0).normal(0, 3, (3, 5, 4, 6))
    pooled = LogSumExpPooling(sharpness)(torch.from_numpy(x))
    expected = logsumexp(sharpness * x, axis=(2, 3), b=1 / 24) / sharpness
    np.testing.assert_allclose(pooled.numpy()[:, :, 0, 0], expected, rtol=1e-12)


def test_pooling_lies_between_mean_and_maximum_and_does_not_overflow() -> None:
    x = torch.tensor([[[[0.0, 1.0], [2.0, 500.0]]]])
    assert LogSumExpPooling(1e-4)(x).item() == pytest.approx(x.mean().item(), rel=0.02)
    assert LogSumExpPooling(10)(x).item() == pytest.approx(500 - np.log(4) / 10)


@pytest.fixture
def localiser() -> WangLocaliser:
    torch.manual_seed(0)
    model = with_wang_head(build_model("resnet14", triplet_attention=False, width=4), 8).eval()
    shape = feature_shape(model, LAYER, 1, 64)
    return WangLocaliser(model, ModelSpec(input_size=64, layer=LAYER, feature_shape=shape))


def test_heat_map_is_what_the_prediction_layer_adds_up(localiser: WangLocaliser) -> None:
    """Averaged instead of log-sum-exp pooled, the map of a class plus its bias is the logit."""
    random = np.random.default_rng(0)
    images, classes = random.integers(0, 255, (5, 1, 64, 64), dtype=np.uint8), np.array([0, 7, 3, 3, 1])
    heatmaps = localiser.heatmaps(images, classes)
    localiser.model.avgpool.pooling = torch.nn.AdaptiveAvgPool2d(1)
    logits = localiser.logits(images)[np.arange(5), classes]
    bias = localiser.model.head[0].bias.detach().numpy()[classes]
    np.testing.assert_allclose(heatmaps.mean((1, 2)) + bias, logits, rtol=1e-4, atol=1e-5)


def test_localises(localiser: WangLocaliser) -> None:
    images = np.random.default_rng(0).integers(0, 255, (3, 1, 64, 64), dtype=np.uint8)
    found = localiser.localise(images, np.array([0, 1, 2]))
    assert found.maps.shape == (3, 64, 64)
    assert found.candidates is not None
    for box, candidates in zip(found.boxes, found.candidates, strict=True):
        assert box.tolist() in candidates.tolist()


def test_isolated_regions_are_the_labelled_ones() -> None:
    noise = np.random.default_rng(3).random((64, 64))
    smooth = scipy.ndimage.gaussian_filter(noise, 3)
    heatmap = ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.float32)
    expected = []
    for threshold in (60, 180):
        labels, _ = scipy.ndimage.label(heatmap > threshold, np.ones((3, 3)))
        expected += [(c.start, r.start, c.stop, r.stop) for r, c in scipy.ndimage.find_objects(labels)]
    found = isolated_regions(heatmap)
    assert len(expected) > 5
    assert sorted(map(tuple, found.tolist())) == sorted(expected)


def test_only_resnets() -> None:
    with pytest.raises(InputError, match="expected a ResNet, found DenseNet"):
        with_wang_head(build_model("densenet121", triplet_attention=False, width=4), 8)
