"""`broker serve`: the HTTP API."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from broker.cli.options import KafkaOption, RedisOption, settings_from


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; else api.host.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 0 = any free one.")] = None,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
) -> None:
    """HTTP API, metrics and a read-only schema registry, until Ctrl-C or SIGTERM.

    Whoever can reach the address can add and remove filters: it is this machine alone unless told otherwise.
    """
    from broker.api import ApiServer  # noqa: PLC0415
    from broker.assemble import connected  # noqa: PLC0415

    settings = connected(settings_from(kafka, redis, **{"api.host": host, "api.port": port}))
    server = ApiServer(settings)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: server.stop())
    print(f"API on {server.address}; try {server.address}/ready or {server.address}/docs", file=sys.stderr)
    server.run()
