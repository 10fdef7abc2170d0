"""Scoring on a Ray cluster: Ray Data hands the shards of a plan to workers, and streams back what they found.

Workers are actors that run the stages of a local run; this process plans, and records what comes back, in the order
of its coming. Ray starts a worker again that dies, and gives its shards to others.
"""

import asyncio
import json
import os
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from logging import CRITICAL, getLogger
from typing import Any

import grpc

from crosseai.client.cluster.plan import write_plan
from crosseai.client.cluster.worker import Assignment, Worker, raise_error
from crosseai.client.flow import Stream
from crosseai.client.meter import Meter
from crosseai.client.records.journal import Entry, from_line
from crosseai.client.sources.storage import ImageFile
from crosseai.contract import InputError, ServerUnavailable

SHARDS_AT_A_TIME = 2
"""Shards that a worker scores at a time: it decodes the files of one while the server has those of the other."""

CONNECT_S = 5.0
"""How long a cluster may take to answer: Ray asks for minutes, and then ends the process."""

OBJECT_STORE_BYTES = 200 * 2**20
"""Shared memory of a cluster of this machine alone: only results pass through it."""


@contextmanager
def ray_cluster(address: str | None) -> Iterator[None]:
    """Connect to a cluster, or start one on this machine that leaves nothing behind.

    Call it before connections are open, as Ray forks.

    Parameters
    ----------
    address
        Of the cluster, ``HOST:PORT`` or ``auto``; None for one on this machine.

    Raises
    ------
    InputError
        If Ray is not installed, or the address is none.
    ServerUnavailable
        If the cluster cannot be reached or started.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # These are read when Ray is imported. A call after the end must not start another cluster, and Ray's core reports
    # what this module handles.
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError("the engine 'ray' needs pip install 'crosseai[ray]'") from error
    for name in ("ray", "ray.data"):
        getLogger(name).setLevel(CRITICAL)
    if address not in (None, "auto"):
        _check_listening(address)
    with ExitStack() as held:
        options: dict[str, object] = {"log_to_driver": False, "configure_logging": False}
        if address is None:
            # Else Ray would keep a token in the home folder.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            options |= {
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE_BYTES,
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": held.enter_context(tempfile.TemporaryDirectory(prefix="crosseai-ray-")),
            }
        held.callback(ray.shutdown)
        held.enter_context(redirect_stdout(sys.stderr))  # where Ray tells of nodes and workers that died
        terminate = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address or "local", **options)
        except (ConnectionError, RuntimeError, SystemExit) as error:
            raise ServerUnavailable(f"Ray at {address or 'this machine'}: cannot be reached: {error}") from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminate)  # Ray put its own in its place
        yield


def _check_listening(address: str) -> None:
    """Ask for a connection such as Ray's own."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise InputError(f"ray_address {address!r}: expected HOST:PORT or auto, for example 10.0.0.1:6379")
    if os.environ.get("RAY_USE_TLS") == "1":
        return  # with certificates that only Ray knows
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(CONNECT_S)
        except grpc.FutureTimeoutError as error:
            raise ServerUnavailable(
                f"Ray at {address}: expected the head of a cluster, which did not answer in {CONNECT_S:g} s"
            ) from error


async def entries_by_ray(
    files: Iterator[ImageFile], shard_rows: int, assignment: Assignment, meter: Meter
) -> Stream[list[Entry]]:
    """Score files on the cluster; yields groups of entries, one a file, in the order in which they are done.

    Parameters
    ----------
    files
        What is to be scored.
    shard_rows
        How many of them a worker gets at a time.
    assignment
        What workers are told; the plan is written to where it says.
    meter
        Counts what comes back.

    Raises
    ------
    ServerUnavailable, InferenceTimeout
        If the inference servers or the cluster went away: the files not yet yielded were not scored.
    OutputError
        If something cannot be written.
    """
    import ray

    shards = await asyncio.to_thread(write_plan, files, assignment.plan, shard_rows)
    groups = _groups(assignment, shards) if shards else iter(())
    try:
        while (group := await asyncio.to_thread(next, groups, None)) is not None:
            raise_error(group)
            entries = [from_line(line) for line in group["lines"]]
            for stage, seconds in json.loads(group["stage_seconds"]).items():
                meter.seconds[stage] += seconds
            meter.done += len(entries)
            yield entries
    except ray.exceptions.RayError as error:
        cause = type(getattr(error, "cause", None) or error).__name__
        raise ServerUnavailable(f"Ray gave up: {cause}; its logs say why") from error
    finally:
        await asyncio.to_thread(ray.shutdown)  # ends a call of next() that still waits, too


def _groups(assignment: Assignment, shards: int) -> Iterator[dict[str, Any]]:
    """What workers return, row by row."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    workers = max(1, min(shards, int(ray.cluster_resources().get("CPU", 1))))
    outcomes = ray.data.from_items(list(range(shards)), override_num_blocks=shards).map_batches(
        Worker,
        fn_constructor_args=(assignment,),
        batch_size=1,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(
            min_size=1,
            initial_size=workers,
            max_concurrent_calls_per_actor=SHARDS_AT_A_TIME,
            max_tasks_in_flight_per_actor=2 * SHARDS_AT_A_TIME,
        ),
    )
    for table in outcomes.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from table.to_pylist()
