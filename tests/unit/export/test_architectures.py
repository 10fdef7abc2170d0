"""Published families of networks, as torchvision and timm write them, against eager autograd in float64.

Each is its library's own class with few blocks, so that every operator and every way of wiring them is there.
"""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import tests.torchvision_cpu  # noqa: F401  before anything that imports torchvision
from crosseai.contract import ModelSpec
from crosseai.export.reference import EagerReference
from crosseai.export.verify import sample_images
from tests.unit.export import networks
from tests.unit.export.test_combined import combine, explain

models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
timm = pytest.importorskip("timm.models", reason="timm is not installed")

CLASSES = ("a", "b", "c")


def mobilenet() -> nn.Module:
    block = partial(models.mobilenetv3.InvertedResidualConfig, width_mult=1.0)
    settings = [
        block(16, 3, 16, 16, use_se=True, activation="RE", stride=2, dilation=1),
        block(16, 5, 32, 16, use_se=True, activation="HS", stride=1, dilation=2),
    ]
    return models.MobileNetV3(settings, last_channel=32, num_classes=3)


def efficientnet() -> nn.Module:
    settings = [
        models.efficientnet.MBConvConfig(1, 3, 1, 16, 8, 1),
        models.efficientnet.FusedMBConvConfig(2, 3, 2, 8, 16, 2),
    ]
    return models.EfficientNet(settings, dropout=0.2, num_classes=3, last_channel=32)


def convnext() -> nn.Module:
    block = models.convnext.CNBlockConfig
    return models.ConvNeXt([block(8, 16, 1), block(16, None, 1)], num_classes=3, layer_scale=1.0)


def shufflenet() -> nn.Module:
    return models.ShuffleNetV2([2, 2, 2], [8, 16, 16, 32, 32], num_classes=3)


def vgg() -> nn.Module:
    features = models.vgg.make_layers([8, "M", 16, "M", 16, "M"], batch_norm=True)
    network = models.VGG(features, num_classes=3)
    network.classifier = nn.Sequential(nn.Linear(16 * 49, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 3))
    return network


T_RESNET, T_BOTTLENECK = timm.resnet.ResNet, timm.resnet.Bottleneck
SMALL = {"layers": (1, 1, 1, 1), "channels": (16, 16, 16, 16), "num_classes": 3}
NETWORKS = {
    "torchvision ResNet, basic": (
        partial(models.ResNet, models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=3),
        "layer4",
        3,
    ),
    "torchvision ResNet, bottleneck": (
        partial(models.ResNet, models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=3, width_per_group=16),
        "layer4",
        3,
    ),
    "torchvision DenseNet": (partial(models.DenseNet, 8, (2, 2), 16, num_classes=3), "features", 3),
    "torchvision MobileNet v3": (mobilenet, "features", 3),
    "torchvision EfficientNet": (efficientnet, "features", 3),
    "torchvision ConvNeXt": (convnext, "features", 3),
    "torchvision ShuffleNet": (shufflenet, "conv5", 3),
    "torchvision VGG": (vgg, "features", 3),
    "timm ResNet, gray": (partial(T_RESNET, T_BOTTLENECK, in_chans=1, **SMALL), "layer4", 1),
    "timm ResNet-D": (
        partial(T_RESNET, T_BOTTLENECK, stem_type="deep", stem_width=8, avg_down=True, **SMALL),
        "layer3",
        3,
    ),
    "timm ResNeXt, squeeze and excitation": (
        partial(T_RESNET, T_BOTTLENECK, cardinality=2, base_width=8, block_args={"attn_layer": "se"}, **SMALL),
        "layer4",
        3,
    ),
    "timm ResNet, efficient channel attention": (
        partial(T_RESNET, T_BOTTLENECK, block_args={"attn_layer": "eca"}, **SMALL),
        "layer4",
        3,
    ),
    "timm DenseNet": (partial(timm.densenet.DenseNet, 8, (2, 2), num_classes=3), "features", 3),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_output_equals_eager_autograd(name: str) -> None:
    build, layer, channels = NETWORKS[name]
    torch.manual_seed(0)
    model = networks.randomised(build())
    size = 64
    spec = ModelSpec(
        input_size=size,
        classes=CLASSES,
        layer=layer,
        channels=channels,
        mean=(0.4, 0.5, 0.6)[:channels],
        std=(0.2, 0.25, 0.3)[:channels],
    )
    images = sample_images(size, 2)
    targets = np.array([[0, 2], [1, 0]])
    found = explain(combine(model, spec), torch.from_numpy(images), targets.tolist())
    reference = EagerReference(model, spec, torch.float64)
    eager = EagerReference(model, spec, torch.float32)
    for k in range(2):
        expected, rounded = (r.explain(images, targets[:, k]) for r in (reference, eager))
        for output in ("logits", "activations", "activation_gradients", "input_gradients", "heatmaps"):
            want = getattr(expected, output)
            have = found[output] if output in ("logits", "activations") else found[output][:, k]
            own_error = (getattr(rounded, output) - want).norm()
            assert have.shape == want.shape
            assert (have - want).norm() <= 2e-5 * want.norm() + 3 * own_error, output
            assert want.any() or output == "heatmaps", output  # no pixel may speak for a class
