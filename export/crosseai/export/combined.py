"""A classifier and its class-specific explanations as one forward graph."""

from typing import Any

import torch
from torch import Tensor, fx, nn

import crosseai.export.rules  # noqa: F401  registers the reverse rules
from crosseai.contract import ModelSpec
from crosseai.contract.spec import GradientMethod
from crosseai.export.capture import ClassifierGraph
from crosseai.export.heatmaps import heatmaps
from crosseai.export.precision import unscaled
from crosseai.export.reverse import sweep


class CombinedGraph(nn.Module):
    """From uint8 images to logits, heat maps and gradient maps.

    Heat maps use the true gradient at the explained layer. The rule of the gradient maps acts on every ReLU, the head's
    included, and only on the way to the input gradient.

    Parameters
    ----------
    classifier
        The captured network.
    spec
        Normalisation, classes, their calibration and sizes; how the maps are made.
    """

    image_mean: Tensor
    image_std: Tensor
    slopes: Tensor
    intercepts: Tensor
    class_indices: Tensor

    def __init__(self, classifier: ClassifierGraph, spec: ModelSpec) -> None:
        super().__init__()
        self.network = classifier.module
        self.classifier = classifier
        self.heatmap, self.gradient = spec.heatmap, spec.gradient
        self.register_buffer("image_mean", torch.tensor(spec.mean).reshape(1, -1, 1, 1))
        self.register_buffer("image_std", torch.tensor(spec.std).reshape(1, -1, 1, 1))
        self.register_buffer("slopes", torch.tensor(spec.calibration_slopes))
        self.register_buffer("intercepts", torch.tensor(spec.calibration_intercepts))
        self.register_buffer("class_indices", torch.arange(len(spec.classes)))

    def forward(self, image: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """The seven outputs of ``ModelSpec.outputs``, in that order.

        Parameters
        ----------
        image
            ``[N, 1, S, S]`` uint8, 0 black.
        targets
            ``[N, K]`` int64: classes to explain; -1 in column ``k`` is the ``k``-th most probable class of the image.
            Any other value that is no class gives maps of zeros.
        """
        normalised = (image.float() / 255 - self.image_mean) / self.image_std  # [N, channels, S, S]
        values = self._forward_values(normalised)
        logits, activations = values[self.classifier.logits], values[self.classifier.activations].float()
        explained = _resolve(targets, logits * self.slopes + self.intercepts)  # [N, K]
        activation_gradients = self._gradients(values, explained, self.classifier.activations, "plain")
        input_gradients = self._gradients(values, explained, self.classifier.image, self.gradient)
        input_gradients = input_gradients.sum(2, keepdim=True)  # [N, K, 1, S, S]
        return (
            logits,
            explained,
            heatmaps(self.heatmap, activations, activation_gradients),
            gradient_maps(input_gradients.squeeze(2)),
            activations,
            activation_gradients,
            input_gradients,
        )

    def _forward_values(self, normalised: Tensor) -> dict[fx.Node, Any]:
        values: dict[fx.Node, Any] = {self.classifier.image: normalised}
        for node in self.network.graph.nodes:
            if node.op == "get_attr":
                values[node] = self.classifier.constant(node)
            elif node.op == "call_function":
                args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
                values[node] = node.target(*args, **kwargs)
        return values

    def _gradients(self, values: dict[fx.Node, Any], explained: Tensor, wrt: fx.Node, method: GradientMethod) -> Tensor:
        """Gradient ``[N, K, ...]`` of every explained logit with respect to a node, float32."""
        classes, head = explained.shape[1], self.classifier.head

        def back(start: fx.Node, cotangent: Tensor, end: fx.Node) -> Tensor:
            return sweep(self.network.graph, values, (start, cotangent), end, classes=classes, method=method)

        seed = (explained.t().reshape(-1, 1) == self.class_indices).float()  # [K * N, C]
        if head is None or head <= wrt:  # in the order of the graph
            gradient = back(self.classifier.logits, seed, wrt)
        else:
            direction, scale = unscaled(back(self.classifier.logits, seed, head))
            trunk = head.all_input_nodes[0]
            gradient = back(trunk, direction.to(values[trunk].dtype), wrt).float() * scale
        return gradient.reshape(classes, -1, *gradient.shape[1:]).transpose(0, 1)


def _resolve(targets: Tensor, calibrated: Tensor) -> Tensor:
    """Replace -1 in column ``k`` by the ``k``-th most probable class; beyond the last class it stays -1."""
    ranking = torch.topk(calibrated, calibrated.shape[1], dim=1).indices  # [N, C]
    ranking = torch.nn.functional.pad(ranking, (0, 1), value=-1)
    column = torch.arange(targets.shape[1], device=targets.device).clamp(max=calibrated.shape[1])
    return torch.where(targets == -1, ranking.index_select(1, column), targets)


def gradient_maps(input_gradients: Tensor) -> Tensor:
    """Absolute gradients ``[N, K, S, S]``, each map scaled from its min..max to 0..255 and rounded; uint8.

    A constant map becomes zeros.
    """
    magnitude = input_gradients.abs()
    low = magnitude.amin((2, 3), keepdim=True)
    span = magnitude.amax((2, 3), keepdim=True) - low
    scaled = (magnitude - low) / torch.where(span > 0, span, 1.0)
    return (scaled * 255).round().to(torch.uint8)
