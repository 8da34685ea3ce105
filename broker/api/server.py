"""The API on a port, bound before the server starts: its address is known, and a taken port is an error."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from broker.api.app import create_app
from broker.config import ApiSettings, Settings
from broker.errors import BrokerError

_GRACE_S = 5
_START_S = 30.0


class ApiServer:
    """Listens from its creation, answers while `run` runs; `address` is where."""

    def __init__(self, settings: Settings) -> None:
        self._socket = _listen(settings.api)
        host, port = self._socket.getsockname()[:2]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        config = uvicorn.Config(
            create_app(settings), log_level="warning", timeout_graceful_shutdown=_GRACE_S, server_header=False
        )
        self._server = uvicorn.Server(config)

    @property
    def started(self) -> bool:
        """Whether it answers."""
        return self._server.started

    def run(self) -> None:
        """Answer until `stop` or, in the main thread, SIGTERM or SIGINT; requests in flight are finished."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()

    def stop(self) -> None:
        """Ask for the end, from any thread."""
        self._server.should_exit = True


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """The API in a thread of this process for the time of a `with` block; gives its address."""
    server = ApiServer(settings)
    thread = threading.Thread(target=server.run, name="api", daemon=True)
    thread.start()
    try:
        _await_start(server, thread)
        yield server.address
    finally:
        server.stop()
        thread.join(timeout=2 * _GRACE_S)


def _await_start(server: ApiServer, thread: threading.Thread) -> None:
    deadline = time.monotonic() + _START_S
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise BrokerError(f"the API did not start on {server.address}; see the log")
        time.sleep(0.02)


def _listen(settings: ApiSettings) -> socket.socket:
    try:
        family, _, _, _, place = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(place[:2], family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise BrokerError(
            f"cannot listen on {settings.host}:{settings.port}: {error}; choose another port (0 = a free one)"
        ) from error
