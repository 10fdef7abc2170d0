"""The same repository in NVIDIA's container: the command that serves it on a machine with GPUs."""

from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from crosseai.serve.control import ADMIN_KEY_HEADER, ADMIN_KEY_VARIABLE
from crosseai.serve.embedded import LOOPBACK, RESTRICTED

GRPC_PORT, HTTP_PORT = 8001, 8000
MOUNTED = "/models"


def container_command(
    repository: Path,
    models: Sequence[str],
    *,
    image: str,
    gpus: str = "all",
    host: str = LOOPBACK,
    grpc_port: int = GRPC_PORT,
    http_port: int = HTTP_PORT,
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
    host, grpc_port, http_port
        Address and ports of this machine to listen on. Beyond the loopback interface the calls that change the server
        want the admin key, which the shell takes from ``CROSSEAI_ADMIN_KEY``.
    """
    restriction = f'{RESTRICTED}:{ADMIN_KEY_HEADER}="${{{ADMIN_KEY_VARIABLE}:?}}"'
    restrictions = [f"--{kind}={restriction}" for kind in ("grpc-restricted-protocol", "http-restricted-api")]
    words = [
        "docker run --rm --init",
        f"--gpus {quote(gpus)}",
        "--cap-drop=ALL --security-opt=no-new-privileges",
        "--shm-size=256m",
        f"-p {host}:{grpc_port}:{GRPC_PORT} -p {host}:{http_port}:{HTTP_PORT}",
        f"-v {quote(f'{repository.absolute()}:{MOUNTED}:ro')}",
        quote(image),
        f"tritonserver --model-repository={MOUNTED} --model-control-mode=explicit --disable-auto-complete-config",
        *(f"--load-model={quote(model)}" for model in models),
        *(restrictions if host != LOOPBACK else []),
    ]
    return " \\\n  ".join(words)
