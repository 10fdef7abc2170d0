"""Exchangeable sources of explanations in eager PyTorch: any heat map can be fused with any gradient map.

A heat map is read off the activations ``A`` of a layer and their true gradient ``g``, both ``[N, D, h, w]``. A gradient
map is the attribution of the normalised image ``[N, channels, S, S]``. Shares no code with the exported graph, which
holds the sources that are one reverse pass.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from crosseai.contract.spec import GradientMethod, HeatmapMethod

Score: TypeAlias = Callable[[Tensor], Tensor]
"""From normalised images ``[N, channels, S, S]`` to the logit that is explained of each, ``[N]``."""

GradientSource: TypeAlias = Literal["guided", "deconvnet", "plain", "smoothgrad", "integrated"]
"""The rules that an exported graph knows, SmoothGrad, and Integrated Gradients."""


def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM++ (Chattopadhay et al., WACV 2018), equation 19 term by term."""
    denominator = 2 * gradients**2 + activations.sum((2, 3), keepdim=True) * gradients**3
    alpha = torch.where(denominator != 0, gradients**2 / denominator, 0.0)
    weights = (alpha * gradients.clamp(min=0)).sum((2, 3), keepdim=True)
    return (weights * activations).sum(1).clamp(min=0)


def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM (Selvaraju et al., ICCV 2017), equations 1 and 2: ``relu(sum(mean(g) A))``."""
    return torch.einsum("ndhw,nd->nhw", activations, gradients.mean((2, 3))).clamp(min=0)


def layercam(activations: Tensor, gradients: Tensor) -> Tensor:
    """LayerCAM (Jiang et al., TIP 2021): ``relu(sum(relu(g) A))``, each pixel weighed by its own gradient."""
    return (gradients.clamp(min=0) * activations).sum(1).clamp(min=0)


def cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """CAM (Zhou et al., CVPR 2016), equation 2: ``sum(w A)`` with the weights ``w`` of the linear head, no ReLU.

    Behind a global average pooling of ``h w`` pixels and one linear layer the gradient is ``w / (h w)`` at each of
    them, whatever the image. Any other head has no CAM.
    """
    _, _, height, width = activations.shape
    return (height * width * gradients[:, :, :1, :1] * activations).sum(1)


HEATMAPS: Mapping[HeatmapMethod, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam++": gradcam_plus_plus,
    "gradcam": gradcam,
    "layercam": layercam,
    "cam": cam,
}
"""From activations and gradients to maps ``[N, h, w]``."""

_RELUS = {
    F.relu,
    torch.relu,
    torch.relu_,
    Tensor.relu,
    Tensor.relu_,
    torch.ops.aten.relu.default,
    torch.ops.aten.relu_.default,
}


class ReLURule(TorchFunctionMode):
    """Inside this context every ReLU, module or function, sends gradients back by a rule of its own.

    Parameters
    ----------
    method
        ``plain``: the true gradient, where the input was positive. ``deconvnet`` (Zeiler & Fergus, ECCV 2014): where
        the gradient is positive. ``guided`` (Springenberg et al., ICLR 2015 workshop, section 3.4): where both are.
    """

    def __init__(self, method: GradientMethod) -> None:
        super().__init__()
        self.method = method

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Change the way back of ReLUs."""
        if func in _RELUS and self.method == "deconvnet":
            x, *options = args
            return _Deconvolution.apply(x, lambda x: func(x, *options, **(kwargs or {})))  # type: ignore[no-untyped-call]
        output = func(*args, **(kwargs or {}))
        if func in _RELUS and self.method == "guided" and output.requires_grad:
            output.register_hook(lambda gradient: gradient.clamp(min=0))
        return output


class _Deconvolution(torch.autograd.Function):
    """A ReLU forwards, and a ReLU of the gradient backwards."""

    @staticmethod
    def forward(context: Any, x: Tensor, relu: Callable[[Tensor], Tensor]) -> Tensor:
        y = relu(x)
        if y is x:
            context.mark_dirty(x)
        return y

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.clamp(min=0), None


def reverse_pass(score: Score, image: Tensor, method: GradientMethod = "plain") -> Tensor:
    """Gradient of the score with respect to the images ``[N, channels, S, S]``, by a rule of the ReLUs."""
    image = image.detach().requires_grad_(True)
    with ReLURule(method):
        total = score(image).sum()
    (gradient,) = torch.autograd.grad(total, image)
    return gradient


def smoothgrad(score: Score, image: Tensor, *, samples: int = 50, noise: float = 0.15, seed: int = 0) -> Tensor:
    """SmoothGrad (Smilkov et al., arXiv 1706.03825): the mean gradient of ``samples`` copies of the image with noise.

    Parameters
    ----------
    score
        What is explained.
    image
        Normalised images ``[N, channels, S, S]``.
    samples
        Number of copies; the paper finds little gain beyond 50.
    noise
        Standard deviation as a share of each image's range; the paper recommends 0.1 to 0.2.
    seed
        Of the noise, which is the same for all images: an image has one map, whatever it is explained with.
    """
    generator = torch.Generator().manual_seed(seed)
    deviation = noise * (image.amax((1, 2, 3), keepdim=True) - image.amin((1, 2, 3), keepdim=True))
    total = torch.zeros_like(image)
    for _ in range(samples):
        noisy = image + deviation * torch.randn(1, *image.shape[1:], generator=generator, dtype=image.dtype)
        total += reverse_pass(score, noisy)
    return total / samples


def integrated_gradients(score: Score, image: Tensor, black: Tensor, *, steps: int = 50) -> Tensor:
    """Integrated Gradients (Sundararajan et al., ICML 2017, equation 1), from a black image.

    Its sum over the pixels is the score minus that of the black image, up to the error of the integral. The gradient is
    taken at the middle of each of ``steps`` steps, not at their ends as in equation 3: the error is smaller.
    """
    total = torch.zeros_like(image)
    for step in range(steps):
        total += reverse_pass(score, black + (step + 0.5) / steps * (image - black))
    return (image - black) * total / steps


GRADIENTS: Mapping[GradientSource, Callable[[Score, Tensor, Tensor], Tensor]] = {
    "guided": lambda score, image, _black: reverse_pass(score, image, "guided"),
    "deconvnet": lambda score, image, _black: reverse_pass(score, image, "deconvnet"),
    "plain": lambda score, image, _black: reverse_pass(score, image),
    "smoothgrad": lambda score, image, _black: smoothgrad(score, image),
    "integrated": integrated_gradients,
}
"""From a score, normalised images and a black one ``[1, channels, 1, 1]`` to attributions of the images' shape."""
