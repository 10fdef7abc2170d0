"""What the embedded server computes with: the model's own answers, however a batch is spread over threads."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, numpy_helper

from crosseai.contract import MODEL_FILENAME
from crosseai.serve.environment import KERNELS
from tests.tiny_model import TINY_SPEC, write_tiny_model
from triton_models.backends.onnxruntime.cpu import runner as module
from triton_models.backends.onnxruntime.cpu.runner import Runner

OUTPUTS = [tensor.name for tensor in TINY_SPEC.outputs]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model")) / MODEL_FILENAME


def images(count: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    side = TINY_SPEC.input_size
    return {
        "image": rng.integers(0, 256, (count, 1, side, side), dtype=np.uint8),
        "targets": rng.integers(-1, len(TINY_SPEC.classes), (count, 2)),
    }


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("outputs", [["logits"], ["gradient_maps", "heatmaps"], OUTPUTS])
def test_answers_are_those_of_the_whole_graph(file, threads, count, outputs):
    feed = images(count)
    expected = ort.InferenceSession(file).run(outputs, feed)
    found = Runner(file, threads, batched=True, kernels=KERNELS).run(outputs, feed)
    for name, one, other in zip(outputs, found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6, err_msg=name)


def test_an_image_that_is_computed_alone_does_not_feel_its_neighbours(file):
    runner = Runner(file, 2, batched=True, kernels=KERNELS)
    feed, others = images(4), images(4, seed=1)
    mixed = {name: np.concatenate([feed[name][:1], others[name]]) for name in feed}
    for together, mixed_up in zip(runner.run(OUTPUTS, feed), runner.run(OUTPUTS, mixed), strict=True):
        np.testing.assert_array_equal(together[0], mixed_up[0])


def test_a_model_without_a_batch_is_run_whole(file):
    """Its first dimension may be anything: nothing is cut apart."""
    feed = images(3)
    expected = ort.InferenceSession(file).run(["logits"], feed)
    found = Runner(file, 1, batched=False, kernels=KERNELS).run(["logits"], feed)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)


def test_one_failing_image_fails_the_batch_with_its_reason(file):
    feed = images(4)
    feed["targets"][2] = 99
    runner = Runner(file, 2, batched=True, kernels=KERNELS)
    with pytest.raises(Exception, match="idx=99 must be within"):
        runner.run(["heatmaps"], feed)
    np.testing.assert_array_equal(runner.run(["logits"], feed)[0], runner.run(["logits"], images(4))[0])


def deviating(optimised: ModelProto, plain: ModelProto) -> None:
    (full,) = (constant for constant in optimised.graph.initializer if constant.name == "full")
    full.CopyFrom(numpy_helper.from_array(np.float32(250), "full"))


def unknown(optimised: ModelProto, plain: ModelProto) -> None:
    optimised.graph.node[0].op_type = "Unknown"


def test_without_the_library_of_kernels_the_graph_is_served_as_it_is(tmp_path, file, caplog):
    feed = images(2)
    expected = ort.InferenceSession(file).run(OUTPUTS, feed)
    found = Runner(file, 1, batched=True, kernels=tmp_path / "absent.so").run(OUTPUTS, feed)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert "absent.so" in caplog.text


@pytest.mark.parametrize("spoil", [deviating, unknown])
@pytest.mark.parametrize("threads", [1, 4])
def test_a_graph_that_is_compiled_wrongly_is_not_served(file, threads, spoil, monkeypatch, caplog):
    feed = images(2)
    expected = ort.InferenceSession(file).run(OUTPUTS, feed)
    monkeypatch.setattr(module, "keep_blocked", spoil)
    found = Runner(file, threads, batched=True, kernels=KERNELS).run(OUTPUTS, feed)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert "ONNX Runtime's own is served" in caplog.text


def test_what_is_compiled_is_served_without_a_word(file, caplog):
    Runner(file, 1, batched=True, kernels=KERNELS).run(OUTPUTS, images(2))
    assert not caplog.text
