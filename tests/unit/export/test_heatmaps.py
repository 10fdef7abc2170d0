"""Heat maps against the papers' equations, pixel by pixel."""

import numpy as np
import pytest
import torch

from crosseai.export.heatmaps import heatmaps


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


def equation_2_of_grad_cam(activations, gradients):
    """Selvaraju et al., equations 1 and 2."""
    weights = [channel.sum() / channel.size for channel in gradients]
    return np.maximum(sum(w * a for w, a in zip(weights, activations, strict=True)), 0)


def layer_cam(activations, gradients):
    """Jiang et al.: every pixel of a channel by its own gradient, if that is positive."""
    total = np.zeros(activations.shape[1:])
    for channel, y, x in np.ndindex(activations.shape):
        total[y, x] += max(gradients[channel, y, x], 0) * activations[channel, y, x]
    return np.maximum(total, 0)


def equation_2_of_cam(activations, gradients):
    """Zhou et al., with weights of which each pixel's gradient is an equal share."""
    weights = [channel.sum() for channel in gradients]
    return sum(w * a for w, a in zip(weights, activations, strict=True))


EQUATIONS = {
    "gradcam++": equation_19,
    "gradcam": equation_2_of_grad_cam,
    "layercam": layer_cam,
    "cam": equation_2_of_cam,
}


@pytest.mark.parametrize("method", EQUATIONS)
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-12])
def test_equals_the_paper_at_any_scale_of_gradients(method, scale):
    generator = torch.Generator().manual_seed(1)
    activations = torch.rand(2, 5, 3, 4, generator=generator)
    gradients = torch.randn(2, 3, 5, 3, 4, generator=generator) * scale
    found = heatmaps(method, activations, gradients)
    assert found.shape == (2, 3, 3, 4)
    for n in range(2):
        for k in range(3):
            expected = EQUATIONS[method](activations[n].double().numpy(), gradients[n, k].double().numpy())
            np.testing.assert_allclose(found[n, k], expected, rtol=1e-5, atol=1e-6 * scale)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_no_channel_speaks_for_the_class(value):
    activations = torch.rand(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(heatmaps("gradcam++", activations, torch.full((1, 2, 4, 2, 2), value)), torch.zeros(1, 2, 2, 2))
    assert torch.equal(
        heatmaps("gradcam++", torch.zeros_like(activations), torch.ones(1, 1, 4, 2, 2)), torch.zeros(1, 1, 2, 2)
    )


def test_a_vanishing_denominator_of_a_layer_without_relu_gives_no_nan():
    activations = torch.full((1, 1, 1, 2), -1.0)  # sums to -2; the denominator is 2 - 2 g
    assert torch.equal(heatmaps("gradcam++", activations, torch.ones(1, 1, 1, 1, 2)), torch.zeros(1, 1, 1, 2))
