from pathlib import Path

import numpy as np
import pytest

from crosseai.client.explain import ExplainByName, ExplainByProbability, parse_explain
from crosseai.contract import InputError, ModelSpec

SPEC = ModelSpec(operating_points=(0.5,) * 7 + (0.1,))


def test_fixed_choices() -> None:
    for text, targets in (("none", ()), ("top:3", (-1, -1, -1)), ("all", tuple(range(8)))):
        policy = parse_explain(text, SPEC)
        assert isinstance(policy, ExplainByName)
        assert policy.targets("any.png") == targets


def test_positive_uses_operating_points() -> None:
    policy = parse_explain("positive", SPEC)
    assert isinstance(policy, ExplainByProbability)
    assert policy.targets(np.float32([0.5, 0.49, 0, 0, 0.9, 0, 0, 0.1])) == (0, 4, 7)


@pytest.mark.parametrize("column", ["Finding Label", "Finding Labels"])
def test_labels(tmp_path: Path, column: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(f"Image Index,{column}\na.png,Infiltrate\na.png,Mass|Hernia\nb.png,No Finding\n")
    policy = parse_explain(str(file), SPEC)
    assert isinstance(policy, ExplainByName)
    assert policy.targets("a.png") == (3, 4)
    assert policy.targets("b.png") == policy.targets("unlisted.png") == ()


@pytest.mark.parametrize("text", ["", "top:0", "top:9", "top:x", "some", "top"])
def test_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected"):
        parse_explain(text, SPEC)


def test_refused_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        parse_explain(str(tmp_path / "absent.csv"), SPEC)
    file = tmp_path / "other.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"Image Index.*found a, b"):
        parse_explain(str(file), SPEC)
    file.write_text("Image Index,Finding Labels\na.png,Hernia\n")
    with pytest.raises(InputError, match=r"expected Atelectasis, .*; found only Hernia"):
        parse_explain(str(file), SPEC)
    file.write_text("Image Index,Finding Labels\na.png,\n")
    assert parse_explain(str(file), SPEC).targets("a.png") == ()
