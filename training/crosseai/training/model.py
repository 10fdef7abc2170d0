"""The classifiers: ResNets on one gray channel with triplet attention and an MLP head, and the registry of them all.

Children are named as in torchvision and in the authors' triplet attention code, so that published state dicts load
by their own names. Every ReLU is a module of its own: Guided Backpropagation acts on each of them.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from crosseai.contract import InputError
from crosseai.training.densenet import DenseNet


class ConvBatchNorm(nn.Module):
    """Convolution of a gate's two pooled maps into one, and its batch norm (the authors' ``BasicConv``)."""

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)
        self.bn = nn.BatchNorm2d(1)

    def forward(self, pooled: Tensor) -> Tensor:
        """``[N, 2, a, b] -> [N, 1, a, b]``."""
        normalised: Tensor = self.bn(self.conv(pooled))
        return normalised


class AttentionGate(nn.Module):
    """A third of the weights of one branch: pool one dimension away, convolve the remaining plane, squash.

    Parameters
    ----------
    pooled_dim
        Dimension of ``[N, C, H, W]`` that is pooled: 1 channel, 2 height, 3 width.
    kernel_size
        Side of the convolution kernel; 7 as published.
    """

    def __init__(self, pooled_dim: int, kernel_size: int = 7) -> None:
        super().__init__()
        self.pooled_dim = pooled_dim
        self.conv = ConvBatchNorm(kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to weights in 0..1/3 of the same rank, of size 1 in the pooled dimension."""
        # torch.max, not amax: its gradient goes to the first maximum, as published; amax shares it among ties
        pooled = torch.stack((x.max(self.pooled_dim).values, x.mean(self.pooled_dim)), dim=1)
        swapped = self.pooled_dim == 3  # the published branch sees the plane as (H, C), pooling leaves (C, H)
        weights = self.conv(pooled.transpose(2, 3)).transpose(2, 3) if swapped else self.conv(pooled)
        # ONNX Runtime takes five times as long to scale a tensor whose last dimension is 1
        return (torch.sigmoid(weights).squeeze(1) * (1 / 3)).unsqueeze(self.pooled_dim)


class TripletAttention(nn.Module):
    """Triplet attention (Misra et al., WACV 2021, equation 4): mean of three gated copies of the input.

    The published code rotates the whole tensor for each branch. Pooling a dimension away leaves the same plane
    without a rotation, and ``(x * a + x * b + x * c) / 3`` is ``x * (a / 3 + b / 3 + c / 3)``: equal up to rounding;
    the large tensor is read once for the product, and only small ones are divided.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cw = AttentionGate(pooled_dim=2)
        self.hc = AttentionGate(pooled_dim=3)
        self.hw = AttentionGate(pooled_dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same shape."""
        gated: Tensor = x * (self.cw(x) + self.hc(x) + self.hw(x))
        return gated


