"""Keeps one Triton server from outliving the process that wanted it.

Runs as a process of its own, as a plain file (``python guardian.py PLAN``), with nothing but the standard library:
it starts the server, waits until the server ends, it is told to stop (SIGTERM), or its parent is gone, however that
died, and then removes all that the server leaves behind. It asks for its parent's id instead of using
``PR_SET_PDEATHSIG``, which fires when the *thread* that started the child ends.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

POLL_INTERVAL_S = 0.25
COLLECTION_TIMEOUT_S = 1.5
WORKER_LOST = 70
"""Exit status when the server lives, but the process that runs a model has died."""

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run and what to clean up.

    Parameters
    ----------
    command
        The server's command line.
    parent
        Process whose end is the server's end.
    workspace
        Working folder of the server.
    scratch
        Folders to delete at the end, the workspace among them.
    shm_prefix
        Beginning of the names of its shared memory regions; deleted at the end.
    stop_timeout_s
        How long the server may take to stop by itself, in seconds.
    """

    command: list[str]
    parent: int
    workspace: str
    scratch: list[str]
    shm_prefix: str
    stop_timeout_s: float

    def to_json(self) -> str:
        """This plan as the guardian's command line argument."""
        return json.dumps(asdict(self))


def main(plan: Plan) -> int:
    """Run the server as planned.

    Returns
    -------
    int
        0 when it was stopped on purpose; otherwise its exit status, as a shell gives it.
    """
    started = time.time()
    server: subprocess.Popen[bytes] | None = None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # A process group of its own: its helpers die with it. This process has one thread, so preexec_fn is safe.
        server = subprocess.Popen(
            plan.command, cwd=plan.workspace, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=_die_with_guardian
        )
        status = _watch(server, plan.parent)
    except KeyboardInterrupt:
        status = 0
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        clean = server is not None and _stop(server, plan.stop_timeout_s)
        sweep(plan, None if clean else started)
    return status


def sweep(plan: Plan, unclean_since: float | None = None) -> None:
    """Delete what a server has left behind.

    Parameters
    ----------
    plan
        The server's plan.
    unclean_since
        For a server that did not stop by itself, when it was started (seconds since the epoch): it has left an
        empty folder ``/tmp/python_env_*``, whose name tells nothing, so the empty ones since then are taken.
    """
    for region in Path("/dev/shm").glob(f"{plan.shm_prefix}*"):  # noqa: S108 - where POSIX shared memory lives
        region.unlink(missing_ok=True)
    if unclean_since is not None:
        for folder in Path("/tmp").glob("python_env_*"):  # noqa: S108 - the place is Triton's choice
            with suppress(OSError):  # not empty, not ours, or gone already
                if folder.stat().st_ctime >= unclean_since and folder.stat().st_uid == os.getuid():
                    folder.rmdir()
    for scratch in plan.scratch:
        shutil.rmtree(scratch, ignore_errors=True)


def _watch(server: subprocess.Popen[bytes], parent: int) -> int:
    """Wait for the end of the server, of one of its workers or of the parent, and say what became of it."""
    dead_since: dict[str, float] = {}
    while os.getppid() == parent:
        try:
            status = server.wait(POLL_INTERVAL_S)
        except subprocess.TimeoutExpired:
            # The server collects workers that it ended, but never one that died: its models stay "ready".
            now = time.monotonic()
            dead_since = {worker: dead_since.get(worker, now) for worker in _zombies(server.pid)}
            if any(now - since > COLLECTION_TIMEOUT_S for since in dead_since.values()):
                return WORKER_LOST
        else:
            return status if status >= 0 else 128 - status
    return 0


def _zombies(parent: int) -> list[str]:
    """Children of a process that are dead and not collected."""
    children: list[str] = []
    for thread in Path(f"/proc/{parent}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has just ended
            children += thread.read_text().split()
    return [child for child in children if _is_zombie(child)]


def _is_zombie(process: str) -> bool:
    try:
        return ") Z " in Path(f"/proc/{process}/stat").read_text()
    except OSError:  # collected meanwhile
        return False


def _stop(server: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """End the server and its process group; whether it ended by itself."""
    server.terminate()
    try:
        clean = server.wait(timeout_s) >= 0
    except subprocess.TimeoutExpired:
        clean = False
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    return clean


def _die_with_guardian() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(Plan(**json.loads(sys.argv[1]))))
