"""Training by the workers of a Ray cluster, each of which is what a process of ``torchrun`` is."""

import logging
import os
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from crosseai.contract import CrossEAIError, InputError, ServerUnavailable, tracking_uri
from crosseai.training.fit import FitReport

CONNECT_S = 5.0
"""How long a cluster may take to answer: Ray asks for minutes, and then ends the process."""


def fit_on_ray(fit: Callable[[], FitReport | None], workers: int, address: str | None = None) -> FitReport | None:
    """Call one fit in several workers, which Ray Train has joined in a group.

    Parameters
    ----------
    fit
        Does the training; is sent to the workers, and called in this process's working folder.
    workers
        Their number; a GPU each where the cluster has any, else a CPU each.
    address
        Of the cluster, ``HOST:PORT`` or ``auto``; None starts one on this machine for the time of the call.

    Returns
    -------
    FitReport or None
        That of the main worker.

    Raises
    ------
    CrossEAIError
        What a worker raised.
    InputError
        If Ray is not installed, the address is none, or the cluster has not so many CPUs or GPUs.
    ServerUnavailable
        If the cluster cannot be reached, or a worker died.
    KeyboardInterrupt
        If the fit was interrupted.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
        from ray.train import RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchTrainer
    except ImportError as error:
        raise InputError("the engine 'ray' needs pip install 'crosseai[ray]'") from error
    folder, store = Path.cwd(), tracking_uri()

    def call() -> FitReport | None:
        os.chdir(folder)
        os.environ["MLFLOW_TRACKING_URI"] = store
        return fit()

    with tempfile.TemporaryDirectory(prefix="crosseai-ray-") as scratch, _cluster(address, workers, scratch):
        kind = "GPU" if "GPU" in ray.cluster_resources() else "CPU"
        if (found := ray.cluster_resources().get(kind, 0)) < workers:
            raise InputError(f"Ray: expected a {kind} for each of {workers} workers, found {found:g}")
        scaling = ScalingConfig(num_workers=workers, use_gpu=kind == "GPU")
        trainer = TorchTrainer(call, scaling_config=scaling, run_config=RunConfig(storage_path=scratch))
        try:
            with _handlers_kept():
                report: FitReport | None = trainer.fit().return_value
        except SystemExit as error:  # with which Ray answers Ctrl-C, as if all were well
            raise KeyboardInterrupt from error
        except TrainingFailedError as error:
            causes = [*getattr(error, "worker_failures", {}).values(), error]
            known = [cause for cause in causes if isinstance(cause, CrossEAIError)]
            died = ServerUnavailable(f"Ray gave up: {type(causes[0]).__name__}; its logs say why, and --resume goes on")
            raise (known or [died])[0] from error
        return report


@contextmanager
def _cluster(address: str | None, workers: int, scratch: str) -> Iterator[None]:
    """Connect to a cluster, or start one that only this machine reaches."""
    import ray

    def quiet() -> None:  # of what Ray misses in a cluster without a dashboard
        logging.getLogger("ray.train").setLevel(logging.ERROR)

    own: dict[str, object] = {}
    if address is None:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray keeps one in the home folder
        own = {"num_cpus": workers, "include_dashboard": False, "_node_ip_address": "127.0.0.1", "_temp_dir": scratch}
    elif address != "auto":
        _check_listening(address)
    with redirect_stdout(sys.stderr):  # where Ray tells of nodes and workers that died
        try:
            try:
                with _handlers_kept():
                    ray.init(address or "local", runtime_env={"worker_process_setup_hook": quiet}, **own)
            except (OSError, RuntimeError, ValueError, SystemExit) as error:
                raise ServerUnavailable(f"Ray at {address or 'this machine'}: cannot be reached: {error}") from error
            yield
        finally:
            ray.shutdown()


def _check_listening(address: str) -> None:
    """Ask whether the head of a cluster is alive."""
    import grpc

    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise InputError(f"--ray-address {address!r}: expected HOST:PORT or auto, for example 10.0.0.1:6379")
    if os.environ.get("RAY_USE_TLS") == "1":
        return  # with certificates that only Ray knows
    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")
        try:
            ask(b"", timeout=CONNECT_S, wait_for_ready=True)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAUTHENTICATED:  # of a cluster that asks for a token
                found = f"expected the head of a cluster, found {error.code().name} within {CONNECT_S:g} s"
                raise ServerUnavailable(f"Ray at {address}: {found}") from error


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Put back the handlers of signals that Ray replaces."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in kept.items():
                signal.signal(number, handler)
