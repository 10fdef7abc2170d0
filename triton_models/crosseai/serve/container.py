"""The same repository in NVIDIA's container: the command that serves it on a machine with GPUs."""

from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from crosseai.serve.control import ADMIN_KEY_HEADER, ADMIN_KEY_VARIABLE
from crosseai.serve.embedded import LOOPBACK, RESTRICTED

GRPC_PORT, HTTP_PORT, METRICS_PORT = 8001, 8000, 8002
MOUNTED = "/models"
USER = "1000:1000"
"""User and group in the container, who must be able to read the repository."""


def container_command(
    repository: Path,
    models: Sequence[str],
    *,
    image: str,
    gpus: str = "all",
    host: str = LOOPBACK,
    ports: tuple[int, int, int] = (GRPC_PORT, HTTP_PORT, METRICS_PORT),
) -> str:
    """Shell command that serves a repository as :class:`~crosseai.serve.EmbeddedTriton` does.

    Parameters
    ----------
    repository, models
        The model repository and the models to load; the container can read it, and nothing else of this machine.
    image
        Container image with Triton, for example ``nvcr.io/nvidia/tritonserver:25.01-py3``.
    gpus
        What ``docker run --gpus`` shall say: ``all``, a count or ``device=0``.
    host, ports
        Address of this machine to listen on, and its ports for gRPC, HTTP and metrics. Beyond the loopback interface
        the calls that change the server want the admin key, which the shell takes from ``CROSSEAI_ADMIN_KEY``.
    """
    restriction = f'{RESTRICTED}:{ADMIN_KEY_HEADER}="${{{ADMIN_KEY_VARIABLE}:?}}"'
    restrictions = [f"--{kind}={restriction}" for kind in ("grpc-restricted-protocol", "http-restricted-api")]
    published = zip(ports, (GRPC_PORT, HTTP_PORT, METRICS_PORT), strict=True)
    words = [
        "docker run --rm --init",
        f"--gpus {quote(gpus)}",
        f"--user={USER} --cap-drop=ALL --security-opt=no-new-privileges",
        "--read-only --tmpfs=/tmp --shm-size=256m",
        " ".join(f"-p {host}:{port}:{inside}" for port, inside in published),
        f"-v {quote(f'{repository.absolute()}:{MOUNTED}:ro')}",
        quote(image),
        f"tritonserver --model-repository={MOUNTED} --model-control-mode=explicit --disable-auto-complete-config",
        *(f"--load-model={quote(model)}" for model in models),
        *(restrictions if host != LOOPBACK else []),
    ]
    return " \\\n  ".join(words)
