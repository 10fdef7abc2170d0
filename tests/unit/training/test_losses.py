"""Equations 1 to 3 against a transcription in loops, and their gradients against finite differences."""

import math
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crosseai.contract import UNCERTAIN
from crosseai.training.losses import contrastive_loss, cross_entropy
from tests.oracles import losses as oracle

Case = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@st.composite
def batches(draw: st.DrawFn) -> Case:
    """Embeddings, labels and patients of up to ten images of up to four patients."""
    n, classes = draw(st.integers(1, 10)), draw(st.integers(1, 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = random.choice([0, 1, UNCERTAIN], (n, classes), p=[0.5, 0.4, 0.1]).astype(np.uint8)
    patients = random.integers(0, 4, n)
    return torch.from_numpy(random.normal(size=(n, 5))), torch.from_numpy(labels), torch.from_numpy(patients)


@given(batches(), st.booleans(), st.sampled_from(["disease", "patient"]), st.sampled_from([0.1, 0.5, 2.0]))
def test_contrastive_loss_is_equation_1(
    case: Case, positive_in_denominator: bool, contrast: Literal["disease", "patient"], temperature: float
) -> None:
    embeddings, labels, patients = case
    found = contrastive_loss(
        *case, contrast=contrast, temperature=temperature, positive_in_denominator=positive_in_denominator
    )
    expected = oracle.contrastive(
        embeddings.tolist(),
        labels.tolist(),
        patients.tolist(),
        temperature=temperature,
        positive_in_denominator=positive_in_denominator,
        same_disease=contrast == "disease",
    )
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(batches())
def test_contrastive_loss_ignores_order_and_length(case: Case) -> None:
    embeddings, labels, patients = case
    order = torch.randperm(len(patients), generator=torch.Generator().manual_seed(0))
    lengths = torch.linspace(0.1, 7, len(patients), dtype=torch.float64)[:, None]
    found = contrastive_loss((lengths * embeddings)[order], labels[order], patients[order])
    torch.testing.assert_close(found, contrastive_loss(*case))


@pytest.mark.parametrize("positive_in_denominator", [True, False])
def test_gradient_of_the_contrastive_loss(positive_in_denominator: bool) -> None:
    embeddings = torch.randn(8, 4, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, 0], [1, 1], [1, 0], [0, 1], [0, 1], [0, 0], [1, 1], [0, 1]])
    patients = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])

    def loss(embeddings: torch.Tensor) -> torch.Tensor:
        return contrastive_loss(embeddings, labels, patients, positive_in_denominator=positive_in_denominator)

    assert torch.autograd.gradcheck(loss, embeddings)
    (gradient,) = torch.autograd.grad(loss(embeddings), embeddings)
    assert gradient[5].abs().sum() == 0, "an image without a finding is neither anchor nor negative"
    assert gradient[2].abs().sum() > 0, "one without a partner is a negative of others"


def test_pulling_a_pair_together_lowers_the_loss() -> None:
    labels, patients = torch.ones(4, 1, dtype=torch.int64), torch.tensor([0, 0, 1, 2])
    apart, near = torch.eye(4), torch.eye(4)
    near[1] = torch.tensor([1.0, 0.1, 0, 0])
    assert contrastive_loss(near, labels, patients) < contrastive_loss(apart, labels, patients)


@pytest.mark.parametrize(
    ("labels", "patients"),
    [
        ([[1], [1]], [0, 1]),  # every patient has a single image
        ([[1, 0], [0, 1], [1, 1]], [0, 0, 1]),  # the patient's two images share no disease
        ([[1, 0], [1, 0], [0, 1]], [0, 0, 1]),  # nobody else has the disease
        ([[0], [0], [0]], [0, 0, 1]),  # nobody has any
    ],
)
def test_without_a_pair_the_loss_is_zero_and_so_is_its_gradient(labels: list[list[int]], patients: list[int]) -> None:
    embeddings = torch.randn(len(patients), 3, requires_grad=True)
    loss = contrastive_loss(embeddings, torch.tensor(labels), torch.tensor(patients))
    loss.backward()
    assert loss.item() == 0
    assert embeddings.grad is not None
    assert not embeddings.grad.any()


@given(batches(), st.sampled_from([0.0, 0.1, 1.0]))
def test_cross_entropy_is_equation_2(case: Case, smoothing: float) -> None:
    _, labels, _ = case
    logits = torch.randn(labels.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = oracle.cross_entropy(logits.tolist(), labels.tolist(), smoothing=smoothing)
    found = cross_entropy(logits, labels, label_smoothing=smoothing)
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    mean = cross_entropy(logits, labels, label_smoothing=smoothing, class_reduction="mean")
    assert mean.item() == pytest.approx(expected / labels.shape[1], rel=1e-9, abs=1e-12)


def test_an_uncertain_label_moves_nothing() -> None:
    logits = torch.randn(3, 2, requires_grad=True)
    cross_entropy(logits, torch.tensor([[1, 0], [UNCERTAIN, 1], [0, UNCERTAIN]])).backward()
    assert logits.grad is not None
    assert (logits.grad == 0).tolist() == [[False, False], [True, False], [False, True]]


def test_positive_weight_multiplies_the_positive_term() -> None:
    logits, labels = torch.zeros(1, 2), torch.tensor([[1, 0]])
    found = cross_entropy(logits, labels, positive_weight=torch.tensor([3.0, 5.0]))
    assert found.item() == pytest.approx(3 * math.log(2) + math.log(2))
