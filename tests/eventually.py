"""Waiting in tests for what happens in other processes."""

import time
from collections.abc import Callable

DEADLINE_S = 60
"""Long enough for any machine: it passes only where a test fails."""


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something holds, or fail."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s"
        time.sleep(0.05)
