"""The same explanations without a combined graph: PyTorch by hand, and the libraries that people use today."""

import copy
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import GuidedBackprop
from torch import Tensor, nn

import tests.torchvision_cpu  # noqa: F401  before pytorch_grad_cam, which imports torchvision
from crosseai.contract import ModelSpec
from crosseai.export.heatmaps import heatmaps
from crosseai.export.sources import ReLURule

# isort: split
from pytorch_grad_cam import GradCAMPlusPlus
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

Array = npt.NDArray[Any]


def normalised(images: Array, spec: ModelSpec) -> Tensor:
    """``[N, 1, S, S]`` uint8 to float32."""
    return (torch.from_numpy(images).float() / 255 - spec.mean[0]) / spec.std[0]


class HandBatched:
    """The best that eager PyTorch can do: one forward pass, one reverse pass a class, no gradients of weights."""

    def __init__(self, model: nn.Module, spec: ModelSpec) -> None:
        self.model, self.spec = copy.deepcopy(model).requires_grad_(False), spec
        self.activations = torch.empty(0)
        self.model.get_submodule(spec.layer).register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self.activations = output

    def explain(self, images: Array, classes: Array) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, heat maps ``[N, K, h, w]`` and guided gradients ``[N, K, 1, S, S]``."""
        image = normalised(images, self.spec).requires_grad_(True)
        with ReLURule("guided"):
            guided = self.model(image)
        activations = self.activations.detach().requires_grad_(True)
        logits = self.model.head(self.model.avgpool(activations).flatten(1))  # again, for the true gradient
        columns = [torch.from_numpy(column)[:, None] for column in np.ascontiguousarray(classes.T)]
        true = [torch.autograd.grad(logits.gather(1, c).sum(), activations, retain_graph=True)[0] for c in columns]
        maps = heatmaps("gradcam++", activations.detach(), torch.stack(true, 1))
        gradients = [torch.autograd.grad(guided.gather(1, c).sum(), image, retain_graph=True)[0] for c in columns]
        return logits.detach(), maps, torch.stack(gradients, 1)


class OneClassAtATime:
    """Captum's Guided Backpropagation and pytorch-grad-cam's Grad-CAM++, one class of the batch after another."""

    def __init__(self, model: nn.Module, spec: ModelSpec) -> None:
        self.spec = spec
        self.guided = GuidedBackprop(copy.deepcopy(model))
        explained = copy.deepcopy(model)
        self.cam = GradCAMPlusPlus(explained, [explained.get_submodule(spec.layer)])

    def explain(self, images: Array, classes: Array) -> list[tuple[Tensor, Array]]:
        """Guided gradients and heat maps, for each class."""
        image, results = normalised(images, self.spec), []
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Setting backward hooks on ReLU activations", UserWarning)
            for column in classes.T:
                targets = [ClassifierOutputTarget(int(c)) for c in column]
                gradients = self.guided.attribute(image.clone().requires_grad_(True), torch.from_numpy(column.copy()))
                results.append((gradients, self.cam(image, targets)))
        return results
