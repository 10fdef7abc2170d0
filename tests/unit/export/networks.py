"""Small classifiers of the kinds that are exported."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosseai.training import build_model


def randomised(model: nn.Module) -> nn.Module:
    """Batch norms that do something, and no block that is its own shortcut; in evaluation mode."""
    generator = torch.Generator().manual_seed(7)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor, low, high in (
                (module.weight, 0.5, 1.2),
                (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 1.5),
            ):
                tensor.data.uniform_(low, high, generator=generator)
    return model.eval()


def attentive(architecture: str, width: int) -> nn.Module:
    """A network of ours with attention in its first and last stage alone, since each takes a while to export."""
    torch.manual_seed(0)
    model = build_model(architecture, width=width)
    for stage in (model.layer2, model.layer3):
        for block in stage:
            block.triplet_attention = None
    return model


def residual(*, triplet_attention: bool = True) -> nn.Module:
    """Our own network, small."""
    if triplet_attention:
        return randomised(attentive("resnet14", 4))
    torch.manual_seed(0)
    return randomised(build_model("resnet14", triplet_attention=False, width=4))


class DenseBlock(nn.Module):
    """Two layers of batch norm, ReLU and convolution, each of which sees all before it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels + 4 * i) for i in range(2))
        self.convolutions = nn.ModuleList(nn.Conv2d(channels + 4 * i, 4, 3, padding=1) for i in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            x = torch.cat([x, convolution(F.relu(norm(x)))], 1)
        return x


class DenseStyle(nn.Module):
    """Three-channel input, batch norm before ReLU, concatenation, average pooling, in-place and functional ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 5, stride=2, padding=2), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(2)
        self.block1, self.block2 = DenseBlock(8), DenseBlock(8)
        self.transition = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.AvgPool2d(2))
        self.norm = nn.BatchNorm2d(16)
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.block2(self.transition(self.block1(self.pool(self.stem(x)))))
        x = F.relu(self.norm(x), inplace=True)
        return self.classifier(F.adaptive_avg_pool2d(x, (1, 1)).flatten(1))


def dense() -> nn.Module:
    torch.manual_seed(1)
    return randomised(DenseStyle())


class Tiny(nn.Module):
    """One convolution and a head."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU())
        self.head = nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


def tiny(classes: int = 3) -> nn.Module:
    torch.manual_seed(2)
    return Tiny(classes).eval()
