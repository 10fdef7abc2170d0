"""Do narrower types change the boxes? Writes ``benchmarks/precision.md``.

    python -m benchmarks.precision

Real radiographs and the real classifier beside the checkout; for each image the three classes that float32 finds most
probable. float16 is the exported file, run by ONNX Runtime. bfloat16 and int8 are not exported: PyTorch runs the same
graph with its trunk in bfloat16, or with the weights (per channel) and inputs (per tensor, symmetric) of every
convolution rounded to int8 as a calibration by extreme values rounds them; the int8 reverse pass is float32. The last
row tells how much of that the box algorithm makes of any small change: the image, by one gray level of noise.
"""

import importlib.util
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from benchmarks.presets import iou
from crosseai import postproc
from crosseai.contract import ModelSpec, box_preset
from crosseai.export import export_onnx
from crosseai.export.capture import ClassifierGraph, capture
from crosseai.export.combined import CombinedGraph
from crosseai.export.folding import add_constant
from crosseai.export.precision import lower
from crosseai.export.reverse import Call, Gradients, rule
from crosseai.export.verify import Run, onnx_runtime
from crosseai.training.folder import read_folder

ROOT = Path(__file__).resolve().parents[1]
EXPLAINED = 3
BATCH = 5
MAPS = ("heatmaps", "gradient_maps")
aten = torch.ops.aten

Outputs = Mapping[str, npt.NDArray[Any]]


@rule(aten.fake_quantize_per_tensor_affine.default)
def straight_through(_: Call, gradient: Tensor) -> Gradients:
    """As if nothing had been rounded."""
    return {"self": gradient}


class Ranges(fx.Interpreter):
    """Notes the greatest magnitude that every operator puts out."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.greatest: dict[fx.Node, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run an operator."""
        result = super().run_node(n)
        if isinstance(result, Tensor) and result.is_floating_point():
            self.greatest[n] = float(result.abs().max())
        return result


def quantised(classifier: ClassifierGraph, normalised: Tensor) -> ClassifierGraph:
    """Round the inputs and weights of every convolution to int8, with ranges from some images."""
    ranges, graph = Ranges(classifier.module), classifier.module.graph
    with torch.no_grad():
        ranges.run(normalised)
    for node in [node for node in graph.nodes if node.target is aten.conv2d.default]:
        x, weight = node.all_input_nodes[:2]
        kernel = classifier.constant(weight)
        scale = kernel.abs().amax((1, 2, 3)).clamp(min=1e-30) / 127
        zeros = torch.zeros(len(scale), dtype=torch.int32)
        rounded = torch.fake_quantize_per_channel_affine(kernel, scale, zeros, 0, -127, 127)
        node.replace_input_with(weight, add_constant(classifier.module, f"{node.name}_int8", rounded))
        with graph.inserting_before(node):
            arguments = (x, ranges.greatest[x] / 127, 0, -127, 127)
            node.replace_input_with(x, graph.call_function(aten.fake_quantize_per_tensor_affine.default, arguments))
    classifier.module.recompile()
    return classifier


