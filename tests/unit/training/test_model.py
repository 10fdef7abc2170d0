"""The classifier, above all triplet attention against a literal transcription of the published formula."""

import pytest
import torch
from torch import Tensor, nn

from crosseai.contract import InputError
from crosseai.training import ARCHITECTURES, build_model
from crosseai.training.model import AttentionGate, Bottleneck, TripletAttention, feature_shape


def published_gate(x: Tensor, gate: AttentionGate) -> Tensor:
    """Z-pool over dimension 1, convolution, batch norm, sigmoid, product (Misra et al. 2021, equations 2 and 3)."""
    pooled = torch.cat((torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)), dim=1)
    return x * torch.sigmoid(gate.conv(pooled))


def published_triplet_attention(x: Tensor, attention: TripletAttention) -> Tensor:
    """Equation 4, rotating the whole tensor for each branch as the authors do."""
    channel_width = published_gate(x.permute(0, 2, 1, 3).contiguous(), attention.cw).permute(0, 2, 1, 3)
    height_channel = published_gate(x.permute(0, 3, 2, 1).contiguous(), attention.hc).permute(0, 3, 2, 1)
    return (published_gate(x, attention.hw) + channel_width + height_channel) / 3


@pytest.fixture
def attention() -> TripletAttention:
    torch.manual_seed(0)
    module = TripletAttention().double()
    for gate in (module.cw, module.hc, module.hw):
        nn.init.normal_(gate.conv.conv.weight)
        nn.init.normal_(gate.conv.bn.weight)
        nn.init.normal_(gate.conv.bn.bias)
        nn.init.uniform_(gate.conv.bn.running_var, 0.5, 2)
    return module


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(2, 5, 7, 9), (1, 12, 3, 3), (3, 1, 1, 4)])
def test_triplet_attention_and_its_gradients_are_the_published_ones(
    attention: TripletAttention, shape: tuple[int, ...], training: bool
) -> None:
    attention.train(training)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(shape, dtype=torch.float64)
    results = []
    for output in (attention(x), published_triplet_attention(x, attention)):
        gradients = torch.autograd.grad(output, [x, *attention.parameters()], cotangent)
        results.append((output, *gradients))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_ties_of_the_maximum_send_the_gradient_where_the_published_code_does(
    attention: TripletAttention, memory_format: torch.memory_format
) -> None:
    attention.eval()
    tied = torch.randint(0, 2, (2, 6, 8, 8)).double().to(memory_format=memory_format).requires_grad_()
    (ours,) = torch.autograd.grad(attention(tied).sum(), tied)
    (theirs,) = torch.autograd.grad(published_triplet_attention(tied, attention).sum(), tied)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_published_names_and_shapes() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in build_model().state_dict().items()}
    assert shapes["conv1.weight"] == (64, 1, 7, 7)
    assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["layer4.2.conv2.weight"] == (512, 512, 3, 3)
    for branch in ("cw", "hc", "hw"):
        assert shapes[f"layer3.5.triplet_attention.{branch}.conv.conv.weight"] == (1, 2, 7, 7)
        assert shapes[f"layer3.5.triplet_attention.{branch}.conv.bn.running_mean"] == (1,)
    assert shapes["head.0.weight"] == (512, 2048)
    assert shapes["head.2.weight"] == (8, 512)
    backbone = sum(p.numel() for n, p in build_model(triplet_attention=False).named_parameters() if "head" not in n)
    assert backbone == 23_508_032 - 2 * 64 * 49  # torchvision's resnet50 without fc, less two input channels


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("input_size", "sides"), [(64, {2}), (97, {3, 4})])
def test_forward_and_explained_layer(architecture: str, input_size: int, sides: set[int]) -> None:
    model = build_model(architecture, width=4, classes=3, triplet_attention=architecture != "densenet121").eval()
    assert model(torch.zeros(2, 1, input_size, input_size)).shape == (2, 3)
    depth, height, width = feature_shape(model, model.explained_layer, 1, input_size)
    assert depth == next(m for m in model.modules() if isinstance(m, nn.Linear)).in_features
    assert {height, width} <= sides
    assert not model.get_submodule(model.explained_layer)._forward_hooks


@pytest.mark.parametrize("layer", ["layer5", "avgpool.x", "head"])
def test_a_layer_that_cannot_be_explained_is_refused(layer: str) -> None:
    with pytest.raises(InputError, match=layer):
        feature_shape(build_model("resnet14", width=4), layer, 1, 64)


def test_resnet18_and_densenet121_have_torchvisions_names_and_shapes() -> None:
    model = build_model("resnet18", triplet_attention=False)
    resnet = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert resnet["layer1.1.conv2.weight"] == (64, 64, 3, 3)
    assert resnet["layer4.0.downsample.1.running_var"] == (512,)
    assert "layer1.0.downsample.0.weight" not in resnet
    backbone = [
        p.numel() for n, p in build_model("resnet18", triplet_attention=False).named_parameters() if "head" not in n
    ]
    assert sum(backbone) == 11_176_512 - 2 * 64 * 49  # torchvision's without fc, less two input channels
    model = build_model("densenet121", triplet_attention=False, classes=1000)
    dense = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert dense["features.conv0.weight"] == (64, 1, 7, 7)
    assert dense["features.denseblock4.denselayer16.conv2.weight"] == (32, 128, 3, 3)
    assert dense["features.transition3.norm.running_mean"] == (1024,)
    assert dense["features.norm5.weight"] == (1024,)
    assert dense["classifier.weight"] == (1000, 1024)
    assert sum(p.numel() for p in model.parameters()) == 7_978_856 - 2 * 64 * 49


def test_attention_is_optional_and_acts_before_the_addition() -> None:
    plain = build_model("resnet14", width=4, triplet_attention=False)
    assert not any(isinstance(module, TripletAttention) for module in plain.modules())
    block = Bottleneck(16, 4, stride=1, triplet_attention=True).eval()
    x = torch.randn(2, 16, 6, 6)
    residual = block.bn3(block.conv3(block.relu2(block.bn2(block.conv2(block.relu1(block.bn1(block.conv1(x))))))))
    assert block.triplet_attention is not None
    torch.testing.assert_close(block(x), torch.relu(x + block.triplet_attention(residual)))


@pytest.mark.parametrize(
    ("architecture", "relus"),
    [("resnet26", 1 + 3 * 8 + 1), ("resnet18", 1 + 2 * 8 + 1), ("densenet121", 1 + 2 * 58 + 3 + 1)],
)
def test_every_relu_is_used_once(architecture: str, relus: int) -> None:
    model = build_model(architecture, width=4, triplet_attention=False).eval()
    uses: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.ReLU):
            uses[name] = 0
            module.register_forward_hook(lambda _m, _i, _o, name=name: uses.update({name: uses[name] + 1}))
    model(torch.zeros(1, 1, 64, 64))
    assert len(uses) == relus
    assert set(uses.values()) == {1}


@pytest.mark.parametrize(
    "arguments", [{"architecture": "vgg"}, {"architecture": "densenet121"}, {"classes": 0}, {"width": 0}]
)
def test_bad_arguments_are_refused(arguments: dict[str, str | int]) -> None:
    with pytest.raises(InputError, match="expected"):
        build_model(**arguments)
