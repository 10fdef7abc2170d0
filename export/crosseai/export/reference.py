"""What the exported graph must reproduce, by eager autograd with hooks, one class at a time.

Shares no code with the exported graph. In float64 it is the truth; in float32 it shows how far PyTorch's own rounding
strays from it: where an image is constant (a black border), maxima tie, and rounding picks another one.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram, unflatten

from crosseai.contract import InputError, ModelSpec
from crosseai.contract.golden import Array
from crosseai.contract.spec import HeatmapMethod
from crosseai.export.noise import quiet_torch
from crosseai.export.sources import GRADIENTS, HEATMAPS, GradientSource

_ROUNDING = 1e-4
"""Relative difference up to which the gradients of a linear head count as the same."""


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
        ``[N, D, h, w]``, the true ones.
    heatmaps
        ``[N, h, w]``, unscaled.
    input_gradients
        ``[N, 1, S, S]``, by the chosen source, summed over the repeated channels.
    """

    logits: Tensor
    activations: Tensor
    activation_gradients: Tensor
    heatmaps: Tensor
    input_gradients: Tensor

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
    heatmap, gradient
        Sources of the maps (:mod:`crosseai.export.sources`); those of the spec unless given.

    Raises
    ------
    InputError
        If there is no such layer.
    """

    def __init__(
        self,
        model: nn.Module | ExportedProgram,
        spec: ModelSpec,
        dtype: torch.dtype,
        *,
        heatmap: HeatmapMethod | None = None,
        gradient: GradientSource | None = None,
    ) -> None:
        with quiet_torch():
            self.model = unflatten(model) if isinstance(model, ExportedProgram) else copy.deepcopy(model)
        self.model.to("cpu", dtype)
        self.dtype = dtype
        self.spec = spec
        self.heatmap: HeatmapMethod = heatmap or spec.heatmap
        self.gradient: GradientSource = gradient or spec.gradient
        self._activations: list[Tensor] = []
        try:
            self._layer = self.model.get_submodule(spec.layer)
        except AttributeError as error:
            raise InputError(f"model: expected a layer {spec.layer!r}: {error}") from error
        self._layer.register_forward_hook(lambda _module, _inputs, output: self._keep(output))

    def logits(self, images: Array) -> Array:
        """``[N, C]`` for uint8 images ``[N, 1, S, S]``."""
        with torch.no_grad():
            logits, _ = self._run(self._normalised(images))
        return logits.numpy()

    def explain(self, images: Array, classes: Array) -> Explanation:
        """Explain one class for each uint8 image ``[N, 1, S, S]``; ``classes`` is int64 ``[N]``, -1 gives zeros.

        Raises
        ------
        InputError
            If the heat map is CAM, and the network's head has none.
        """
        chosen = torch.from_numpy(classes)
        black = self._normalised(np.zeros((1, 1, 1, 1), np.uint8))
        image = self._normalised(images).requires_grad_(True)  # the parameters may be frozen
        with torch.enable_grad():
            logits, activations = self._run(image)
            (activation_gradients,) = torch.autograd.grad(_selected(logits, chosen).sum(), activations)
            if self.heatmap == "cam":
                self._require_linear_head(image, chosen, activation_gradients)
            attributions = GRADIENTS[self.gradient](lambda x: _selected(self._run(x)[0], chosen), image.detach(), black)
        activations = activations.detach()
        heatmaps = HEATMAPS[self.heatmap](activations, activation_gradients)
        summed = attributions.sum(1, keepdim=True)
        return Explanation(logits.detach(), activations, activation_gradients, heatmaps, summed)

    def _require_linear_head(self, image: Tensor, chosen: Tensor, gradients: Tensor) -> None:
        """Gradients must be the same at every pixel, and for random activations in the place of the layer's own."""
        generator = torch.Generator().manual_seed(0)
        random = 100 * torch.randn(gradients.shape, generator=generator, dtype=self.dtype)
        random.requires_grad_(True)
        handle = self._layer.register_forward_hook(lambda _module, _inputs, _output: random.clone())
        try:
            logits, _ = self._run(image)
        finally:
            handle.remove()
        elsewhere = torch.autograd.grad(_selected(logits, chosen).sum(), random)[0]
        uniform = gradients.mean((2, 3), keepdim=True)
        limit = _ROUNDING * uniform.abs().max()
        if any((found - uniform).abs().max() > limit for found in (gradients, elsewhere)):
            raise InputError(
                f"heat map cam: expected global average pooling and one linear layer after {self.spec.layer!r}, found "
                "a head that is not linear in its activations; the other heat maps take any head"
            )

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
    """One logit an image, ``[N]``; zero for class -1."""
    return logits.gather(1, classes.clamp(min=0)[:, None])[:, 0] * (classes >= 0)
