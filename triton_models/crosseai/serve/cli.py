"""The command ``crosseai-serve``."""

import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, get_args

import click
from click.core import ParameterSource

from crosseai.contract import MODEL_FILENAME, RESEARCH_NOTICE, CrossEAIError, InputError, ModelSpec, ServerError
from crosseai.serve.config import MAX_BATCH_SIZE, PLAN_FILENAME, Runtime, ServedVersion, write_config
from crosseai.serve.container import GRPC_PORT, HTTP_PORT, METRICS_PORT, container_command
from crosseai.serve.control import ADMIN_KEY_VARIABLE, Control, Tls
from crosseai.serve.deployment import watch
from crosseai.serve.doctor import diagnose, diagnose_plans
from crosseai.serve.embedded import LOOPBACK, EmbeddedTriton
from crosseai.serve.options import client_tls_options, tls_options
from crosseai.serve.registry import fetch, register_plan
from crosseai.serve.repository import champion_of, models_of, place_version, sha256_of, versions_of
from crosseai.serve.signals import remember_signals, stop_on_signals, stopped_by_signals

EXIT_FAILED = 1
EXIT_SERVER = 3

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

_MODEL_HELP = "models:/crosseai@ALIAS, models:/crosseai/N, or a folder with model.onnx and model_spec.json."
_MODEL_DEFAULT = "  [default: the registry's champion, else its newest version]"


@click.group(
    help=f"Serve CrossEAI models with NVIDIA Triton. {RESEARCH_NOTICE}",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="crosseai")
