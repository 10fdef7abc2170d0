"""``crosseai-export``: from a trained model to a verified graph in the registry, and to a TensorRT plan."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from crosseai.contract import MODEL_FILENAME, RESEARCH_NOTICE, InputError, ModelSpec
from crosseai.contract.spec import GradientMethod, HeatmapMethod, Precision
from crosseai.training.commands import Group

if TYPE_CHECKING:
    from crosseai.contract.golden import Golden
    from crosseai.export.verify import Parity

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)


class Sizes(click.ParamType[tuple[int, int, int]]):
    """The smallest, the usual and the greatest size of a dynamic dimension: ``1,8,64``, ``1,3`` or ``8``."""

    name = "[least,[usual,]]greatest"

    def convert(self, value: str, param: click.Parameter | None, context: click.Context | None) -> tuple[int, int, int]:
        """Parse the option."""
        parts = value.split(",")
        numbers = [int(part) for part in parts if part.strip().isdigit()]
        if not 1 <= len(numbers) == len(parts) <= 3 or numbers != sorted(numbers) or numbers[0] < 1:
            self.fail(
                f"expected one to three growing numbers from 1 up, such as 1,8,64, found {value!r}", param, context
            )
        return numbers[0], numbers[-2] if len(numbers) == 3 else numbers[-1], numbers[-1]


@click.group(
    cls=Group,
    help=f"Export CrossEAI models. {RESEARCH_NOTICE}",
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.version_option(package_name="crosseai")
def main() -> None:
    """Hold the commands."""


@main.command("onnx")
@click.option("--model", "uri", required=True, help="runs:/ID, models:/crosseai/N, or a checkpoint folder.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write.")
@click.option("--layer", default="layer4", help="Layer that the heat maps are of.")
@click.option("--heatmap", type=click.Choice(get_args(HeatmapMethod)), default="gradcam++", help="Kind of heat map.")
@click.option(
    "--gradient", type=click.Choice(get_args(GradientMethod)), default="guided", help="Rule of the gradient maps."
)
@click.option("--precision", type=click.Choice(get_args(Precision)), default="fp32", help="Arithmetic in the graph.")
@click.option("--register/--no-register", default=True, help="Add a version to the registered model.")
def onnx_command(
    uri: str,
    output: Path,
    layer: str,
    heatmap: HeatmapMethod,
    gradient: GradientMethod,
    precision: Precision,
    register: bool,
) -> None:
    """Write model.onnx, model_spec.json and golden.npz, compare them with PyTorch, and register them."""
    from crosseai.export.onnx_export import export_onnx
    from crosseai.training import load_checkpoint
    from crosseai.training.tracking import resolve_checkpoint

    model, spec = load_checkpoint(resolve_checkpoint(uri))
    spec = replace(spec, heatmap=heatmap, gradient=gradient)
    output.mkdir(parents=True, exist_ok=True)
    report = export_onnx(model, spec, output / MODEL_FILENAME, layer=layer, precision=precision, source=_source(uri))
    report.save(output)
    _show(report.parity)
    click.echo(f"{report.path}: {report.size_bytes / 1e6:.1f} MB in {report.seconds:.0f} s, SHA-256 {report.sha256}")
    if register:
        from crosseai.export.register import register as register_report

        click.echo(f"registered as models:/{spec.name}/{register_report(report, uri)}")


def _source(uri: str) -> str:
    """What a model's URI stands for now: an alias may name another version tomorrow."""
    from crosseai.training.tracking import resolve_run

    return str(Path(uri).resolve()) if Path(uri).is_dir() else f"runs:/{resolve_run(uri)}"


@main.command("tensorrt")
@click.argument("model_dir", type=_FOLDER)
@click.option("--output", type=_FILE, required=True, help="Plan to write; a report in JSON goes beside it.")
@click.option("--batch", type=Sizes(), default="1,8,64", help="Images in one run.")
@click.option("--explain", "explained", type=Sizes(), default="1,3", help="Explained diseases an image.")
@click.option("--timing-cache", type=_FILE, help="File of kernel times, read and written: builds get faster.")
def tensorrt_command(
    model_dir: Path,
    output: Path,
    batch: tuple[int, int, int],
    explained: tuple[int, int, int],
    timing_cache: Path | None,
) -> None:
    """Build a TensorRT plan of an exported model, inside the image and on the GPU that will serve it."""
    from crosseai.export.tensorrt import build_plan

    report = build_plan(model_dir, output, batch=batch, explained=explained, timing_cache=timing_cache)
    _show(report.parity)
    click.echo(
        f"{output}: {report.builder} {report.version}, {report.size_bytes / 1e6:.1f} MB in {report.seconds:.0f} s"
    )
    if not report.gpu:
        click.echo("NOT compared with PyTorch: it finds no GPU here to run the plan on")


@main.command("verify")
@click.argument("model_dir", type=_FOLDER)
@click.option("--model", "uri", help="What it was exported from: runs:/ID or a checkpoint folder.")
@click.option("--images", type=_FOLDER, help="Compare on the radiographs of this folder.")
@click.option("--count", type=click.IntRange(1), default=8, help="How many of them.")
def verify_command(model_dir: Path, uri: str | None, images: Path | None, count: int) -> None:
    """Compare an exported model with eager PyTorch, output by output.

    Without options: with what PyTorch computed when the model was exported, which needs nothing but MODEL_DIR. With
    --model or --images PyTorch runs again; then the model is found where the export recorded that it came from.
    """
    from crosseai.contract.golden import Golden
    from crosseai.export.verify import compare, onnx_runtime, require

    spec = ModelSpec.load(model_dir)
    golden = _explain_again(model_dir, spec, uri, images, count) if uri or images else Golden.load(model_dir, spec)
    parity = compare(onnx_runtime(model_dir / MODEL_FILENAME), spec, golden)
    _show(parity)
    require(parity)
    click.echo(f"{model_dir / MODEL_FILENAME} agrees with PyTorch on {len(golden.images)} images")


def _explain_again(model_dir: Path, spec: ModelSpec, uri: str | None, images: Path | None, count: int) -> "Golden":
    """What PyTorch says now, of the model that an export came from."""
    from crosseai.contract.golden import Golden
    from crosseai.export.verify import record
    from crosseai.training import load_checkpoint
    from crosseai.training.folder import read_folder
    from crosseai.training.tracking import resolve_checkpoint

    uri = uri or Golden.load(model_dir, spec).source
    if not uri:
        raise InputError(f"{model_dir}: the export did not record where the model came from: expected --model")
    model, _ = load_checkpoint(resolve_checkpoint(uri))
    return record(model, spec, read_folder(images, spec, count) if images else Golden.load(model_dir, spec).images)


def _show(parities: Iterable["Parity"]) -> None:
    click.echo(f"{'output':22}{'error':>10}{'float32 PyTorch':>17}{'tolerance':>11}")
    for p in parities:
        click.echo(f"{p.output:22}{p.error:10.1e}{p.eager_error:17.1e}{p.tolerance:11.1e}  {'ok' if p.holds else 'NO'}")
