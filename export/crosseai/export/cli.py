"""``crosseai-export``: from a trained model to a verified graph in the registry."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from crosseai.contract import MODEL_FILENAME, RESEARCH_NOTICE, ModelSpec
from crosseai.contract.spec import Precision
from crosseai.training.commands import Group

if TYPE_CHECKING:
    from crosseai.export.verify import Parity


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
@click.option("--layer", default="layer4", help="Layer that Grad-CAM++ explains.")
@click.option(
    "--precision", type=click.Choice(get_args(Precision)), default="fp32", help="Arithmetic inside the graph."
)
@click.option("--register/--no-register", default=True, help="Add a version to the registered model.")
def onnx_command(uri: str, output: Path, layer: str, precision: Precision, register: bool) -> None:
    """Write model.onnx and model_spec.json, compare them with PyTorch, and register them."""
    from crosseai.export.onnx_export import export_onnx
    from crosseai.training import load_checkpoint
    from crosseai.training.tracking import resolve_checkpoint

    model, spec = load_checkpoint(resolve_checkpoint(uri))
    output.mkdir(parents=True, exist_ok=True)
    report = export_onnx(model, spec, output / MODEL_FILENAME, layer=layer, precision=precision)
    report.spec.save(output)
    _show(report.parity)
    click.echo(f"{report.path}: {report.size_bytes / 1e6:.1f} MB in {report.seconds:.0f} s, SHA-256 {report.sha256}")
    if register:
        from crosseai.export.register import register as register_report

        click.echo(f"registered as models:/{spec.name}/{register_report(report, uri)}")


@main.command("verify")
@click.argument("model_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--model", "uri", required=True, help="What it was exported from: runs:/ID or a checkpoint folder.")
def verify_command(model_dir: Path, uri: str) -> None:
    """Compare an exported model with eager PyTorch, output by output."""
    from crosseai.export.verify import require, verify
    from crosseai.training import load_checkpoint
    from crosseai.training.tracking import resolve_checkpoint

    model, _ = load_checkpoint(resolve_checkpoint(uri))
    parity = verify(model_dir / MODEL_FILENAME, model, ModelSpec.load(model_dir))
    _show(parity)
    require(parity)


def _show(parities: Iterable["Parity"]) -> None:
    click.echo(f"{'output':22}{'error':>10}{'float32 PyTorch':>17}{'tolerance':>11}")
    for p in parities:
        click.echo(f"{p.output:22}{p.error:10.1e}{p.eager_error:17.1e}{p.tolerance:11.1e}  {'ok' if p.holds else 'NO'}")
