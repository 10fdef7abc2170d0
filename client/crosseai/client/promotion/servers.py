"""The servers of a promotion: which they are, what they serve, and waiting until they do."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from crosseai.client.servers.credentials import NO_CREDENTIALS, Credentials
from crosseai.client.servers.transport import ServedModel, TritonTransport
from crosseai.contract import CrossEAIError, InferenceTimeout, ServerError, ServerUnavailable

POLL_INTERVAL_S = 0.2
CALL_TIMEOUT_S = 30.0

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where and how to promote.

    Parameters
    ----------
    servers
        gRPC addresses, each with an agent that follows the registry. Without any, the canary runs on an embedded server
        and only the registry is changed.
    credentials
        For the servers.
    repository
        Model repository of the only server, where this machine can write it: the agent then runs here for the time.
    grace_s
        For that agent: how long the old version stays after its last request, in seconds.
    timeout_s
        How long a server may take for each change, in seconds.
    log
        The audit log.
    reason
        Why, for the record.
    """

    servers: Sequence[str] = ()
    credentials: Credentials = NO_CREDENTIALS
    repository: Path | None = None
    grace_s: float = 60.0
    timeout_s: float = 300.0
    log: Path = Path("promotions.jsonl")
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Server:
    """One server, asked now and then: each question makes a connection of its own.

    Parameters
    ----------
    address
        gRPC address.
    credentials
        For TLS, and a bearer token.
    """

    address: str
    credentials: Credentials

    def __str__(self) -> str:
        return self.address

    def ask(self, question: Callable[[TritonTransport], Awaitable[Answer]]) -> Answer:
        """Connect for the time of one question."""

        async def run() -> Answer:
            transport = TritonTransport(self.address, credentials=self.credentials, timeout_s=CALL_TIMEOUT_S)
            try:
                return await question(transport)
            finally:
                await transport.close()

        return asyncio.run(run())

    def served(self, model: str, version: int | None = None) -> ServedModel:
        """What it says about a version, or about its champion.

        Raises
        ------
        ServerError
            If it does not answer, or has not loaded it.
        ContractError
            If it serves something else under this name.
        """
        return self.ask(lambda transport: transport.describe(model, None if version is None else str(version)))

    def check(self) -> None:
        """Raise a ServerError if it does not answer, whatever it serves."""
        self.ask(lambda transport: transport.check())

    def state(self, model: str, version: int) -> str:
        """What it serves, in words, or why it does not say."""
        try:
            champion = self.served(model).version
        except CrossEAIError as error:
            return str(error)
        return f"champion {champion}, version {version} {'' if self.has_loaded(model, version) else 'not '}loaded"

    def has_loaded(self, model: str, version: int) -> bool:
        """Whether it answers and has loaded a version."""
        try:
            self.served(model, version)
        except ServerError:
            return False
        return True

    def wait_until(self, what: str, condition: Callable[[], bool], timeout_s: float) -> None:
        """Poll until something holds; that the server does not answer meanwhile is no failure.

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
        raise InferenceTimeout(f"{self}: expected {what} within {timeout_s:g} s{last}")
