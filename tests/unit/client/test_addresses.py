import asyncio
import socket

import pytest

from crosseai.client.servers.addresses import Endpoint, parse_address, resolve
from crosseai.contract import InputError, ServerUnavailable


@pytest.mark.parametrize(
    ("text", "encrypted"),
    [("localhost:8001", False), ("grpc://localhost:8001", False), ("grpcs://localhost:8001", True)],
)
def test_address(text: str, encrypted: bool) -> None:
    assert parse_address(text) == ("localhost:8001", encrypted)
    assert parse_address("localhost:8001", encrypted=True).encrypted


@pytest.mark.parametrize("text", ["", "localhost", ":8001", "http://localhost:8001", "h:0", "h:99999", "h:x"])
def test_address_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected grpc://"):
        parse_address(text)
    with pytest.raises(InputError, match="expected grpc://"):
        asyncio.run(resolve(f"localhost:1,{text}"))


def test_a_list_is_in_order_and_without_repetitions() -> None:
    listed = asyncio.run(resolve("grpcs://b:2, a:1,grpcs://b:2"))
    assert listed == [Endpoint("grpcs://b:2"), Endpoint("a:1")]


def test_a_name_stands_for_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    ipv4, ipv6 = ["10.0.0.2", "10.0.0.1"], ["fd00::1"]
    answers = {
        "both": [(socket.AF_INET6, a) for a in ipv6] + [(socket.AF_INET, a) for a in ipv4],
        "ipv6": [(socket.AF_INET6, a) for a in ipv6],
    }

    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list:
        if host not in answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(family, socket.SOCK_STREAM, 6, "", (address, port)) for family, address in answers[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    both = [Endpoint("10.0.0.2:8001", "both"), Endpoint("10.0.0.1:8001", "both")]
    assert asyncio.run(resolve("a:1,dns:///both:8001")) == [Endpoint("a:1"), *both]
    assert asyncio.run(resolve("dns:///ipv6:8001")) == [Endpoint("[fd00::1]:8001", "ipv6")]
    with pytest.raises(ServerUnavailable, match="nobody: expected a DNS name with addresses: Name or service"):
        asyncio.run(resolve("dns:///nobody:8001"))


def test_the_real_resolver() -> None:
    assert asyncio.run(resolve("dns:///localhost:8001"))[0].certified_name == "localhost"
    assert asyncio.run(resolve("dns:///127.0.0.1:8001")) == [Endpoint("127.0.0.1:8001", "127.0.0.1")]
