"""What training on several machines sends at a step, as docs/scale.md says."""

from pathlib import Path

import pytest
import torch
from torch import nn

from crosseai.training import build_model, processes
from crosseai.training.contrastive import EMBEDDING_SIZE, ContrastiveNetwork
from crosseai.training.processes import Processes

IMAGES, PROCESSES = 128, 16


def test_traffic_is_as_documented(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received = []

    def all_gather(parts: list[torch.Tensor], own: torch.Tensor) -> None:
        assert parts[0].shape == own.shape
        received.append(sum(part.nbytes for part in parts[1:]))

    monkeypatch.setattr(processes.dist, "all_gather", all_gather)
    own = torch.zeros(IMAGES // PROCESSES, EMBEDDING_SIZE)
    assert len(Processes(0, PROCESSES, torch.device("cpu")).gather(own)) == IMAGES
    network = ContrastiveNetwork(build_model("resnet50"))
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    channels = sum(norm.num_features for norm in norms)
    gathered, reduced = 4 * (2 * channels + len(norms)), 4 * 2 * channels  # mean, deviation and count; two sums
    gradients = 4 * sum(parameter.numel() for parameter in network.parameters())
    others, ring = PROCESSES - 1, 2 * (PROCESSES - 1) / PROCESSES
    text = (repository / "docs" / "scale.md").read_text()
    for documented in (
        f"`{4 * EMBEDDING_SIZE} N (P - 1) / P` | {received[0] / 1e3:.0f} KB",
        f"the {channels:,} channels of {len(norms)} layers",
        f"`{gathered:,} (P - 1) + 2 * {reduced:,} (P - 1) / P` | {(gathered * others + reduced * ring) / 1e6:.1f} MB",
        f"{gradients / 4e6:.1f} million parameters",
        f"`2 * {gradients / 1e6:.1f} MB (P - 1) / P` | {gradients * ring / 1e6:.0f} MB",
        f"{100 * received[0] / (gradients * ring):.2f} % of what the gradients do",
    ):
        assert documented in text