def main() -> None:
    """Log to stderr: stdout is for results."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)


@main.command()
@click.option("--model", help=_MODEL_HELP + _MODEL_DEFAULT)
@click.option(
    "--repository",
    type=click.Path(path_type=Path),
    help="Serve the versions in this model repository; with --model, add that one to it.  [default: a temporary one]",
)
@click.option(
    "--host",
    default=LOOPBACK,
    show_default=True,
    help=f"IPv4 address to listen on. Beyond this machine, only who sends ${ADMIN_KEY_VARIABLE} may load models.",
)
@click.option("--grpc-port", type=click.IntRange(1, 65535), help="[default: a free one]")
@click.option("--http-port", type=click.IntRange(1, 65535), help="[default: a free one]")
@click.option(
    "--metrics-port",
    type=click.IntRange(1, 65535),
    help="Port of Prometheus' metrics.  [default: none; with --image, 8002]",
)
@tls_options(
    "PEM file of authorities: only clients with a certificate by them are answered.",
    "PEM file with the server's certificate chain: gRPC is then encrypted, and HTTP on the loopback interface alone.",
)
@click.option("--image", help="Container image: print the command that serves --repository in it, and start nothing.")
@click.option("--gpus", help="With --image: all, a count, or device=N.  [default: all]")
@click.option("--tie-to-parent", is_flag=True, help="Stop when the process that started this one ends.")
def up(
    model: str | None,
    repository: Path | None,
    host: str,
    grpc_port: int | None,
    http_port: int | None,
    metrics_port: int | None,
    tls: Tls,
    image: str | None,
    gpus: str | None,
    tie_to_parent: bool,
) -> None:
    """Run a Triton server on this machine until SIGINT or SIGTERM.

    When it is ready, one line of JSON on standard output says where: grpc_url, http_url, model, version. Exit status:
    0 after SIGINT or SIGTERM, 1 when there is no such model, 3 when the server could not start or has died.
    """
    if (image is None and gpus is not None) or (image is not None and repository is None):
        raise click.UsageError("--gpus needs --image, and --image needs --repository")
    if tls.is_given and (image is not None or tls.certificate is None):
        raise click.UsageError("--tls-ca needs --tls-cert, and neither goes with --image")
    stop_on_signals(tie_to_parent=tie_to_parent)
    with stopped_by_signals(), _exit_status(), ExitStack() as resources:
        if image is not None and repository is not None:
            if model is not None:
                _place(model, repository)
            ports = (grpc_port or GRPC_PORT, http_port or HTTP_PORT, metrics_port or METRICS_PORT)
            models = models_of(repository)
            click.echo(container_command(repository, models, image=image, gpus=gpus or "all", host=host, ports=ports))
            return
        folder = repository or Path(tempfile.mkdtemp(prefix="crosseai-repository-"))
        if repository is None:
            resources.callback(shutil.rmtree, folder, ignore_errors=True)
        served = _offered_by(folder) if repository and model is None else _place(model, folder)
        server = resources.enter_context(
            EmbeddedTriton(
                folder,
                host=host,
                grpc_port=grpc_port,
                http_port=http_port,
                metrics_port=metrics_port,
                delete_repository=repository is None,
                admin_key=os.environ.get(ADMIN_KEY_VARIABLE),
                tls=tls,
            )
        )
        urls = {"grpc_url": server.grpc_url, "http_url": server.http_url}
        click.echo(json.dumps({**urls, "model": served.name, "version": str(served.version)}))
        server.wait()


@main.command()
@click.option("--server", required=True, help="gRPC address of a Triton server, HOST:PORT.")
@client_tls_options
def status(server: str, tls: Tls) -> None:
    """Show the models and versions of a running server. Exit status 3 when it does not answer."""
    with _exit_status():
        versions = Control(server, tls).status()
        click.echo(f"{'model':20} {'version':>7}  {'state':12} reason")
        for version in versions:
            click.echo(f"{version.model:20} {version.version:>7}  {version.state:12} {version.reason}".rstrip())


@main.command()
@click.option("--model", help=_MODEL_HELP + _MODEL_DEFAULT)
@click.option("--repository", required=True, type=click.Path(path_type=Path), help="Model repository to add it to.")
@click.option("--server", help="Have the Triton server at this gRPC address, which uses that repository, load it.")
@click.option("--watch", "watching", is_flag=True, help="Follow the registry's aliases until SIGINT or SIGTERM.")
@click.option(
    "--grace",
    "grace_s",
    type=click.FloatRange(0),
    default=60,
    show_default=True,
    help="With --watch: seconds without a request after which a version that has lost its alias is unloaded.",
)
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.1),
    default=2,
    show_default=True,
    help="With --watch: seconds between two looks at the registry.",
)
@click.option(
    "--runtime",
    type=click.Choice(get_args(Runtime)),
    default="onnxruntime",
    show_default=True,
    help="With --watch: what runs the model.",
)
@click.option("--plans", help="With --runtime tensorrt: the target whose plans the server can load.")
@client_tls_options
@click.option("--tie-to-parent", is_flag=True, help="Stop when the process that started this one ends.")
def deploy(
    model: str | None,
    repository: Path,
    server: str | None,
    watching: bool,
    grace_s: float,
    interval_s: float,
    runtime: Runtime,
    plans: str | None,
    tls: Tls,
    tie_to_parent: bool,
) -> None:
    """Add a version of a model to a Triton model repository.

    With --watch, keep a server at what the registry's aliases say instead: the champion, and beside it the candidate
    while it is being promoted. The repository is this command's alone then: other versions are deleted from it.
    """
    if watching and (server is None or model is not None):
        raise click.UsageError("--watch needs --server, and takes its models from the registry's aliases")
    given = click.get_current_context().get_parameter_source
    if not watching and ParameterSource.COMMANDLINE in map(given, ("grace_s", "interval_s", "runtime")):
        raise click.UsageError("--grace, --interval and --runtime need --watch")
    if (runtime == "tensorrt") != (plans is not None):
        raise click.UsageError("--runtime tensorrt and --plans need each other")
    with stopped_by_signals(), _exit_status():
        if watching and server is not None:
            watch(
                repository,
                Control(server, tls),
                grace_s=grace_s,
                interval_s=interval_s,
                runtime=runtime,
                told_to_stop=remember_signals(tie_to_parent=tie_to_parent),
                plans=plans,
            )
            return
        stop_on_signals(tie_to_parent=tie_to_parent)
        placed = _place(model, repository)
        if server is not None:
            Control(server, tls).load_model(placed.name, placed.version)
        click.echo(f"{placed.name} version {placed.version} is in {repository}" + (", and loaded" if server else ""))


@main.command("register-plan")
@click.argument("model")
@click.argument("plan", type=_FILE)
@click.option("--target", required=True, help="Name of the kind of server that can load it, for example h200-trt11.")
def register_plan_command(model: str, plan: Path, target: str) -> None:
    """Add a TensorRT plan to MODEL, models:/crosseai/N, for `deploy --watch --runtime tensorrt --plans TARGET`.

    It was built by `crosseai-export tensorrt` of that version's model.onnx, inside the image that will serve it and on
    such a GPU; the record of its build is beside it.
    """
    with _exit_status():
        version = register_plan(model, plan, target)
        click.echo(f"version {version} has a plan for {target}")


@main.command()
@click.argument("model_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--runtime", type=click.Choice(get_args(Runtime)), default="tensorrt", show_default=True)
@click.option("--version", type=click.IntRange(1), default=1, show_default=True, help="Version folder of the model.")
@click.option("--max-batch-size", type=click.IntRange(1), default=MAX_BATCH_SIZE, show_default=True)
@click.option("--max-explained", type=click.IntRange(1), default=3, show_default=True, help="Diseases an image.")
def config(model_dir: Path, runtime: Runtime, version: int, max_batch_size: int, max_explained: int) -> None:
    """Print the config.pbtxt of an exported model, or of its plan, for a Triton server with a GPU."""
    with _exit_status():
        file = model_dir / (PLAN_FILENAME if runtime == "tensorrt" else MODEL_FILENAME)
        if not file.is_file():
            raise InputError(f"expected a file {file}, found none")
        spec = ModelSpec.load(model_dir)
        sizes = {"max_batch_size": max_batch_size, "max_explained": max_explained}
        versions = {version: ServedVersion(spec, sha256_of(file))}
        click.echo(write_config(spec, versions, runtime=runtime, **sizes), nl=False)


@main.command()
@click.option("--install", is_flag=True, help="Build the server environment if there is none.")
@click.option("--repository", type=click.Path(path_type=Path), help="Check the TensorRT plans of this repository.")
@click.option("--image", help="With --repository: container image that shall serve it.  [default: the one we are in]")
def doctor(install: bool, repository: Path | None, image: str | None) -> None:
    """Check whether the embedded server can run on this machine. Exit status 1 when it cannot.

    With --repository, check instead whether driver, CUDA, TensorRT and GPUs are those that its plans were built for.
    """
    if (repository is None and image is not None) or (repository is not None and install):
        raise click.UsageError("--image needs --repository, and --install is for the embedded server")
    with _exit_status():
        checks = diagnose(install=install) if repository is None else diagnose_plans(repository, image)
    for check in checks:
        click.echo(f"{'FAIL' if check.problem else 'ok  '} {check.name}" + (f": {check.problem}" * bool(check.problem)))
    if any(check.problem for check in checks):
        sys.exit(EXIT_FAILED)


class _Served(NamedTuple):
    """A version of a model in a repository."""

    name: str
    version: int


def _place(model: str | None, repository: Path) -> _Served:
    """Fetch a model and add it to a repository."""
    with fetch(model) as fetched:
        folder = place_version(repository, fetched.folder, fetched.version)
    return _Served(folder.parent.name, fetched.version)


def _offered_by(repository: Path) -> _Served:
    """Find what a repository serves: its only model, in the champion's version, else in the newest."""
    names = models_of(repository)
    versions = versions_of(repository, names[0])
    if len(names) > 1 or not versions:
        raise InputError(f"expected one model with at least one version in {repository}, found {', '.join(names)}")
    return _Served(names[0], champion_of(repository, names[0]) or max(versions))


@contextmanager
def _exit_status() -> Iterator[None]:
    """Turn errors into a message and an exit status."""
    try:
        yield
    except CrossEAIError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(EXIT_SERVER if isinstance(error, ServerError) else EXIT_FAILED)


if __name__ == "__main__":
    main()
