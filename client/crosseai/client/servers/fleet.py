"""The servers that a user names: connections to all of them, and a pool that follows DNS."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from crosseai.client.meter import Meter
from crosseai.client.servers.addresses import DNS, Endpoint, resolve
from crosseai.client.servers.credentials import NO_CREDENTIALS, Credentials
from crosseai.client.servers.pool import POLL_S, ServerPool
from crosseai.client.servers.transport import TritonTransport
from crosseai.contract import ServerUnavailable

RESOLVE_S = 5.0
"""How often names are resolved again: as long as Kubernetes lets answers live."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Servers by address and by name.

    Parameters
    ----------
    servers
        ``grpc://HOST:PORT``, ``grpcs://HOST:PORT``, or ``dns:///HOST:PORT`` for all addresses that DNS has for the
        name; several are separated by commas. ``HOST:PORT`` and names mean TLS where ``credentials`` has TLS files.
    credentials
        For TLS, and a bearer token.
    timeout_s
        Deadline of a request, in seconds.
    """

    servers: str
    credentials: Credentials = NO_CREDENTIALS
    timeout_s: float = 120.0

    async def connections(self, wait_s: float = 0.0) -> dict[Endpoint, TritonTransport]:
        """A connection to each server there is now; names without an address are resolved again for ``wait_s``.

        Raises
        ------
        InputError
            If an address is malformed, or the credentials do not fit it.
        ServerUnavailable
            If a name has no address.
        """
        deadline = time.monotonic() + wait_s
        while True:
            try:
                return {endpoint: self._connect(endpoint) for endpoint in await resolve(self.servers)}
            except ServerUnavailable:
                if time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(POLL_S)

    @asynccontextmanager
    async def pool(
        self, *, version: str | None = None, wait_s: float = 60.0, in_flight: int = 2, meter: Meter | None = None
    ) -> AsyncIterator[ServerPool]:
        """A pool of the servers, as :meth:`ServerPool.connect` makes it, that follows what DNS says of the names."""
        known = await self.connections(wait_s)
        async with await ServerPool.connect(
            list(known.values()), version=version, wait_s=wait_s, in_flight=in_flight, meter=meter
        ) as servers:
            following = asyncio.ensure_future(self._follow(servers, known))
            try:
                yield servers
            finally:
                following.cancel()

    async def _follow(self, servers: ServerPool, known: dict[Endpoint, TritonTransport]) -> None:
        """Let new servers join and others leave; where a name has no address, DNS is at fault and nobody leaves."""
        while DNS in self.servers:
            await asyncio.sleep(RESOLVE_S)
            with suppress(ServerUnavailable):
                found = await resolve(self.servers)
                for endpoint in found:
                    if endpoint not in known:
                        known[endpoint] = self._connect(endpoint)
                        servers.join(known[endpoint])
                for endpoint in known.keys() - set(found):
                    servers.leave(known.pop(endpoint))

    def _connect(self, endpoint: Endpoint) -> TritonTransport:
        return TritonTransport(
            endpoint.server,
            credentials=self.credentials,
            timeout_s=self.timeout_s,
            certified_name=endpoint.certified_name,
        )
