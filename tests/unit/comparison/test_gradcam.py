from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from crosseai import postproc
from crosseai.comparison.gradcam import CrossEAI, MapLocaliser
from crosseai.comparison.scalp import ContourLocaliser, contour_boxes
from crosseai.contract import ModelSpec, box_preset
from crosseai.export.reference import EagerReference
from crosseai.training import build_model, save_checkpoint
from crosseai.training.config import FitConfig
from crosseai.training.evaluation import Images

SPEC = ModelSpec(input_size=64, feature_shape=(128, 2, 2))
CLASSES = np.array([0, 5, 7])


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return build_model("resnet14", triplet_attention=False, width=4).eval()


@pytest.fixture(scope="module")
def images() -> Images:
    return np.random.default_rng(0).integers(0, 255, (3, 1, 64, 64), dtype=np.uint8)


@pytest.mark.parametrize("preset", ["crosseai", "scalp", "tuned"])
def test_boxes_are_those_of_the_preset_from_float64_maps(model: nn.Module, images: Images, preset: str) -> None:
    found = MapLocaliser(model, replace(SPEC, boxes=box_preset(preset))).localise(images, CLASSES)
    truth = EagerReference(model, SPEC, torch.float64).explain(images, CLASSES)
    heatmaps, gradients = truth.heatmaps.float().numpy(), truth.gradient_maps.to(torch.uint8).numpy()
    boxes, _ = postproc.localize(heatmaps, gradients, **box_preset(preset).keywords())
    assert np.abs(found.boxes - boxes).max() <= 1  # a gray level rounded otherwise may move an edge
    fused = postproc.fuse(heatmaps[1], gradients[1], **box_preset(preset).fusion_keywords())
    np.testing.assert_allclose(found.maps[1], fused, atol=1.5)


def test_contours_are_of_the_heat_map_alone(model: nn.Module, images: Images) -> None:
    found = ContourLocaliser(model, SPEC).localise(images, CLASSES)
    assert found.candidates is not None
    for one, box, candidates in zip(found.maps, found.boxes, found.candidates, strict=True):
        assert candidates.tolist() == contour_boxes(one).tolist()
        assert box.tolist() in [*candidates.tolist(), [0, 0, 0, 0]]


def test_sources_of_the_maps_can_be_exchanged(model: nn.Module, images: Images, tmp_path) -> None:
    save_checkpoint(
        model,
        replace(SPEC, architecture=FitConfig(architecture="resnet14", triplet_attention=False, width=4).network),
        tmp_path / "checkpoint",
    )
    paper, other = (
        CrossEAI("a", "A", "tuned", **sources).load(FitConfig(), tmp_path).localise(images, CLASSES).maps
        for sources in ({}, {"heatmap": "layercam", "gradient": "plain"})
    )
    reference = EagerReference(model, SPEC, torch.float32, heatmap="layercam", gradient="plain")
    expected = reference.explain(images, CLASSES)
    pair = expected.heatmaps.numpy()[0], expected.gradient_maps.to(torch.uint8).numpy()[0]
    np.testing.assert_array_equal(other[0], postproc.fuse(*pair, **box_preset("tuned").fusion_keywords()))
    assert not np.array_equal(paper, other)


def test_maps_of_a_trained_network_differ_from_those_of_a_random_one(model: nn.Module, images: Images) -> None:
    check = MapLocaliser(model, SPEC).sanity_check(images, CLASSES)
    assert check.rank_correlations.shape == (len(check.stages), 3)
    assert (check.rank_correlations[-1] < 1).all()
