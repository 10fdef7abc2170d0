"""The loss of Li et al. against a reference, its numerics, and which patches a box holds."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from crosseai.comparison.cohort import NO_BOXES, BoxedFindings
from crosseai.comparison.patches import (
    BOX_WEIGHT,
    FLOOR,
    GRID,
    ImageHead,
    PatchHead,
    PatchLoss,
    image_logits,
    with_patch_head,
)
from crosseai.contract import UNCERTAIN
from crosseai.training import build_model
from crosseai.training.augmentation import Views, augment, random_views
from crosseai.training.feed import Batch
from tests.oracles.patches import joint_loss

SIDE = 64
AS_IT_IS = torch.eye(2, 3)


def boxed(*findings: tuple[int, int, tuple[float, ...]]) -> BoxedFindings:
    """Of (row, class, box in model pixels)."""
    rows, classes, boxes = zip(*findings, strict=True)
    return BoxedFindings(np.array(rows), np.array(classes), np.array(boxes, np.float64))


def batch(labels: Tensor, rows: list[int], poses: Tensor | None = None) -> Batch:
    n = len(labels)
    poses = AS_IT_IS.expand(n, 2, 3) if poses is None else poses
    return Batch(torch.empty(0), labels, torch.arange(n), torch.tensor(rows), poses)


def patches_in(box: tuple[float, ...], pose: Tensor = AS_IT_IS, grid: int = 4) -> Tensor:
    """The patches that a box holds, bool ``[P, P]``."""
    loss = PatchLoss(boxed((0, 0, box)), SIDE)
    shown = batch(torch.ones(1, 1, dtype=torch.int64), [0], pose[None])
    return loss.inside(torch.zeros(1, 1, grid**2), shown).view(grid, grid)


def test_the_loss_equals_the_reference() -> None:
    random = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3, 2, 16, generator=random)
    labels = torch.tensor([[1, 0], [1, UNCERTAIN], [0, 1]])
    boxes = boxed((7, 0, (0, 0, 32, 16)), (2, 1, (48, 48, 64, 64)), (9, 1, (0, 0, 16, 16)))
    inside = [[{0, 1}, ()], [(), ()], [(), {15}]]  # the listing's row 9 is in no batch
    expected = joint_loss(logits.tolist(), labels.tolist(), inside, box_weight=BOX_WEIGHT, floor=FLOOR)
    total, second = PatchLoss(boxes, SIDE)(logits, batch(labels, [7, 5, 2]))
    assert total.item() == pytest.approx(expected, rel=1e-5)
    assert second == 0


def test_without_boxes_it_is_the_image_that_counts() -> None:
    logits, labels = torch.randn(4, 3, 9), torch.randint(0, 2, (4, 3))
    expected = joint_loss(logits.tolist(), labels.tolist(), [[()] * 3] * 4, box_weight=BOX_WEIGHT, floor=FLOOR)
    assert PatchLoss(NO_BOXES, SIDE)(logits, batch(labels, [0, 1, 2, 3]))[0].item() == pytest.approx(expected, rel=1e-4)


def test_gradient_of_the_image_is_the_formulas() -> None:
    patches = torch.randn(2, 3, 25, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(image_logits, (patches,))
    direct = torch.special.logit(1 - (FLOOR + (1 - FLOOR) * torch.sigmoid(-patches)).prod(-1))
    torch.testing.assert_close(image_logits(patches), direct)


@pytest.mark.parametrize("logit", [-200.0, -80.0, -20.0, 0.0, 20.0, 80.0, 200.0])
def test_four_hundred_sure_patches_leave_loss_and_gradient_finite(logit: float) -> None:
    patches = torch.full((2, 1, GRID**2), logit, requires_grad=True)
    boxes = boxed((0, 0, (10, 10, 30, 30)))
    for labels in (torch.ones(2, 1, dtype=torch.int64), torch.zeros(2, 1, dtype=torch.int64)):
        loss = PatchLoss(boxes, SIDE)(patches, batch(labels, [0, 1])).sum()
        (gradient,) = torch.autograd.grad(loss, patches)
        assert loss.isfinite()
        assert gradient.isfinite().all()
    if logit == -80:  # sure that there is nothing, where there is something: it must still learn
        PatchLoss(NO_BOXES, SIDE)(patches, batch(torch.ones(2, 1, dtype=torch.int64), [0, 1])).sum().backward()
        assert (patches.grad < -1e-4).all()


def test_a_box_holds_the_patches_whose_centres_it_holds() -> None:
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[1:3, 0:3] = True
    assert torch.equal(patches_in((0, 16, 48, 48)), expected)
    assert torch.equal(patches_in((8, 9, 41, 55)), expected), "half of a patch, and the centres at 8 and 40"


def test_a_small_box_holds_the_nearest_patch() -> None:
    found = patches_in((30, 17, 33, 19))
    assert found.sum() == 1
    assert found[1, 1] or found[1, 2]


@given(st.integers(0, 10_000))
def test_boxes_move_with_the_augmentation(seed: int) -> None:
    random = np.random.default_rng(seed)
    x0, y0 = random.integers(6, 30, 2)  # what lies at the border is repeated beyond it
    box = (int(x0), int(y0), int(x0 + random.integers(16, 28)), int(y0 + random.integers(16, 28)))
    image = torch.zeros(1, 1, SIDE, SIDE)
    image[:, :, box[1] : box[3], box[0] : box[2]] = 255
    poses = random_views(1, torch.Generator().manual_seed(seed)).poses
    shown = augment(image, Views(poses, torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)))[0, 0] / 255
    centres = shown[2::4, 2::4] + shown[1::4, 2::4] + shown[2::4, 1::4] + shown[1::4, 1::4]  # four pixels around it
    found = patches_in(box, poses[0], 16)
    assert found[centres > 3.9].all()
    assert not found[centres < 0.1].any()


@given(st.sampled_from(["resnet18", "resnet14", "densenet121"]), st.sampled_from([3, 12, 20]))
def test_shapes(architecture: str, grid: int) -> None:
    model = with_patch_head(build_model(architecture, triplet_attention=False, width=2), 5, grid)
    x = torch.zeros(2, 1, 96, 96)
    assert model(x).shape == (2, 5, grid**2)
    assert model.eval()(x).shape == (2, 5)


def test_the_image_follows_from_its_patches() -> None:
    head, pooled = ImageHead(3), torch.randn(2, 3 * 16)
    assert torch.equal(head.eval()(pooled), image_logits(head.train()(pooled)))


def test_an_image_begins_undecided() -> None:
    patches = PatchHead(256, 4)(torch.randn(8, 256, 7, 7)).flatten(2)
    probabilities = image_logits(patches).sigmoid()
    assert 0.25 < probabilities.min() < probabilities.max() < 0.8
