"""The README's example of a rule does what it says."""

import re

import torch
from torch import nn

from crosseai.export.reverse import RULES, Call
from tests.unit.export import networks
from tests.unit.export.test_combined import TINY, TINY_IMAGES, combine, explain


def test_the_example_of_a_rule_equals_autograd_and_serves_a_network(repository, monkeypatch):
    operator = torch.ops.aten.softplus.default
    assert operator not in RULES
    text = (repository / "export" / "README.md").read_text(encoding="utf-8")
    (example,) = (block for block in re.findall(r"```python\n(.+?)```", text, re.DOTALL) if "@rule" in block)
    monkeypatch.setitem(RULES, operator, lambda call, gradient: {})  # so that what the example registers is undone
    exec(example, {})  # noqa: S102  our own text

    x = torch.linspace(-3, 3, 7, dtype=torch.float64).reshape(1, 7).requires_grad_(True)
    y = operator(x, 2.0)
    (expected,) = torch.autograd.grad(y.sum(), x)
    call = Call({"self": x.detach(), "beta": 2.0, "threshold": 20}, y.detach(), ("self",), 3, "plain")
    found = RULES[operator](call, torch.ones(3, 7, dtype=torch.float64))["self"]
    torch.testing.assert_close(found, expected.expand(3, -1))

    model = networks.tiny()
    model.features[1] = nn.Softplus().eval()
    assert explain(combine(model, TINY), TINY_IMAGES, [[0], [1], [2]])["input_gradients"].any()
