"""Steps of the engine, part by part."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from crosseai.contract import InputError
from crosseai.training import build_model
from crosseai.training.config import FitConfig
from crosseai.training.contrastive import EMBEDDING_SIZE, ContrastiveNetwork
from crosseai.training.engine import Engine
from crosseai.training.feed import Batch
from crosseai.training.processes import ALONE

CONFIG = FitConfig(architecture="resnet14", width=2, batch_size=8, learning_rate=0.01)


def batch(n: int = 8, seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (n, 3), generator=random)
    images = torch.randn(n, 1, 32, 32, generator=random)
    return Batch(images, labels, torch.arange(n) // 2, torch.arange(n), torch.eye(2, 3).expand(n, 2, 3))


def engine(steps_per_epoch: int = 3, **changes: Any) -> Engine:
    torch.manual_seed(0)
    network = build_model("resnet14", width=2, classes=3)
    return Engine(network, replace(CONFIG, **changes), steps_per_epoch, None, ALONE)


def test_both_losses_fall_on_a_batch_that_is_repeated() -> None:
    trained, images = engine(cross_entropy_weight=0.5), batch()
    first = trained.step([images])
    for _ in range(15):
        last = trained.step([images])
    assert (last < torch.tensor([0.9, 0.5]) * first).all(), (first, last)


def test_the_two_weight_decays() -> None:
    groups = engine().optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [1e-4, 1e-6]
    sizes = [sum(p.numel() for p in group["params"]) for group in groups]
    network = build_model("resnet14", width=2, classes=3)
    assert sizes[0] == sum(p.numel() for p in network.parameters())
    assert sizes[1] == sum(p.numel() for p in ContrastiveNetwork(network).projection.parameters())
    (only,) = engine(cross_entropy_weight=1.0).optimizer.param_groups
    assert only["weight_decay"] == 1e-4


def test_scalps_schedule_takes_a_tenth_after_every_seventh_epoch() -> None:
    trained = engine(steps_per_epoch=1)
    rates = []
    for _ in range(15):
        rates.append(trained.optimizer.param_groups[0]["lr"])
        trained.step([batch()])
    assert rates == pytest.approx([0.01] * 7 + [0.001] * 7 + [0.0001])


def test_accumulated_parts_give_the_gradient_of_their_mean() -> None:
    whole, parts = (engine(cross_entropy_weight=1.0, weight_decay=0.0) for _ in range(2))
    images = batch()
    for trained in (whole, parts):
        for module in trained.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum, module.train = 0.0, lambda _mode=True, module=module: module  # type: ignore[method-assign]
                module.training = False
    whole.step([images])
    parts.step([Batch(*(tensor[half] for tensor in images)) for half in (slice(4), slice(4, 8))])
    for (name, one), other in zip(
        whole.classifier.state_dict().items(), parts.classifier.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, other, msg=name)


def test_the_average_follows_the_weights() -> None:
    trained = engine(average_decay=0.75)
    before = trained.classifier.conv1.weight.detach().clone()
    trained.step([batch()])
    first = trained.classifier.conv1.weight.detach().clone()
    torch.testing.assert_close(trained.result.conv1.weight, first, msg="the first step starts the average")
    trained.step([batch()])
    second = trained.classifier.conv1.weight
    assert not torch.equal(before, first)
    torch.testing.assert_close(trained.result.conv1.weight, 0.75 * first + 0.25 * second)
    assert torch.equal(trained.result.bn1.running_mean, trained.classifier.bn1.running_mean)


@pytest.mark.parametrize("architecture", ["resnet18", "densenet121"])
def test_the_embedding_comes_from_what_enters_the_head(architecture: str) -> None:
    classifier = build_model(architecture, width=4, classes=3, triplet_attention=False).eval()
    network = ContrastiveNetwork(classifier).eval()
    x = torch.randn(2, 1, 32, 32)
    logits, embeddings = network(x)
    assert torch.equal(logits, classifier(x))
    assert embeddings.shape == (2, EMBEDDING_SIZE)
    names = [name for name, _ in classifier.named_children()]
    head = classifier.get_submodule(names[-1])
    pooled = list[torch.Tensor]()
    head.register_forward_hook(lambda _module, inputs, _output: pooled.append(inputs[0]))
    network(x)
    assert torch.equal(network.projection(pooled[0]), embeddings)


def test_a_network_without_a_head_trains_without_the_contrastive_term_only() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(InputError, match=r"expected a network with a linear head named one of"):
        Engine(network, CONFIG, 1, None, ALONE)
    Engine(network, replace(CONFIG, cross_entropy_weight=1.0), 1, None, ALONE).step([batch()])


def test_a_loss_of_ones_own_takes_the_place_of_the_papers() -> None:
    def towards_zero(output: torch.Tensor, shown: Batch) -> torch.Tensor:
        assert torch.equal(shown.rows, images.rows)
        assert torch.equal(shown.labels, images.labels)
        return torch.stack([output.square().mean(), output.abs().mean()])

    torch.manual_seed(0)
    network, images = build_model("resnet14", width=2, classes=3), batch()
    trained = Engine(network, CONFIG, 3, None, ALONE, towards_zero)
    assert trained.trained is network
    first = trained.step([images])
    for _ in range(15):
        last = trained.step([images])
    assert (last < 0.5 * first).all(), (first, last)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # in torch's own compiler
def test_compiled_steps_are_the_same_steps() -> None:
    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3, stride=4)
            self.head = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.conv(x).relu().mean((2, 3)))

    steps = []
    for compiled in (False, True):
        torch.manual_seed(0)
        trained = Engine(Tiny(), replace(CONFIG, compile=compiled), 3, None, ALONE)
        steps.append(torch.stack([trained.step([batch(seed=seed)]) for seed in range(3)]))
    torch.testing.assert_close(*steps, rtol=1e-3, atol=1e-4)
