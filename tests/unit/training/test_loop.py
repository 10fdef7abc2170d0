"""The loop learns, repeats itself exactly, keeps its best epoch, and stops when the loss is lost."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from crosseai.contract import UNCERTAIN, InputError, ModelSpec
from crosseai.training import build_model
from crosseai.training.config import FitConfig
from crosseai.training.dataset import LabelledRadiographs
from crosseai.training.evaluation import auc_per_class, mean_auc, predict_logits
from crosseai.training.feed import TrainingData
from crosseai.training.loop import train
from crosseai.training.progress import Epoch
from crosseai.training.split import Split

CONFIG = FitConfig(
    architecture="resnet14",
    width=4,
    input_size=32,
    epochs=6,
    batch_size=32,
    optimizer="adamw",
    learning_rate=1e-2,
    schedule="one-cycle",
)
SPEC = ModelSpec(classes=("Mass", "Nodule"), input_size=32, architecture=CONFIG.network)
SPLIT = Split(np.arange(0, 160), np.arange(160, 200), np.arange(200, 240))


def make_data() -> TrainingData:
    """A bright patch on the left is the first disease, one on the right the second; three images a patient."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (240, 2), dtype=np.uint8)
    images = random.normal(90, 15, (240, 1, 32, 32))
    images[labels[:, 0] == 1, :, 10:20, 4:14] += 60
    images[labels[:, 1] == 1, :, 10:20, 18:28] += 60
    names = tuple(f"{i:03d}.png" for i in range(240))
    patients = tuple(str(i // 3) for i in range(240))
    listing = LabelledRadiographs(names, tuple(map(Path, names)), patients, labels, SPEC.classes)
    return TrainingData(listing, images.clip(0, 255).astype(np.uint8), SPLIT)


DATA = make_data()


def fresh_model() -> nn.Module:
    torch.manual_seed(0)
    return build_model("resnet14", width=4, classes=2)


def trained(folder: Path, data: TrainingData = DATA, **changes: Any) -> tuple[nn.Module, Epoch, Sequence[Epoch]]:
    model, epochs = fresh_model(), list[Epoch]()
    best = train(model, SPEC, data, replace(CONFIG, **changes), folder, on_epoch=epochs.append)
    return model, best, epochs


def auc_on(model: nn.Module, rows: np.ndarray) -> dict[str, float]:
    return auc_per_class(DATA.radiographs.labels[rows], predict_logits(model, DATA.images[rows], SPEC), SPEC.classes)


@pytest.mark.parametrize("cross_entropy_weight", [0.8, 1.0])
def test_learns_and_keeps_the_best_epoch(tmp_path: Path, cross_entropy_weight: float) -> None:
    model, best, epochs = trained(tmp_path, cross_entropy_weight=cross_entropy_weight)
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].cross_entropy < epochs[0].cross_entropy
    if cross_entropy_weight == 1:
        assert all((epoch.contrastive, epoch.loss) == (0, epoch.cross_entropy) for epoch in epochs)
    else:
        assert all(epoch.contrastive > 0 for epoch in epochs)
        assert best.loss == pytest.approx(0.8 * best.cross_entropy + 0.2 * best.contrastive)
    assert mean_auc(best.validation_auc) == max(mean_auc(epoch.validation_auc) for epoch in epochs)
    assert not any(module.training for module in model.modules())
    assert auc_on(model, SPLIT.validation) == best.validation_auc
    assert mean_auc(auc_on(model, SPLIT.test)) > 0.9


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    states = []
    for seed in (1, 1, 2):
        torch.rand(seed)  # whatever was drawn before
        model, _, _ = trained(tmp_path, epochs=2, seed=seed)
        states.append(model.state_dict())
    first, second, other = states
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_the_classifier_is_left_as_it_was_built(tmp_path: Path) -> None:
    model, _, _ = trained(tmp_path, epochs=1)
    assert model.state_dict().keys() == fresh_model().state_dict().keys()
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_the_test_part_is_never_looked_at(tmp_path: Path) -> None:
    images, labels = DATA.images.copy(), DATA.radiographs.labels.copy()
    images[SPLIT.test] = 0
    labels[SPLIT.test] = 1 - labels[SPLIT.test]
    model, _, _ = trained(tmp_path, epochs=1)
    other, _, _ = trained(tmp_path, replace(DATA, images=images, radiographs=with_labels(labels)), epochs=1)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in other.state_dict().items())


def with_labels(labels: np.ndarray) -> LabelledRadiographs:
    return replace(DATA.radiographs, labels=labels)


