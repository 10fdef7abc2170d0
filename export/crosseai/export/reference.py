"""What the exported graph must reproduce, by eager autograd with hooks, one class at a time.

Shares no code with the exported graph. In float64 it is the truth; in float32 it shows how far PyTorch's own rounding
strays from it: where an image is constant (a black border), maxima tie, and rounding picks another one.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import ExportedProgram, unflatten
from torch.overrides import TorchFunctionMode

from crosseai.contract import ModelSpec
from crosseai.export.golden import Array
from crosseai.export.noise import quiet_torch

_RELUS = {
    F.relu,
    torch.relu,
    torch.relu_,
    Tensor.relu,
    Tensor.relu_,
    torch.ops.aten.relu.default,
    torch.ops.aten.relu_.default,
}


class GuidedReLU(TorchFunctionMode):
    """Inside this context every ReLU, module or function, passes positive gradients only."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Hook the output of ReLUs."""
        output = func(*args, **(kwargs or {}))
        if func in _RELUS and output.requires_grad:
            output.register_hook(lambda gradient: gradient.clamp(min=0))
        return output


@dataclass(frozen=True, slots=True)
class Explanation:
    """Logits and explanations of one class for each image of a batch.

    Parameters
    ----------
    logits
        ``[N, C]``.
    activations
        ``[N, D, h, w]``.
    activation_gradients
        ``[N, D, h, w]``.
    input_gradients
        ``[N, 1, S, S]``, guided, summed over the repeated channels.
    """

    logits: Tensor
    activations: Tensor
    activation_gradients: Tensor
    input_gradients: Tensor

    @property
    def heatmaps(self) -> Tensor:
        """Grad-CAM++ ``[N, h, w]``, equation 19 of the paper term by term."""
        g = self.activation_gradients
        denominator = 2 * g**2 + self.activations.sum((2, 3), keepdim=True) * g**3
        alpha = torch.where(denominator != 0, g**2 / denominator, 0.0)
        weights = (alpha * g.clamp(min=0)).sum((2, 3), keepdim=True)
        return (weights * self.activations).sum(1).clamp(min=0)

    @property
    def gradient_maps(self) -> Tensor:
        """Absolute input gradients ``[N, S, S]``, scaled to whole levels 0..255."""
        magnitude = self.input_gradients.abs().squeeze(1)
        low, high = magnitude.amin((1, 2), keepdim=True), magnitude.amax((1, 2), keepdim=True)
        return torch.where(high > low, (magnitude - low) / (high - low) * 255, 0.0).round()


class EagerReference:
    """A classifier explained by eager autograd.

    Parameters
    ----------
    model
        The classifier; it is copied.
    spec
        Normalisation and explained layer.
    dtype
        Arithmetic: float64 or float32.
    """

    def __init__(self, model: nn.Module | ExportedProgram, spec: ModelSpec, dtype: torch.dtype) -> None:
        with quiet_torch():
            self.model = unflatten(model) if isinstance(model, ExportedProgram) else copy.deepcopy(model)
        self.model.to(dtype)
        self.dtype = dtype
        self.spec = spec
        self._activations: list[Tensor] = []
        layer = self.model.get_submodule(spec.layer)
        layer.register_forward_hook(lambda _module, _inputs, output: self._keep(output))

    def logits(self, images: Array) -> Array:
        """``[N, C]`` for uint8 images ``[N, 1, S, S]``."""
        with torch.no_grad():
            logits, _ = self._run(self._normalised(images))
        return logits.numpy()

    def explain(self, images: Array, classes: Array) -> Explanation:
        """Explain one class for each uint8 image ``[N, 1, S, S]``; ``classes`` is ``[N]``, -1 gives zeros."""
        chosen = torch.from_numpy(classes)
        with torch.enable_grad():
            image = self._normalised(images)
            logits, activations = self._run(image)
            (activation_gradients,) = torch.autograd.grad(_selected(logits, chosen), activations)
            image = self._normalised(images).requires_grad_(True)
            with GuidedReLU():
                guided_logits, _ = self._run(image)
            (input_gradients,) = torch.autograd.grad(_selected(guided_logits, chosen), image)
        summed = input_gradients.sum(1, keepdim=True)
        return Explanation(logits.detach(), activations.detach(), activation_gradients, summed)

    def _normalised(self, images: Array) -> Tensor:
        mean, std = (torch.tensor(v, dtype=self.dtype).reshape(1, -1, 1, 1) for v in (self.spec.mean, self.spec.std))
        return (torch.from_numpy(images).to(self.dtype) / 255 - mean) / std

    def _keep(self, activations: Tensor) -> Tensor:
        """Remember a layer's output, and pass on a copy: an in-place ReLU after the layer must not change it."""
        self._activations.append(activations)
        return activations.clone()

    def _run(self, image: Tensor) -> tuple[Tensor, Tensor]:
        self._activations.clear()
        logits: Tensor = self.model(image)
        return logits, self._activations[-1]


def _selected(logits: Tensor, classes: Tensor) -> Tensor:
    """Sum of one logit an image; images of class -1 add nothing."""
    return (logits.gather(1, classes.clamp(min=0)[:, None])[:, 0] * (classes >= 0)).sum()
