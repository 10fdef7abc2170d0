"""Patches of an image, judged one by one: network and loss of Li et al., CVPR 2018."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosseai.comparison.cohort import BoxedFindings
from crosseai.contract import UNCERTAIN
from crosseai.training.contrastive import head_of
from crosseai.training.feed import Batch

GRID = 20
"""P, patches a side: the best of 12, 16 and 20 (section 4.1)."""

FLOOR = 0.98
"""Where probabilities begin in a product of patches: 0..1 becomes 0.98..1, or it would vanish (section 3.2)."""

BOX_WEIGHT = 5.0
"""lambda_bbox, weight of a boxed finding (section 4.1)."""

PRIOR = 0.1
"""Probability of a patch before training, from which an image begins at about a half. Ours: from 0.5 it begins with
every disease at 0.98, and the first epochs are spent on that; at 0.01 the loss of boxes is flat."""

PATCH_LAYER = "avgpool"
"""Child of the network that gives the patches' logits."""


class PatchHead(nn.Module):
    """Patch slicing and recognition network (section 3.1).

    The features are brought to the grid, bilinearly where it is the finer and by maxima where it is the coarser; then
    a 3x3 convolution to a quarter of the channels (512 for ResNet-50), batch norm, ReLU and a 1x1 convolution.

    Parameters
    ----------
    features
        Channels D of the last feature maps.
    classes
        Number of diseases.
    grid
        P, patches a side.
    """

    def __init__(self, features: int, classes: int, grid: int = GRID) -> None:
        super().__init__()
        self.grid = (grid, grid)
        inner = max(1, features // 4)
        last = nn.Conv2d(inner, classes, 1)
        self.recognition = nn.Sequential(
            nn.Conv2d(features, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(), last
        )
        nn.init.constant_(last.get_parameter("bias"), math.log(PRIOR / (1 - PRIOR)))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, D, h, w]`` to logits ``[N, C, P, P]``."""
        finer = self.grid >= x.shape[2:]
        sliced = F.interpolate(x, self.grid, mode="bilinear") if finer else F.adaptive_max_pool2d(x, self.grid)
        logits: Tensor = self.recognition(sliced)
        return logits


class ImageHead(nn.Module):
    """From the patches of each disease, which training needs as they are, to the image.

    Parameters
    ----------
    classes
        Number of diseases C.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, patches: Tensor) -> Tensor:
        """``[N, C * P * P]`` to ``[N, C, P * P]`` in training mode, to logits ``[N, C]`` in evaluation mode."""
        grid = patches.view(len(patches), self.classes, -1)
        return grid if self.training else image_logits(grid.float())


def with_patch_head(model: nn.Module, classes: int, grid: int = GRID) -> nn.Module:
    """Let a classifier judge patches: what pools and what follows are replaced, the layers before keep their names.

    Raises
    ------
    InputError
        If it has no linear head.
    """
    name, features = head_of(model)
    setattr(model, PATCH_LAYER, PatchHead(features, classes, grid))
    setattr(model, name, ImageHead(classes))
    return model


def surprise(patches: Tensor) -> Tensor:
    """``-log(1 - p)`` of logits, with ``1 - p`` brought to 0.98..1: what a patch says against a healthy image."""
    return -torch.log1p((FLOOR - 1) * torch.sigmoid(patches))


def image_logits(patches: Tensor) -> Tensor:
    """Logit of "any patch is positive", ``1 - prod(1 - p)`` (equation 2), with ``1 - p`` brought to 0.98..1.

    With ``s = -log(prod(1 - p))`` it is ``log(exp(s) - 1)``, which needs no product and keeps its gradient however
    sure the patches are.

    Parameters
    ----------
    patches
        Logits ``[..., P * P]``.

    Returns
    -------
    Tensor
        ``[...]``.
    """
    total = surprise(patches).sum(-1).clamp_min(torch.finfo(patches.dtype).tiny)
    return total.expm1().log()


class PatchLoss:
    """Equation 3: what is known of the patches where a finding has a box, of the image where it has none.

    Sums over diseases and averages over images. A finding of uncertain presence without a box adds nothing.

    Parameters
    ----------
    boxes
        Boxes in model pixels.
    input_size
        S.
    """

    def __init__(self, boxes: BoxedFindings, input_size: int) -> None:
        self.rows, self.classes = torch.from_numpy(boxes.rows), torch.from_numpy(boxes.classes)
        self.boxes = torch.from_numpy((2 * boxes.boxes / input_size - 1).astype(np.float32))  # as affine_grid has it

    def __call__(self, patches: Tensor, batch: Batch) -> Tensor:
        """Loss of logits ``[N, C, P * P]``: all of it is the first of two terms ``[2]``."""
        patches = patches.float()
        inside = self.inside(patches, batch)
        labels = batch.labels
        of_image = F.binary_cross_entropy_with_logits(image_logits(patches), (labels == 1).float(), reduction="none")
        of_patches = surprise(torch.where(inside, -patches, patches)).sum(-1)  # equation 1
        boxed = inside.any(-1)
        losses = torch.where(boxed, BOX_WEIGHT * of_patches, of_image.masked_fill(labels == UNCERTAIN, 0))
        total = losses.sum() / len(patches)
        return torch.stack([total, torch.zeros_like(total)])

    def inside(self, patches: Tensor, batch: Batch) -> Tensor:
        """Which patches lie in a box of the disease, as the batch shows its images, bool ``[N, C, P * P]``.

        A patch lies in a box if its centre does; of a box without one, it is the nearest.
        """
        side = math.isqrt(patches.shape[2])
        found, image = (self.rows[:, None] == batch.rows.cpu()).nonzero(as_tuple=True)
        shown = F.affine_grid(batch.poses.cpu(), [len(patches), 1, side, side], align_corners=False)
        centres, boxes = shown[image], self.boxes[found, None, None]  # where they were before the augmentation
        within = ((centres >= boxes[..., :2]) & (centres < boxes[..., 2:])).all(-1).flatten(1)
        away = (centres - (boxes[..., :2] + boxes[..., 2:]) / 2).square().sum(-1).flatten(1)
        within.scatter_(1, away.argmin(1, keepdim=True), torch.ones(1, 1, dtype=torch.bool).expand(len(image), 1))
        inside = torch.zeros(patches.shape)
        inside.index_put_((image, self.classes[found]), within.float(), accumulate=True)
        return (inside > 0).to(patches.device)
