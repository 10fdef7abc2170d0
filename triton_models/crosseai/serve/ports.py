"""Addresses and ports to listen on."""

import socket
from contextlib import ExitStack

from crosseai.contract import InputError


def reachable(host: str) -> str:
    """Address at which this machine reaches what listens on one of its own."""
    return "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - compared, not bound


def reserve_port(host: str, port: int | None, resources: ExitStack) -> int:
    """Take a port, the given one or a free one, and keep others off it.

    A bound socket that does not listen gets no connections; with ``SO_REUSEPORT`` the server can bind beside it.

    Raises
    ------
    InputError
        If somebody has the port.
    """
    try:
        if port is not None:  # an exclusive bind tells whether somebody has it, SO_REUSEPORT or not
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        reservation = resources.enter_context(socket.socket())
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reservation.bind((host, port or 0))
    except OSError as error:
        raise InputError(f"expected a free port at {host}:{port or '*'}: {error.strerror}") from error
    number: int = reservation.getsockname()[1]
    return number
