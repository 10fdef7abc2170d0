"""How a command of ours is told to stop: by a signal, or by the end of its parent."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

PARENT_POLL_INTERVAL_S = 0.25

logger = logging.getLogger(__name__)


def stop_on_signals(*, tie_to_parent: bool) -> None:
    """Make signals raise KeyboardInterrupt, the end of the parent too if that is wanted."""
    _on_signals(signal.default_int_handler, tie_to_parent=tie_to_parent)


def remember_signals(*, tie_to_parent: bool) -> Callable[[], bool]:
    """Remember the first signal, or the end of the parent if that is wanted; let the second raise KeyboardInterrupt.

    Returns
    -------
    Callable
        Whether one has come. For a loop that runs for ever, which then ends with its round: an exception can come
        anywhere, and libraries swallow it now and then.
    """
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            signal.default_int_handler(number, frame)

    _on_signals(remember, tie_to_parent=tie_to_parent)
    return lambda: bool(received)


def _on_signals(handler: Callable[[int, FrameType | None], Any], *, tie_to_parent: bool) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, handler)
    if tie_to_parent:
        threading.Thread(target=_stop_with, args=(os.getppid(),), daemon=True).start()


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
