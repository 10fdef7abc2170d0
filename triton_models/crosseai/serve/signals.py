"""How a command of ours is told to stop: by a signal, or by the end of its parent."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

PARENT_POLL_INTERVAL_S = 0.25

logger = logging.getLogger(__name__)


def stop_on_signals(*, tie_to_parent: bool) -> Callable[[], bool]:
    """Make signals raise KeyboardInterrupt, the end of the parent too if that is wanted.

    Returns
    -------
    Callable
        Whether a signal has come. Libraries swallow the exception now and then: a loop that runs for ever has to ask.
    """
    received: list[int] = []

    def interrupt(number: int, _: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, interrupt)
    if tie_to_parent:
        threading.Thread(target=_stop_with, args=(os.getppid(),), daemon=True).start()
    return lambda: bool(received)


def _stop_with(parent: int) -> None:
    """Send SIGTERM to this process when its parent is gone."""
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_INTERVAL_S)
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """End quietly on SIGINT, SIGTERM and SIGHUP."""
    try:
        yield
    except KeyboardInterrupt:
        logger.info("crosseai-serve has stopped")
