"""The loop learns, repeats itself exactly, keeps its best epoch, and stops when the loss is lost."""

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from crosseai.contract import Architecture, InputError, ModelSpec
from crosseai.training import build_model
from crosseai.training.evaluation import auc_per_class, mean_auc, predict_logits
from crosseai.training.loop import Epoch, FitConfig, augment, train
from crosseai.training.split import Split

CONFIG = FitConfig(Architecture("resnet14", width=4), input_size=32, epochs=6, batch_size=16, learning_rate=1e-2)
SPEC = ModelSpec(classes=("Mass", "Nodule"), input_size=32, architecture=CONFIG.architecture)
SPLIT = Split(np.arange(0, 160), np.arange(160, 200), np.arange(200, 240))


@pytest.fixture(scope="module")
def images_and_labels() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """A bright patch on the left is the first disease, one on the right the second."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (240, 2), dtype=np.uint8)
    images = random.normal(90, 15, (240, 1, 32, 32))
    images[labels[:, 0] == 1, :, 10:20, 4:14] += 60
    images[labels[:, 1] == 1, :, 10:20, 18:28] += 60
    return images.clip(0, 255).astype(np.uint8), labels


def fresh_model() -> nn.Module:
    torch.manual_seed(0)
    return build_model("resnet14", width=4, classes=2)


def test_learns_and_keeps_the_best_epoch(
    images_and_labels: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]],
) -> None:
    images, labels = images_and_labels
    model, epochs = fresh_model(), list[Epoch]()
    best = train(model, SPEC, images, labels, SPLIT, CONFIG, epochs.append)
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].loss < epochs[0].loss
    assert mean_auc(best.validation_auc) == max(mean_auc(epoch.validation_auc) for epoch in epochs)
    assert not model.training
    again = auc_per_class(labels[160:200], predict_logits(model, images[160:200], SPEC), SPEC.classes)
    assert again == best.validation_auc
    test = auc_per_class(labels[200:], predict_logits(model, images[200:], SPEC), SPEC.classes)
    assert mean_auc(test) > 0.9


def test_the_same_seed_gives_the_same_weights(
    images_and_labels: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]],
) -> None:
    images, labels = images_and_labels
    states = []
    for seed in (1, 1, 2):
        model = fresh_model()
        train(model, SPEC, images, labels, SPLIT, replace(CONFIG, epochs=2, seed=seed), lambda _epoch: None)
        states.append(model.state_dict())
    first, second, other = states
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_the_test_part_is_never_looked_at(
    images_and_labels: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]],
) -> None:
    images, labels = images_and_labels
    changed_images, changed_labels = images.copy(), labels.copy()
    changed_images[SPLIT.test] = 0
    changed_labels[SPLIT.test] = 1 - labels[SPLIT.test]
    model, other = fresh_model(), fresh_model()
    config = replace(CONFIG, epochs=1)
    train(model, SPEC, images, labels, SPLIT, config, lambda _epoch: None)
    train(other, SPEC, changed_images, changed_labels, SPLIT, config, lambda _epoch: None)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in other.state_dict().items())


def test_without_a_validation_auc_the_last_epoch_stands(
    images_and_labels: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]],
) -> None:
    images, labels = images_and_labels
    unseen = labels.copy()
    unseen[SPLIT.validation] = 0
    best = train(fresh_model(), SPEC, images, unseen, SPLIT, replace(CONFIG, epochs=2), lambda _epoch: None)
    assert best.number == 2
    assert all(math.isnan(auc) for auc in best.validation_auc.values())


def test_a_lost_loss_stops_training(images_and_labels: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]) -> None:
    model = fresh_model()
    for parameter in model.parameters():
        nn.init.constant_(parameter, math.nan)
    with pytest.raises(InputError, match="loss is nan in epoch 1"):
        train(model, SPEC, *images_and_labels, SPLIT, CONFIG, lambda _epoch: None)


def centre_of_brightness(images: Tensor) -> Tensor:
    x = torch.arange(images.shape[-1]).float()
    weights = images.clamp(min=100) - 100
    return (weights.sum((1, 2)) * x).sum(1) / weights.sum((1, 2, 3))


def test_augmentation_changes_exposure_and_pose_but_not_sides() -> None:
    spots = torch.full((64, 1, 48, 48), 80.0)
    spots[:, :, 20:28, 6:14] = 220.0
    views = augment(spots, torch.Generator().manual_seed(0))
    assert views.shape == spots.shape
    assert views.min() >= 0
    assert views.max() <= 255
    assert views.flatten(1).unique(dim=0).shape[0] == 64, "every image has its own view"
    assert centre_of_brightness(views).max() < 24, "a finding on the left stays on the left"
    torch.testing.assert_close(views, augment(spots, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    "change", [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"learning_rate": math.nan}]
)
def test_impossible_settings_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"expected {next(iter(change))}"):
        replace(CONFIG, **change)
