"""ChexRadiNet: the loss that ties the branches, the region that is looked at, and that it learns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from crosseai.comparison.chexradinet import (
    TEMPERATURE,
    Branches,
    BranchLoss,
    ChexRadiNet,
    RadiomicLocaliser,
    RadiomicNetwork,
    attended,
)
from crosseai.comparison.cohort import Cohort
from crosseai.comparison.radiomics import radiomic_features
from crosseai.contract import ModelSpec
from crosseai.training import build_model
from crosseai.training.evaluation import normalise
from crosseai.training.feed import Batch
from crosseai.training.progress import Epoch
from tests.oracles.losses import contrastive, cross_entropy
from tests.unit.comparison.one_disease import CONFIG, one_disease

SPEC = ModelSpec(classes=("Mass", "Nodule", "Effusion"), input_size=64)
GRAY = np.random.default_rng(0).integers(0, 256, (4, 1, 64, 64)).astype(np.uint8)


@pytest.fixture
def cohort() -> Cohort:
    return one_disease().without_boxes()


def network(architecture: str = "resnet14") -> RadiomicNetwork:
    torch.manual_seed(0)
    return RadiomicNetwork(build_model(architecture, triplet_attention=False, classes=3, width=4), SPEC)


def learnt(cohort: Cohort, folder: Path, **changes: object) -> tuple[RadiomicLocaliser, list[Epoch]]:
    config, epochs = replace(CONFIG, **changes), list[Epoch]()
    folder.mkdir()
    ChexRadiNet().train(cohort, config, folder, on_epoch=epochs.append)
    return ChexRadiNet().load(config, folder), epochs


def test_the_loss_equals_the_reference() -> None:
    random = torch.Generator().manual_seed(0)
    image, radiomic, *embeddings = (torch.randn(5, size, generator=random) for size in (3, 3, 8, 8))
    labels = torch.randint(0, 2, (5, 3), generator=random)
    batch = Batch(torch.empty(0), labels, torch.zeros(5), torch.arange(5), torch.empty(0))
    entropy, contrast = BranchLoss(CONFIG)(Branches(image, radiomic, *embeddings), batch)
    both = [cross_entropy(logits.tolist(), labels.tolist()) for logits in (image, radiomic)]
    assert entropy.item() == pytest.approx(sum(both) / 2, rel=1e-5)
    expected = contrastive(
        torch.cat(embeddings).tolist(),
        labels.repeat(2, 1).tolist(),
        [*range(5), *range(5)],
        temperature=TEMPERATURE,
        positive_in_denominator=True,
        same_disease=False,
    )
    assert contrast.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("architecture", ["resnet14", "densenet121"])
def test_the_activation_map_is_what_a_logit_adds_up(architecture: str) -> None:
    model, x = network(architecture).eval(), torch.randn(3, 1, 64, 64)
    classes = torch.tensor([2, 0, 1])
    means = torch.from_numpy(model.activation_maps(model.encoder(x), classes).mean((1, 2)))
    logits = model(x)[torch.arange(3), classes]
    torch.testing.assert_close(means + model.head.bias[classes], logits, rtol=1e-4, atol=1e-4)


def test_attention_is_the_brighter_of_the_regions_above_half_of_the_range() -> None:
    activation = np.zeros((2, 8, 8), np.float32)
    activation[0, 1:3, 1:4], activation[0, 6, 6] = 1, 0.7
    found = attended(activation, 64)
    assert found.boxes[0].tolist() == pytest.approx([8, 8, 32, 24], abs=4)
    assert len(found.candidates[0]) == 2
    assert not found.boxes[1].any(), "a flat map has no region"


def test_radiomic_features_are_of_the_gray_values_that_the_network_was_shown() -> None:
    model = network()
    activation = np.zeros((4, 2, 2), np.float32)
    activation[:3, 0, 0] = 1
    found = model._radiomic_features(normalise(torch.from_numpy(GRAY), SPEC), activation)
    boxes = [*attended(activation[:3], 64).boxes, (0, 0, 64, 64)]
    for features, gray, box in zip(found.tolist(), GRAY, boxes, strict=True):
        expected = list(radiomic_features(gray[0].astype(np.float32), box).values())
        assert features == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_the_radiomic_branch_teaches_the_image_encoder_by_the_contrast_alone() -> None:
    model = network().train()
    x, labels = normalise(torch.from_numpy(GRAY), SPEC), torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    branches = model(x)
    weight = model.encoder.conv1.weight
    (alone,) = torch.autograd.grad(branches.radiomic.sum(), weight, retain_graph=True, allow_unused=True)
    assert alone is None
    batch = Batch(x, labels, torch.arange(4), torch.arange(4), torch.eye(2, 3).expand(4, 2, 3))
    (tied,) = torch.autograd.grad(BranchLoss(CONFIG)(branches, batch)[1], weight)
    assert tied.abs().max() > 0
    assert model.eval()(x).shape == (4, 3)


def test_trains_in_half_precision(cohort: Cohort, tmp_path: Path) -> None:
    _, (epoch,) = learnt(cohort, tmp_path / "model", epochs=1, precision="bf16")
    assert 0 < epoch.loss < 10


def test_learns_and_says_the_same_after_loading(cohort: Cohort, tmp_path: Path) -> None:
    localiser, epochs = learnt(cohort, tmp_path / "model", epochs=10)
    assert epochs[-1].cross_entropy < 0.9 * epochs[0].cross_entropy
    assert epochs[-1].contrastive < 0.9 * epochs[0].contrastive
    assert max(epoch.validation_auc["Cardiomegaly"] for epoch in epochs) > 0.8
    images = cohort.data.images[:5]
    found = localiser.localise(images, np.zeros(5, np.int64))
    assert found.boxes.shape == (5, 4)
    assert found.maps.shape == (5, 64, 64)
    again = ChexRadiNet().load(CONFIG, tmp_path / "model")
    assert np.array_equal(again.logits(images), localiser.logits(images))


def test_the_same_seed_learns_the_same(cohort: Cohort, tmp_path: Path) -> None:
    first, again, other = (
        learnt(cohort, tmp_path / name, epochs=1, seed=seed)[0].logits(cohort.data.images)
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