def test_without_a_validation_auc_the_last_epoch_stands(tmp_path: Path) -> None:
    unseen = DATA.radiographs.labels.copy()
    unseen[SPLIT.validation] = 0
    _, best, _ = trained(tmp_path, replace(DATA, radiographs=with_labels(unseen)), epochs=2, patience=1)
    assert best.number == 2
    assert all(math.isnan(auc) for auc in best.validation_auc.values())


def test_patience_ends_training_and_the_best_epoch_stands(tmp_path: Path) -> None:
    _, best, epochs = trained(tmp_path, epochs=30, learning_rate=1e-9, schedule="constant", patience=2)
    assert len(epochs) == best.number + 2 < 30


def test_averaged_weights_are_what_is_validated_and_kept(tmp_path: Path) -> None:
    model, best, _ = trained(tmp_path, epochs=3, average_decay=0.5)
    plain, _, _ = trained(tmp_path, epochs=3)
    assert not torch.equal(model.conv1.weight, plain.conv1.weight)
    assert auc_on(model, SPLIT.validation) == best.validation_auc


@pytest.mark.parametrize(
    "change",
    [
        {"accumulate": 2},
        {"optimizer": "sgd", "schedule": "step"},
        {"contrast": "patient", "positive_in_denominator": False},
        {"balance": True, "label_smoothing": 0.1, "class_reduction": "mean"},
        {"precision": "bf16"},
        {"deterministic": True},
    ],
    ids=str,
)
def test_every_way_to_train_learns(tmp_path: Path, change: dict[str, Any]) -> None:
    _, _, epochs = trained(tmp_path, epochs=2, **change)
    assert epochs[1].cross_entropy < epochs[0].cross_entropy
    assert not torch.are_deterministic_algorithms_enabled()


def test_uncertain_labels_are_not_learnt_from(tmp_path: Path) -> None:
    labels = DATA.radiographs.labels.copy()
    labels[SPLIT.train, 1] = UNCERTAIN
    data = replace(DATA, radiographs=with_labels(labels))
    model, _, _ = trained(tmp_path, data, epochs=2, cross_entropy_weight=1.0, weight_decay=0.0)
    changed = (model.head[2].weight != fresh_model().head[2].weight).any(1)
    assert changed.tolist() == [True, False]


def test_a_lost_loss_stops_training_and_names_the_batch(tmp_path: Path) -> None:
    model = fresh_model()
    for parameter in model.parameters():
        nn.init.constant_(parameter, math.nan)
    with pytest.raises(InputError, match=r"loss is nan in epoch 1; .*lost_batch\.txt"):
        train(model, SPEC, DATA, CONFIG, tmp_path)
    names = (tmp_path / "lost_batch.txt").read_text().splitlines()
    assert len(names) == len(set(names)) == 32
    assert set(names) <= set(DATA.radiographs.image_ids[:160])
    assert not (tmp_path / "training_state.pt").exists()


@pytest.mark.parametrize("change", [{}, {"average_decay": 0.9}, {"precision": "fp16"}], ids=str)
def test_a_resumed_run_computes_what_it_would_have_computed(tmp_path: Path, change: dict[str, Any]) -> None:
    config = replace(CONFIG, epochs=4, **change)
    whole, first, second = (list[Epoch]() for _ in range(3))
    uninterrupted, interrupted, resumed = fresh_model(), fresh_model(), fresh_model()
    train(uninterrupted, SPEC, DATA, config, tmp_path, on_epoch=whole.append)

    def interrupt(epoch: Epoch) -> None:
        first.append(epoch)
        if epoch.number == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(interrupted, SPEC, DATA, config, tmp_path, on_epoch=interrupt)
    nn.init.zeros_(resumed.conv1.weight)  # whatever it starts from
    train(resumed, SPEC, DATA, config, tmp_path, resume=True, on_epoch=second.append)
    assert first[:2] + second == whole
    for name, tensor in uninterrupted.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_run_is_resumed_only_as_it_was_begun(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"training_state\.pt"):
        train(fresh_model(), SPEC, DATA, CONFIG, tmp_path, resume=True)
    trained(tmp_path, epochs=1)
    with pytest.raises(InputError, match=r"learning_rate 0\.01 -> 0\.02"):
        changed = replace(CONFIG, epochs=1, learning_rate=0.02)
        train(fresh_model(), SPEC, DATA, changed, tmp_path, resume=True)
    other = replace(DATA, radiographs=with_labels(1 - DATA.radiographs.labels))
    with pytest.raises(InputError, match="changed: data"):
        train(fresh_model(), SPEC, other, replace(CONFIG, epochs=1), tmp_path, resume=True)
