"""Another exposure and pose of each radiograph: contrast, brightness, rotation, scale and shift.

No mirroring: left and right have a meaning (the heart's side, the marker), and so have top and bottom.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Views:
    """How each of N images is to be shown: drawn apart from the images, so that processes can share a batch.

    Parameters
    ----------
    poses
        float32 ``[N, 2, 3]``, affine maps in half-widths of the image.
    contrast, brightness
        float32 ``[N, 1, 1, 1]``; brightness in gray values 0..255.
    """

    poses: Tensor
    contrast: Tensor
    brightness: Tensor

    def __getitem__(self, part: slice) -> "Views":
        return Views(self.poses[part], self.contrast[part], self.brightness[part])


def random_views(n: int, random: torch.Generator) -> Views:
    """Draw views: up to 4 degrees, 4 % of scale, 5 % of half the width, 15 % of contrast and 12 gray values."""

    def uniform(limit: float) -> Tensor:
        return (torch.rand(n, generator=random) * 2 - 1) * limit

    angle, scale = uniform(math.radians(4)), 1 + uniform(0.04)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    rows = (cosine, -sine, uniform(0.05), sine, cosine, uniform(0.05))
    contrast, brightness = 1 + uniform(0.15), uniform(12.0)
    return Views(torch.stack(rows, 1).view(n, 2, 3), contrast.view(-1, 1, 1, 1), brightness.view(-1, 1, 1, 1))


def augment(images: Tensor, views: Views) -> Tensor:
    """Show each image in its view.

    Parameters
    ----------
    images
        float32 ``[N, 1, S, S]``, gray values 0..255, on any device.

    Returns
    -------
    Tensor
        float32 ``[N, 1, S, S]``, gray values 0..255.
    """
    device = images.device
    grid = nn.functional.affine_grid(views.poses.to(device), list(images.shape), align_corners=False)
    moved = nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    mean = moved.mean((1, 2, 3), keepdim=True)
    return ((moved - mean) * views.contrast.to(device) + mean + views.brightness.to(device)).clamp(0, 255)
