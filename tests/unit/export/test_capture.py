"""Capturing a classifier: the same numbers, simple operators, and clear errors."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.export import Dim

from crosseai.contract import InputError
from crosseai.export.capture import capture
from tests.unit.export import networks

aten = torch.ops.aten


def test_captured_graph_computes_what_the_model_does():
    model = networks.dense()
    graph = capture(model, "block2", 3, 32)
    image = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(graph.module(image), model(image), rtol=1e-4, atol=1e-5)
    assert tuple(graph.activations.meta["val"].shape[1:]) == (16, 4, 4)


def test_batch_norms_are_folded_and_parameters_left_alone():
    model = networks.residual()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = capture(model, "layer4", 1, 32)
    operators = Counter(str(node.target) for node in graph.module.graph.nodes)
    assert not [name for name in operators if "norm" in name or name.endswith("_.default")]
    image = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(graph.module(image), model(image), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_training_mode_is_refused():
    model = networks.tiny()
    model.head.train()
    with pytest.raises(InputError, match=r"evaluation mode.*head"):
        capture(model, "features", 1, 16)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_refused(dtype):
    model = networks.tiny().to(dtype)
    image = torch.zeros(2, 1, 16, 16, dtype=dtype)
    program = torch.export.export(model, (image,), dynamic_shapes=({0: Dim.DYNAMIC},))
    for candidate in (model, program):
        with pytest.raises(InputError, match=rf"expected float32 parameters, found {dtype}"):
            capture(candidate, "features", 1, 16)


def test_missing_layer_names_the_candidates():
    with pytest.raises(InputError, match=r"expected one of features, head, found 'layer4'"):
        capture(networks.tiny(), "layer4", 1, 16)


def test_candidates_are_layers_alone():
    with pytest.raises(InputError, match="found 'nosuch'") as refused:
        capture(networks.residual(), "nosuch", 1, 32)
    offered = str(refused.value).removeprefix("layer: expected one of ").partition(", found")[0].split(", ")
    assert offered == [name for name, _ in networks.residual().named_children() if name in offered]


def test_layer_after_pooling_is_refused():
    with pytest.raises(InputError, match="4 dimensions in the activations"):
        capture(networks.tiny(), "head", 1, 16)


def test_wrong_channels_are_refused():
    with pytest.raises(InputError, match=r"images \[N, 3, 16, 16\]"):
        capture(networks.tiny(), "features", 3, 16)


def test_model_that_mixes_images_is_refused():
    class Mixing(networks.Tiny):
        def forward(self, x):
            x = self.features(x)
            return self.head((x - x.mean(0, keepdim=True)).mean((2, 3)))

    with pytest.raises(InputError, match=r"batch as its first dimension.*mean"):
        capture(Mixing().eval(), "features", 1, 16)


def test_fixed_batch_is_refused():
    program = torch.export.export(networks.tiny(), (torch.zeros(1, 1, 16, 16),))
    with pytest.raises(InputError, match=r"expected images \('N', 1, 16, 16\)"):
        capture(program, "features", 1, 16)


def test_dynamic_image_sizes_are_refused():
    dynamic = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = torch.export.export(networks.tiny(), (torch.zeros(2, 1, 16, 16),), dynamic_shapes=(dynamic,))
    with pytest.raises(InputError, match=r"expected images \('N', 1, 16, 16\), of which only N is dynamic"):
        capture(program, "features", 1, 16)


def test_two_outputs_are_refused():
    class Two(networks.Tiny):
        def forward(self, x):
            return super().forward(x), x

    with pytest.raises(InputError, match="one tensor out"):
        capture(Two().eval(), "features", 1, 16)


def test_a_convolution_read_twice_keeps_its_batch_norm_apart():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2)

        def forward(self, x):
            y = self.conv(x)
            return self.head((self.norm(y) + y).mean((2, 3)))

    model = networks.randomised(Twice())
    image = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(capture(model, "norm", 1, 8).module(image), model(image), rtol=1e-4, atol=1e-5)
