"""Every reverse rule against autograd, K classes at once against one at a time."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

import crosseai.export.rules  # noqa: F401
from crosseai.contract import InputError
from crosseai.contract.spec import GradientMethod
from crosseai.export.reverse import RULES, Call, Selected

aten = torch.ops.aten
N, K = 2, 3


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def tied(*shape: int) -> Tensor:
    """Few distinct values, so that maxima tie."""
    return random(*shape).mul(1.5).round()


X = random(N, 4, 6, 6)
CASES: dict[str, tuple[Any, dict[str, Any], tuple[str, ...]]] = {
    "relu": (aten.relu.default, {"self": X}, ("self",)),
    "sigmoid": (aten.sigmoid.default, {"self": X}, ("self",)),
    "tanh": (aten.tanh.default, {"self": X}, ("self",)),
    "silu": (aten.silu.default, {"self": X}, ("self",)),
    "gelu": (aten.gelu.default, {"self": X * 2}, ("self",)),
    "gelu by tanh": (aten.gelu.default, {"self": X * 2, "approximate": "tanh"}, ("self",)),
    "hardsigmoid": (aten.hardsigmoid.default, {"self": X * 3}, ("self",)),
    "hardswish": (aten.hardswish.default, {"self": X * 3}, ("self",)),
    "leaky relu": (aten.leaky_relu.default, {"self": X, "negative_slope": 0.2}, ("self",)),
    "relu6": (aten.hardtanh.default, {"self": X * 5, "min_val": 0, "max_val": 6}, ("self",)),
    "add": (aten.add.Tensor, {"self": X, "other": X * 2}, ("self", "other")),
    "add a gate": (aten.add.Tensor, {"self": X, "other": random(N, 4, 1, 1)}, ("self", "other")),
    "add a constant": (aten.add.Tensor, {"self": X, "other": random(4, 1, 1)}, ("self",)),
    "add scaled": (aten.add.Tensor, {"self": X, "other": X * 2, "alpha": 3}, ("self", "other")),
    "sub": (aten.sub.Tensor, {"self": X, "other": random(N, 1, 6, 1)}, ("self", "other")),
    "mul": (aten.mul.Tensor, {"self": X, "other": X + 1}, ("self", "other")),
    "mul a gate": (aten.mul.Tensor, {"self": X, "other": random(N, 4, 1, 1)}, ("self", "other")),
    "mul a constant": (aten.mul.Tensor, {"self": X, "other": random(4, 1, 1)}, ("self",)),
    "mul a number": (aten.mul.Tensor, {"self": X, "other": 0.25}, ("self",)),
    "div": (aten.div.Tensor, {"self": X, "other": random(N, 4, 6, 6) + 5}, ("self", "other")),
    "div by a number": (aten.div.Tensor, {"self": X, "other": 3}, ("self",)),
    "conv": (aten.conv2d.default, {"input": X, "weight": random(5, 4, 3, 3), "padding": [1, 1]}, ("input",)),
    "conv, dilated": (
        aten.conv2d.default,
        {"input": X, "weight": random(5, 4, 3, 3), "padding": [1, 2], "dilation": [1, 2]},
        ("input",),
    ),
    "conv, grouped and strided": (
        aten.conv2d.default,
        {"input": X, "weight": random(6, 2, 3, 3), "stride": [2, 2], "padding": [1], "groups": 2},
        ("input",),
    ),
    "conv1d": (
        aten.conv1d.default,
        {"input": X[..., 0], "weight": random(6, 2, 3), "stride": [2], "padding": [1], "groups": 2},
        ("input",),
    ),
    "linear": (aten.linear.default, {"input": random(N, 7), "weight": random(5, 7)}, ("input",)),
    "max pool": (
        aten.max_pool2d.default,
        {"self": tied(N, 4, 7, 7), "kernel_size": [3], "stride": [2], "padding": [1]},
        ("self",),
    ),
    "average pool": (aten.avg_pool2d.default, {"self": X, "kernel_size": [2, 2]}, ("self",)),
    "average pool, overlapping": (
        aten.avg_pool2d.default,
        {"self": X, "kernel_size": [3], "stride": [2], "padding": [1]},
        ("self",),
    ),
    "average pool, padding not counted": (
        aten.avg_pool2d.default,
        {"self": X, "kernel_size": [3], "stride": [2], "padding": [1], "count_include_pad": False},
        ("self",),
    ),
    "average pool, overhanging": (
        aten.avg_pool2d.default,
        {"self": X, "kernel_size": [3, 4], "stride": [2, 3], "padding": [1, 0], "ceil_mode": True},
        ("self",),
    ),
    "average pool, divisor": (
        aten.avg_pool2d.default,
        {"self": X, "kernel_size": [2], "divisor_override": 3},
        ("self",),
    ),
    "global average": (aten.adaptive_avg_pool2d.default, {"self": X, "output_size": [1, 1]}, ("self",)),
    "tiled average": (aten.adaptive_avg_pool2d.default, {"self": X, "output_size": [3, 2]}, ("self",)),
    "overlapping average": (aten.adaptive_avg_pool2d.default, {"self": X, "output_size": [4, 7]}, ("self",)),
    "mean": (aten.mean.dim, {"self": X, "dim": [2, 3]}, ("self",)),
    "mean, kept": (aten.mean.dim, {"self": X, "dim": [-1], "keepdim": True}, ("self",)),
    "sum": (aten.sum.dim_IntList, {"self": X, "dim": [1]}, ("self",)),
    "max over channels": (aten.max.dim, {"self": tied(N, 4, 6, 6), "dim": 1}, ("self",)),
    "max over columns, kept": (aten.max.dim, {"self": tied(N, 4, 6, 6), "dim": -1, "keepdim": True}, ("self",)),
    "amax": (aten.amax.default, {"self": tied(N, 4, 6, 6), "dim": [2, 3]}, ("self",)),
    "layer norm": (aten.layer_norm.default, {"input": X, "normalized_shape": [6], "weight": X[0, 0, 0]}, ("input",)),
    "layer norm, plain": (aten.layer_norm.default, {"input": X, "normalized_shape": [6, 6]}, ("input",)),
    "group norm": (aten.group_norm.default, {"input": X, "num_groups": 2, "weight": X[0, :, 0, 0]}, ("input",)),
    "group norm, plain": (aten.group_norm.default, {"input": X, "num_groups": 4}, ("input",)),
    "flatten": (aten.flatten.using_ints, {"self": X, "start_dim": 1}, ("self",)),
    "view": (aten.view.default, {"self": X, "size": [N, 2, 2, 36]}, ("self",)),
    "squeeze": (aten.squeeze.dim, {"self": random(N, 1, 5), "dim": 1}, ("self",)),
    "unsqueeze": (aten.unsqueeze.default, {"self": X, "dim": 2}, ("self",)),
    "permute": (aten.permute.default, {"self": X, "dims": [0, 3, 1, 2]}, ("self",)),
    "transpose": (aten.transpose.int, {"self": X, "dim0": 1, "dim1": 3}, ("self",)),
    "cat": (aten.cat.default, {"tensors": [X, random(N, 2, 6, 6)], "dim": 1}, ("tensors",)),
    "stack": (aten.stack.default, {"tensors": [X, X + 1], "dim": 1}, ("tensors",)),
    "slice": (aten.slice.Tensor, {"self": X, "dim": 1, "start": 1, "end": 3}, ("self",)),
    "slice from the back": (aten.slice.Tensor, {"self": X, "dim": -1, "start": -4, "end": 2**63 - 1}, ("self",)),
    "expand": (aten.expand.default, {"self": random(N, 4, 1, 1), "size": [-1, -1, 6, 6]}, ("self",)),
    "pad": (aten.constant_pad_nd.default, {"self": X, "pad": [1, 2, 0, 1]}, ("self",)),
    "crop": (aten.constant_pad_nd.default, {"self": X, "pad": [-1, 0, -2, 0]}, ("self",)),
    "cast": (aten._to_copy.default, {"self": X, "dtype": torch.float32}, ("self",)),
    "clone": (aten.clone.default, {"self": X}, ("self",)),
}


def call_of(operator: Any, given: dict[str, Any], wanted: tuple[str, ...], method: GradientMethod = "plain") -> Call:
    arguments = {a.name: given.get(a.name, a.default_value) for a in operator._schema.arguments}
    return Call(arguments, operator(**given), wanted, K, method)


def first(output: Any) -> Tensor:
    """The differentiable output: of ``max.dim`` the values."""
    return output if isinstance(output, Tensor) else output[0]


def dense(part: Tensor | Selected | Iterable[Tensor], source: Any) -> Iterable[Tensor]:
    if isinstance(part, Selected):
        other = random(K * N, *source.shape[1:])
        return [part.added_to(other, K) - other]
    return [part] if isinstance(part, Tensor) else part


def autograd(operator: Any, given: dict[str, Any], names: tuple[str, ...], cotangent: Tensor) -> list[Tensor]:
    leaves: list[Tensor] = []

    def leaf(value: Tensor) -> Tensor:
        leaves.append(value.clone().requires_grad_(True))
        return leaves[-1]

    traced = {n: [leaf(t) for t in given[n]] if isinstance(given[n], list) else leaf(given[n]) for n in names}
    return list(torch.autograd.grad(first(operator(**{**given, **traced})), leaves, cotangent))


@pytest.mark.parametrize("name", CASES)
def test_rule_equals_autograd(name: str) -> None:
    operator, given, wanted = CASES[name]
    call = call_of(operator, given, wanted)
    shape = first(call.output).shape
    cotangents = random(K, N, *shape[1:])
    parts = RULES[operator](call, cotangents.flatten(0, 1))
    found = [t for n in wanted for t in dense(parts[n], given[n])]
    for k in range(K):
        expected = autograd(operator, given, wanted, cotangents[k])
        for have, want in zip(found, expected, strict=True):
            per_class = have.unflatten(0, (K, N))[k].expand_as(want)  # a rule may leave constant dimensions at 1
            torch.testing.assert_close(per_class, want)


def test_every_rule_is_tested() -> None:
    same = {aten.reshape.default, aten._unsafe_view.default, aten.squeeze.dims, aten.contiguous.default}
    assert set(RULES) - same - {aten.alias.default} == {operator for operator, _, _ in CASES.values()}


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("plain", [[0, 0, -3, 3], [0, 0, 1, -1], [0, 0, 0, 0]]),
        ("guided", [[0, 0, 0, 3], [0, 0, 1, 0], [0, 0, 0, 0]]),
        ("deconvnet", [[3, 3, 0, 3], [1, 1, 1, 0], [0, 0, 0, 0]]),
    ],
)
def test_what_a_relu_sends_back(method: GradientMethod, expected: list[list[int]]) -> None:
    call = call_of(aten.relu.default, {"self": torch.tensor([[-1.0, 0.0, 2.0, 2.0]])}, ("self",), method)
    gradient = torch.tensor([[3.0, 3.0, -3.0, 3.0], [1.0, 1.0, 1.0, -1.0], [-1.0, 0.0, 0.0, 0.0]])
    found = RULES[aten.relu.default](call, gradient)["self"]
    assert isinstance(found, Tensor)
    assert found.tolist() == expected


@pytest.mark.parametrize("dim", [[1], [3], [1, 3]])
def test_amax_of_a_narrow_type_goes_to_the_first_maximum(dim: list[int]) -> None:
    call = call_of(aten.amax.default, {"self": tied(N, 4, 6, 6).half(), "dim": dim, "keepdim": True}, ("self",))
    found = RULES[aten.amax.default](call, torch.ones_like(call.output).repeat_interleave(K, 0))["self"]
    assert isinstance(found, Tensor)
    assert found.dtype == torch.float16
    assert (found.sum(dim) == 1).all()
    if dim == [3]:
        assert torch.equal(found[::K].argmax(3), call["self"].argmax(3))


@pytest.mark.parametrize(
    ("operator", "given"),
    [
        (aten.max_pool2d.default, {"self": X, "kernel_size": [2, 2], "dilation": [2, 2]}),
        (aten.slice.Tensor, {"self": X, "dim": 2, "step": 2}),
        (aten.expand.default, {"self": random(N, 6), "size": [3, N, 6]}),
    ],
)
def test_geometry_without_a_rule_is_refused(operator: Any, given: dict[str, Any]) -> None:
    call = call_of(operator, given, ("self",))
    with pytest.raises(InputError, match="expected"):
        RULES[operator](call, torch.ones_like(call.output).repeat_interleave(K, 0))
