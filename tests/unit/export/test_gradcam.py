"""Grad-CAM++ against the paper's equation, pixel by pixel."""

import numpy as np
import pytest
import torch

from crosseai.export.gradcam import heatmaps


def equation_19(activations, gradients):
    """Chattopadhay et al., equations 10 and 19, in loops and float64."""
    depth, height, width = activations.shape
    total = np.zeros((height, width))
    for channel in range(depth):
        mass = activations[channel].sum()
        weight = 0.0
        for g in gradients[channel].ravel():
            if g > 0:
                weight += g**2 / (2 * g**2 + mass * g**3) * g
        total += weight * activations[channel]
    return np.maximum(total, 0)


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-12])
def test_equals_the_paper_at_any_scale_of_gradients(scale):
    generator = torch.Generator().manual_seed(1)
    activations = torch.rand(2, 5, 3, 4, generator=generator)
    gradients = torch.randn(2, 3, 5, 3, 4, generator=generator) * scale
    found = heatmaps(activations, gradients)
    assert found.shape == (2, 3, 3, 4)
    for n in range(2):
        for k in range(3):
            expected = equation_19(activations[n].double().numpy(), gradients[n, k].double().numpy())
            np.testing.assert_allclose(found[n, k], expected, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_no_channel_speaks_for_the_class(value):
    activations = torch.rand(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(heatmaps(activations, torch.full((1, 2, 4, 2, 2), value)), torch.zeros(1, 2, 2, 2))
    assert torch.equal(heatmaps(torch.zeros_like(activations), torch.ones(1, 1, 4, 2, 2)), torch.zeros(1, 1, 2, 2))


def test_a_vanishing_denominator_of_a_layer_without_relu_gives_no_nan():
    activations = torch.full((1, 1, 1, 2), -1.0)  # sums to -2; the denominator is 2 - 2 g
    assert torch.equal(heatmaps(activations, torch.ones(1, 1, 1, 1, 2)), torch.zeros(1, 1, 1, 2))