class Bottleneck(nn.Module):
    """Residual block 1x1, 3x3 (which carries the stride), 1x1, then triplet attention, then the addition."""

    expansion: ClassVar[int] = 4
    """Output channels over inner channels (He et al., CVPR 2016)."""

    def __init__(self, in_channels: int, inner_channels: int, stride: int, triplet_attention: bool) -> None:
        super().__init__()
        out_channels = self.expansion * inner_channels
        self.conv1 = nn.Conv2d(in_channels, inner_channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(inner_channels, inner_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner_channels)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(inner_channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.triplet_attention = TripletAttention() if triplet_attention else None
        self.downsample = _downsample(in_channels, out_channels, stride)
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in_channels, H, W] -> [N, 4 * inner_channels, H / stride, W / stride]``."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        if self.triplet_attention is not None:
            y = self.triplet_attention(y)
        output: Tensor = self.relu3(y + (x if self.downsample is None else self.downsample(x)))
        return output


class BasicBlock(nn.Module):
    """Residual block of two 3x3, the first of which carries the stride; then as a bottleneck."""

    expansion: ClassVar[int] = 1

    def __init__(self, in_channels: int, inner_channels: int, stride: int, triplet_attention: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, inner_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(inner_channels, inner_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner_channels)
        self.triplet_attention = TripletAttention() if triplet_attention else None
        self.downsample = _downsample(in_channels, inner_channels, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in_channels, H, W] -> [N, inner_channels, H / stride, W / stride]``."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.triplet_attention is not None:
            y = self.triplet_attention(y)
        output: Tensor = self.relu2(y + (x if self.downsample is None else self.downsample(x)))
        return output


def _downsample(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """The shortcut of a block that changes the shape."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class ResNet(nn.Module):
    """ResNet classifier of a normalised gray image; see :func:`build_model`.

    Parameters
    ----------
    block
        What the stages are made of.
    counts
        Blocks in each of the four stages.
    width
        Channels of the stem.
    classes
        Number of logits.
    triplet_attention
        Whether every block ends in triplet attention.
    """

    explained_layer: ClassVar[str] = "layer4"

    def __init__(
        self,
        block: type[Bottleneck] | type[BasicBlock],
        counts: tuple[int, int, int, int],
        width: int,
        classes: int,
        triplet_attention: bool,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        outputs = [block.expansion * (width << stage) for stage in range(4)]
        stages = [
            nn.Sequential(
                block(in_channels, width << stage, 1 if stage == 0 else 2, triplet_attention),
                *(block(out_channels, width << stage, 1, triplet_attention) for _ in range(counts[stage] - 1)),
            )
            for stage, (in_channels, out_channels) in enumerate(pairwise([width, *outputs]))
        ]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        features = outputs[-1]
        self.head = nn.Sequential(nn.Linear(features, features // 4), nn.ReLU(), nn.Linear(features // 4, classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """``[N, 1, S, S]`` normalised to logits ``[N, classes]``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # [N, width, S/4, S/4]
        x = self.layer2(self.layer1(x))  # [N, 2 width * expansion, S/8, S/8]
        x = self.layer4(self.layer3(x))  # [N, 8 width * expansion, S/32, S/32]
        logits: Tensor = self.head(self.avgpool(x).flatten(1))
        return logits


Classifier: TypeAlias = ResNet | DenseNet

RESNETS: Mapping[str, tuple[type[Bottleneck] | type[BasicBlock], tuple[int, int, int, int]]] = {
    "resnet14": (Bottleneck, (1, 1, 1, 1)),
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet26": (Bottleneck, (2, 2, 2, 2)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}
ARCHITECTURES = (*RESNETS, "densenet121")
"""Names that :func:`build_model` knows."""


def build_model(
    architecture: str = "resnet50", *, triplet_attention: bool = True, classes: int = 8, width: int = 64
) -> Classifier:
    """Build a classifier with fresh weights (drawn from torch's global generator).

    Parameters
    ----------
    architecture
        One of ``ARCHITECTURES``.
    triplet_attention
        Whether every residual block ends in triplet attention; a DenseNet has no such blocks.
    classes
        Number of logits.
    width
        Channels of the stem; 64 is the published networks'.

    Raises
    ------
    InputError
        If the architecture is unknown or cannot have triplet attention, or ``classes`` or ``width`` is not positive.

    Examples
    --------
    >>> model = build_model("resnet14", width=4).eval()
    >>> model(torch.zeros(2, 1, 64, 64)).shape
    torch.Size([2, 8])
    """
    if architecture not in ARCHITECTURES:
        raise InputError(f"architecture: expected one of {', '.join(ARCHITECTURES)}, found {architecture!r}")
    if classes < 1 or width < 1:
        raise InputError(f"model: expected classes >= 1 and width >= 1, found {classes} and {width}")
    if architecture in RESNETS:
        return ResNet(*RESNETS[architecture], width, classes, triplet_attention)
    if triplet_attention:
        raise InputError(f"model: expected no triplet attention in {architecture}, which has no residual blocks")
    return DenseNet((6, 12, 24, 16), width, classes)


def feature_shape(model: nn.Module, layer: str, channels: int, input_size: int) -> tuple[int, int, int]:
    """``(D, h, w)`` of a layer's output for one square image.

    Parameters
    ----------
    model
        Any classifier; left in evaluation mode.
    layer
        Dotted name of the layer.
    channels, input_size
        Of the image; the side in pixels.

    Raises
    ------
    InputError
        If there is no such layer, or its output is no tensor ``[N, D, h, w]``.
    """
    shapes: list[tuple[int, ...]] = []
    try:
        module = model.get_submodule(layer)
    except AttributeError as error:
        raise InputError(f"model: expected a layer {layer!r}: {error}") from error
    handle = module.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape)))
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, channels, input_size, input_size))
    finally:
        handle.remove()
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise InputError(f"layer {layer!r}: expected one output [N, D, h, w], found {shapes}")
    _, depth, height, width = shapes[0]
    return depth, height, width
