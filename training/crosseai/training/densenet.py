"""DenseNet (Huang et al., CVPR 2017) on one gray channel; children are named as in torchvision."""

from collections import OrderedDict
from typing import ClassVar

import torch
from torch import Tensor, nn

BOTTLENECK = 4
"""Inner channels of a dense layer over its growth."""


class DenseLayer(nn.Module):
    """1x1 and 3x3 convolution, each after batch norm and ReLU; the output is appended to the input."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, BOTTLENECK * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(BOTTLENECK * growth)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(BOTTLENECK * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in_channels, H, W] -> [N, in_channels + growth, H, W]``."""
        y = self.conv1(self.relu1(self.norm1(x)))
        return torch.cat([x, self.conv2(self.relu2(self.norm2(y)))], 1)


class DenseNet(nn.Module):
    """DenseNet classifier of a normalised gray image; see :func:`crosseai.training.build_model`.

    Parameters
    ----------
    layers
        Dense layers in each of the four blocks.
    width
        Channels of the stem, twice the growth.
    classes
        Number of logits.
    """

    explained_layer: ClassVar[str] = "relu"

    def __init__(self, layers: tuple[int, int, int, int], width: int, classes: int) -> None:
        super().__init__()
        growth, channels = max(1, width // 2), width
        modules: OrderedDict[str, nn.Module] = OrderedDict(
            conv0=nn.Conv2d(1, width, 7, stride=2, padding=3, bias=False),
            norm0=nn.BatchNorm2d(width),
            relu0=nn.ReLU(),
            pool0=nn.MaxPool2d(3, stride=2, padding=1),
        )
        for i, count in enumerate(layers, start=1):
            if i > 1:
                modules[f"transition{i - 1}"] = _transition(channels)
                channels //= 2
            block: OrderedDict[str, nn.Module] = OrderedDict(
                (f"denselayer{j + 1}", DenseLayer(channels + j * growth, growth)) for j in range(count)
            )
            modules[f"denseblock{i}"] = nn.Sequential(block)
            channels += count * growth
        modules["norm5"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(modules)
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, 1, S, S]`` normalised to logits ``[N, classes]``."""
        x = self.relu(self.features(x))  # [N, 16 width, S/32, S/32]
        logits: Tensor = self.classifier(self.avgpool(x).flatten(1))
        return logits


def _transition(channels: int) -> nn.Sequential:
    """Half the channels, half the side."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(channels),
            relu=nn.ReLU(),
            conv=nn.Conv2d(channels, channels // 2, 1, bias=False),
            pool=nn.AvgPool2d(2),
        )
    )
