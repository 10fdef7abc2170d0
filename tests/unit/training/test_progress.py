"""Progress survives on disk, whole or as it was before."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crosseai.contract import InputError
from crosseai.training.progress import Epoch, Progress


def epoch(number: int, auc: float) -> Epoch:
    return Epoch(number, 0.5, {"Mass": auc}, 0.5, 0.0)


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((3,), value)}


def test_the_earliest_of_the_best_epochs_stands_with_a_copy_of_its_weights() -> None:
    shared = weights(1)
    progress = Progress().after(epoch(1, 0.7), shared).after(epoch(2, 0.8), shared)
    shared["w"] += 1
    progress = progress.after(epoch(3, 0.8), shared)
    assert (progress.number, progress.best.number) == (3, 2)
    assert torch.equal(progress.weights["w"], torch.ones(3))
    assert not progress.stalled(0)
    assert progress.stalled(1)
    assert not progress.stalled(2)


def test_it_comes_back_from_disk(tmp_path: Path) -> None:
    progress = Progress().after(epoch(1, math.nan), weights(3))
    engine = {"optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}}
    progress.save(tmp_path, {"seed": 1, "classes": ["Mass"]}, engine)
    found, state = Progress.load(tmp_path, {"seed": 1, "classes": ["Mass"]})
    assert (found.number, found.best.number) == (1, 1)
    assert math.isnan(found.best.validation_auc["Mass"])
    assert torch.equal(found.weights["w"], progress.weights["w"])
    assert state == engine
    with pytest.raises(InputError, match=r"changed: seed 1 -> 2$"):
        Progress.load(tmp_path, {"seed": 2, "classes": ["Mass"]})


@pytest.mark.parametrize("content", [b"", b"PK\3\4 half a file"])
def test_a_broken_state_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "training_state.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"training_state\.pt: expected a file of tensors"):
        Progress.load(tmp_path, {})


def test_a_full_disk_leaves_the_state_before(tmp_path: Path) -> None:
    program = f"""
import resource
from pathlib import Path
import torch
from crosseai.contract import OutputError
from crosseai.training.progress import Epoch, Progress
folder, epoch = Path({str(tmp_path)!r}), Epoch(1, 0.5, {{}}, 0.5, 0.0)
progress = Progress().after(epoch, {{"w": torch.ones(50_000)}})
progress.save(folder, {{}}, {{}})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    progress.after(Epoch(2, 0.4, {{}}, 0.4, 0.0), {{"w": torch.zeros(50_000)}}).save(folder, {{}}, {{}})
except OutputError as error:
    print(error)
"""
    finished = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "training_state.pt: cannot be written: File too large; the file before is intact" in finished.stdout
    progress, _ = Progress.load(tmp_path, {})
    assert progress.number == 1
    assert progress.weights["w"].all()
    assert [file.name for file in tmp_path.iterdir()] == ["training_state.pt"]
