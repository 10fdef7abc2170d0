"""Augmentation shows another exposure and pose, and keeps the sides."""

import torch
from torch import Tensor

from crosseai.training.augmentation import augment, random_views


def centre_of_brightness(images: Tensor) -> Tensor:
    x = torch.arange(images.shape[-1]).float()
    weights = images.clamp(min=100) - 100
    return (weights.sum((1, 2)) * x).sum(1) / weights.sum((1, 2, 3))


def test_augmentation_changes_exposure_and_pose_but_not_sides() -> None:
    spots = torch.full((64, 1, 48, 48), 80.0)
    spots[:, :, 20:28, 6:14] = 220.0
    views = augment(spots, random_views(64, torch.Generator().manual_seed(0)))
    assert views.shape == spots.shape
    assert views.min() >= 0
    assert views.max() <= 255
    assert views.flatten(1).unique(dim=0).shape[0] == 64, "every image has its own view"
    assert centre_of_brightness(views).max() < 24, "a finding on the left stays on the left"
    torch.testing.assert_close(views, augment(spots, random_views(64, torch.Generator().manual_seed(0))))
