"""Asking the servers of a promotion what they serve, and waiting until they do."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from crosseai.client.transport import ServedModel, TritonTransport
from crosseai.contract import InferenceTimeout, ServerError, ServerUnavailable

POLL_INTERVAL_S = 0.2
CALL_TIMEOUT_S = 30.0

Answer = TypeVar("Answer")


def served_version(server: str, model: str, version: int | None = None) -> ServedModel:
    """What a server says about a version, or about its champion.

    Raises
    ------
    ServerError
        If it does not answer, or has not loaded it.
    ContractError
        If it serves something else under this name.
    """

    async def describe(transport: TritonTransport) -> ServedModel:
        return await transport.describe(model, None if version is None else str(version))

    return connected(server, describe)


def wait_for(server: str, what: str, condition: Callable[[], bool], timeout_s: float) -> None:
    """Poll a server until something holds; that it does not answer meanwhile is no failure.

    Raises
    ------
    InferenceTimeout
        If it does not hold in time.
    """
    deadline, last = time.monotonic() + timeout_s, ""
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except (ServerUnavailable, InferenceTimeout) as error:
            last = f" ({error})"
        time.sleep(POLL_INTERVAL_S)
    raise InferenceTimeout(f"{server}: expected {what} within {timeout_s:g} s{last}")


def is_served(server: str, model: str, version: int) -> bool:
    """Whether a server that answers has loaded a version."""
    try:
        served_version(server, model, version)
    except ServerError:
        return False
    return True


def connected(server: str, use: Callable[[TritonTransport], Awaitable[Answer]]) -> Answer:
    """Connect to a server for the time of one use."""

    async def run() -> Answer:
        transport = TritonTransport(server, timeout_s=CALL_TIMEOUT_S)
        try:
            return await use(transport)
        finally:
            await transport.close()

    return asyncio.run(run())