def in_pytorch(classifier: ClassifierGraph, spec: ModelSpec) -> Run:
    """Run a graph by PyTorch."""
    graph, names = CombinedGraph(classifier, spec).eval(), [output.name for output in spec.outputs]

    def run(images: npt.NDArray[Any], targets: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        with torch.no_grad():
            outputs = graph(torch.from_numpy(images), torch.from_numpy(targets))
        return {name: tensor.numpy() for name, tensor in zip(names, outputs, strict=True)}

    return run


def explain(run: Run, images: npt.NDArray[Any], targets: npt.NDArray[Any]) -> Outputs:
    """All outputs for all images, a few images at a time."""
    parts = [run(images[i : i + BATCH], targets[i : i + BATCH]) for i in range(0, len(images), BATCH)]
    wanted = ("logits", "explained", "heatmaps", "gradient_maps", "input_gradients")
    return {name: np.concatenate([part[name] for part in parts]) for name in wanted}


def boxes(outputs: Outputs, preset: str) -> npt.NDArray[np.float64]:
    """One box for each heat map, ``[n, 4]``."""
    maps = [np.ascontiguousarray(outputs[name].reshape(-1, *outputs[name].shape[2:])) for name in MAPS]
    found, _ = postproc.localize(*maps, **box_preset(preset).keywords())
    return found.astype(np.float64)


def row(name: str, found: Outputs, expected: Outputs, size: str) -> str:
    """How far a type's outputs and boxes are from those of float32."""
    difference = np.abs(found["gradient_maps"].astype(int) - expected["gradient_maps"]).mean()
    cells = [name, size, *(f"{error(found[key], expected[key]):.1e}" for key in ("logits", "heatmaps"))]
    cells += [f"{error(found['input_gradients'], expected['input_gradients']):.1e}", f"{difference:.2f}"]
    for preset in ("tuned", "crosseai"):
        pair = boxes(found, preset), boxes(expected, preset)
        same = (pair[0] == pair[1]).all(1)
        with np.errstate(invalid="ignore"):  # two empty boxes are the same
            agreement = np.where(same, 1.0, iou(*pair))
        cells += [f"{same.mean():.2f}", f"{agreement.mean():.3f}"]
    return "| " + " | ".join(cells) + " |"


def error(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Relative L2."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def real_classifier(folder: Path) -> tuple[nn.Module, ModelSpec]:
    """The classifier that comes with its own code."""
    spec = importlib.util.spec_from_file_location("model", folder / "model.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(folder / "model.py")
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    classes, mean, std = tuple(module.CLASSES), (module.MEAN,), (module.STD,)
    return module.load(), ModelSpec(classes=classes, mean=mean, std=std, input_size=module.SIZE)


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), default=ROOT.parent / "shared" / "data")
@click.option("--output", type=click.Path(path_type=Path), default=Path(__file__).with_suffix(".md"))
def main(data: Path, output: Path) -> None:
    """Compare float16, bfloat16 and int8 with float32, down to the boxes."""
    model, spec = real_classifier(data / "weights")
    images = read_folder(data / "nih" / "images", spec, count=1000)
    folder = Path(tempfile.mkdtemp(prefix="crosseai-precision-"))
    reports = {p: export_onnx(model, spec, folder / f"{p}.onnx", precision=p) for p in ("fp32", "fp16")}
    spec = reports["fp32"].spec

    def captured() -> ClassifierGraph:
        return capture(model, spec.layer, spec.channels, spec.input_size)

    calibration = (torch.from_numpy(images[::5]).float() / 255 - spec.mean[0]) / spec.std[0]
    noisy = images + np.random.default_rng(0).integers(-1, 2, images.shape)
    runs: dict[str, Callable[[], Run]] = {
        "float16": lambda: onnx_runtime(reports["fp16"].path),
        "bfloat16, simulated": lambda: in_pytorch(lower(captured(), torch.bfloat16), spec),
        "int8 forward, simulated": lambda: in_pytorch(quantised(captured(), calibration), spec),
    }
    ranked = np.full((len(images), EXPLAINED), -1)
    expected = explain(onnx_runtime(reports["fp32"].path), images, ranked)
    sizes = {"float16": f"{reports['fp16'].size_bytes / 1e6:.0f} MB"}
    rows = [
        row(name, explain(make(), images, expected["explained"]), expected, sizes.get(name, ""))
        for name, make in runs.items()
    ]
    disturbed = explain(onnx_runtime(reports["fp32"].path), noisy.clip(0, 255).astype(np.uint8), expected["explained"])
    rows.append(row("float32, each pixel of the image -1, 0 or +1", disturbed, expected, ""))
    output.write_text(
        "\n".join(
            [
                "# Narrower types against float32",
                "",
                f"{datetime.now(UTC).date()}, made by `benchmarks/precision.py`: {len(images)} NIH radiographs, a real "
                f"ResNet-50, the {EXPLAINED} most probable classes of each. The float32 file has "
                f"{reports['fp32'].size_bytes / 1e6:.0f} MB. Errors are relative L2; those of the gradient maps are "
                "mean gray levels of 0..255. Boxes: the share that is the same to the pixel, and the mean IoU of all.",
                "",
                "| trunk | file | logits | heat maps | guided gradients | gradient maps "
                "| `tuned` boxes: same | mean IoU | the paper's boxes: same | mean IoU |",
                "|---|---|---|---|---|---|---|---|---|---|",
                *rows,
                "",
            ]
        ),
        encoding="utf-8",
    )
    click.echo(output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
