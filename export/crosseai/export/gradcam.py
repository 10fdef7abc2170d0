"""Grad-CAM++ heat maps (Chattopadhay et al., WACV 2018)."""

import torch
from torch import Tensor


def heatmaps(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Class activation maps, unscaled.

    Equation 19 of the paper weighs each pixel of channel ``A`` with gradient ``g`` by
    ``alpha = g^2 / (2 g^2 + sum(A) g^3)``, and a channel by ``w = sum(alpha relu(g))``. Cancelling ``g^2`` leaves
    ``relu(g) / (2 + sum(A) g)``, the same number where ``g`` is not zero and zero where it is. It needs no epsilon
    (gradients are about 1e-4, so that ``g^3`` would vanish beside one) and cannot divide by zero for activations
    after a ReLU, whose sum is not negative. For other layers a vanishing denominator gives weight zero.

    Parameters
    ----------
    activations
        ``[N, D, h, w]``.
    gradients
        ``[N, K, D, h, w]``, the true gradient of each explained logit.

    Returns
    -------
    Tensor
        ``[N, K, h, w]``, not negative; zero where no channel speaks for the class.
    """
    mass = activations.sum((2, 3), keepdim=True).unsqueeze(1)  # [N, 1, D, 1, 1]
    denominator = 2 + mass * gradients
    alpha = torch.where(denominator == 0, 0.0, 1 / torch.where(denominator == 0, 1.0, denominator))
    weights = (alpha * torch.relu(gradients)).sum((3, 4))  # [N, K, D]
    maps = torch.relu(weights @ activations.flatten(2))  # [N, K, h * w]
    return maps.reshape(*maps.shape[:2], *activations.shape[2:])
