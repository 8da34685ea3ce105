"""Free TCP ports on the loopback interface."""

from __future__ import annotations

import random
import socket
import time

from broker.errors import EmbeddedServerError

LOOPBACK = "127.0.0.1"

# Below the range systems give to outgoing connections: a client that keeps trying a stopped server's port
# could otherwise be given that very port as its own, connect to itself, and keep the server from coming back.
_RANGE = range(16_000, 30_000)


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of the loopback interface now."""
    with socket.socket() as probe:
        # As the servers do themselves: connections still closing do not make the port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def becomes_free(port: int, within_s: float = 3.0) -> bool:
    """Whether `port` is free now or very soon."""
    end = time.monotonic() + within_s
    while not is_free(port):
        if time.monotonic() >= end:
            return False
        time.sleep(0.05)
    return True


def free_port() -> int:
    """A port nobody listens on; drawn at random so that two starts at once seldom meet."""
    for port in random.sample(_RANGE, 200):
        if is_free(port):
            return port
    raise EmbeddedServerError("no free port between 16000 and 30000 on 127.0.0.1: close some other servers")


def accepts(port: int) -> bool:
    """Whether anything accepts connections on `port`; says nothing about who it is."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1.0).close()
    except OSError:
        return False
    return True
