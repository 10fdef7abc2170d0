"""Heat maps of the combined graph, from the activations of a layer and the true gradients of the explained logits.

``A`` is a channel of the activations, ``g`` its gradient; sums and means run over the pixels of the map.
"""

import torch
from torch import Tensor

from crosseai.contract.spec import HeatmapMethod


def heatmaps(method: HeatmapMethod, activations: Tensor, gradients: Tensor) -> Tensor:
    """Class activation maps, unscaled.

    Parameters
    ----------
    method
        ``gradcam++``: see :func:`gradcam_plus_plus_weights`. ``gradcam`` (Selvaraju et al., ICCV 2017, equations 1 and
        2): channels weighed by ``mean(g)``. ``cam`` (Zhou et al., CVPR 2016, equation 2): by the weights of the linear
        head, which are ``sum(g)`` where the head is a global average pooling and one linear layer, without a ReLU.
        ``layercam`` (Jiang et al., TIP 2021): each pixel of ``A`` weighed by its own ``relu(g)``.
    activations
        ``[N, D, h, w]``.
    gradients
        ``[N, K, D, h, w]``, the true gradient of each explained logit.

    Returns
    -------
    Tensor
        ``[N, K, h, w]``; not negative but for ``cam``.
    """
    if method == "layercam":
        return torch.relu((torch.relu(gradients) * activations.unsqueeze(1)).sum(2))
    if method == "cam":
        return _weighed(gradients.sum((3, 4)), activations)
    if method == "gradcam":
        return torch.relu(_weighed(gradients.mean((3, 4)), activations))
    return torch.relu(_weighed(gradcam_plus_plus_weights(activations, gradients), activations))


def gradcam_plus_plus_weights(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Weights of the channels by Grad-CAM++ (Chattopadhay et al., WACV 2018), ``[N, K, D]``.

    Equation 19 of the paper weighs each pixel of channel ``A`` with gradient ``g`` by
    ``alpha = g^2 / (2 g^2 + sum(A) g^3)``, and a channel by ``w = sum(alpha relu(g))``. Cancelling ``g^2`` leaves
    ``relu(g) / (2 + sum(A) g)``, the same number where ``g`` is not zero and zero where it is. It needs no epsilon
    (gradients are about 1e-4, so that ``g^3`` would vanish beside one) and cannot divide by zero for activations
    after a ReLU, whose sum is not negative. For other layers a vanishing denominator gives weight zero.
    """
    mass = activations.sum((2, 3), keepdim=True).unsqueeze(1)  # [N, 1, D, 1, 1]
    denominator = 2 + mass * gradients
    alpha = torch.where(denominator == 0, 0.0, 1 / torch.where(denominator == 0, 1.0, denominator))
    return (alpha * torch.relu(gradients)).sum((3, 4))


def _weighed(weights: Tensor, activations: Tensor) -> Tensor:
    """Sum of the channels ``[N, D, h, w]``, each times its weight ``[N, K, D]``: ``[N, K, h, w]``."""
    maps = weights @ activations.flatten(2)  # [N, K, h * w]
    return maps.reshape(*maps.shape[:2], *activations.shape[2:])
