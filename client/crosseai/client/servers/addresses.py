"""Where servers are: addresses as people write them, and DNS names that stand for many servers."""

import asyncio
import socket
from typing import NamedTuple

from crosseai.contract import InputError, ServerUnavailable

DNS = "dns:///"
"""Scheme of a name all of whose addresses are servers, as gRPC's name syntax writes it."""


class Address(NamedTuple):
    """Where a server listens, and whether it expects TLS."""

    host_and_port: str
    encrypted: bool


class Endpoint(NamedTuple):
    """One server to connect to.

    Parameters
    ----------
    server
        Its address, as :func:`parse_address` reads it.
    certified_name
        Whom its certificate names, if not the host in the address.
    """

    server: str
    certified_name: str | None = None


def parse_address(server: str, *, encrypted: bool = False) -> Address:
    """Read ``grpc://HOST:PORT``, ``grpcs://HOST:PORT`` or ``HOST:PORT``, which is ``encrypted`` where that is said.

    Raises
    ------
    InputError
        If it is none of these.
    """
    scheme, separator, rest = server.rpartition("://")
    host, _, port = rest.rpartition(":")
    known = {"": encrypted, "grpc": False, "grpcs": True}
    if scheme not in known or (separator and not scheme) or not host or "/" in host:
        port = ""
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(
            f"server {server!r}: expected grpc://HOST:PORT or grpcs://HOST:PORT, for example grpc://localhost:8001"
        )
    return Address(rest, known[scheme])


async def resolve(servers: str) -> list[Endpoint]:
    """The servers of a list, separated by commas: addresses, and ``dns:///HOST:PORT`` for all addresses of a name.

    Raises
    ------
    InputError
        If an entry is malformed.
    ServerUnavailable
        If a name has no address.
    """
    found: list[Endpoint] = []
    for server in (entry.strip() for entry in servers.split(",")):
        if server.startswith(DNS):
            host, _, port = parse_address(server.removeprefix(DNS)).host_and_port.rpartition(":")
            found += [Endpoint(f"{address}:{port}", host) for address in await _addresses(host, int(port))]
        else:
            parse_address(server)
            found.append(Endpoint(server))
    return list(dict.fromkeys(found))


async def _addresses(host: str, port: int) -> list[str]:
    """IPv4 addresses of a name, else its IPv6 ones: a server that has both is one server."""
    try:
        answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ServerUnavailable(f"{host}: expected a DNS name with addresses: {error.strerror}") from error
    ipv4, ipv6 = (
        [str(address[0]) for family, *_, address in answers if family == wanted]
        for wanted in (socket.AF_INET, socket.AF_INET6)
    )
    return ipv4 or [f"[{address}]" for address in ipv6]
