"""`broker services`: embedded Kafka and Valkey as background servers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.options import JsonOption

if TYPE_CHECKING:
    from broker.embedded import Addresses, ServicesStatus

services = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Embedded Kafka and Valkey as background servers."
)


@services.command()
def up(
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="Start on empty data that `down` deletes.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Start what does not run yet, and say where both are; they run until `broker services down`."""
    from broker.embedded import status as found  # noqa: PLC0415
    from broker.embedded import up as start  # noqa: PLC0415

    started = start(ephemeral=ephemeral, quiet=as_json).started
    now = found()
    if as_json:
        print(json.dumps(_as_dict(now) | {"started": list(started)}))
        return
    _print(now)
    if ephemeral and not now.ephemeral:
        print("they ran already, on kept data: --ephemeral had no effect")


@services.command()
def down() -> None:
    """Stop both; their data stay, unless they were started with --ephemeral."""
    from broker.embedded import down as stop  # noqa: PLC0415

    print("stopped Kafka and Valkey" if stop() else "nothing was running")


@services.command()
def status(as_json: JsonOption = False) -> None:
    """What runs, where, and how to use it."""
    from broker.embedded import status as found  # noqa: PLC0415

    now = found()
    if as_json:
        print(json.dumps(_as_dict(now)))
    else:
        _print(now)


def _as_dict(now: ServicesStatus) -> dict[str, Any]:
    servers = {
        name: {"state": server.state, "pid": server.pid, "address": server.address}
        for name, server in (("kafka", now.kafka), ("valkey", now.valkey))
    }
    about = {"running": now.running, "ephemeral": now.ephemeral, "dataDir": str(now.data_dir)}
    return servers | about


def _print(now: ServicesStatus) -> None:
    for name, server in (("Kafka", now.kafka), ("Valkey", now.valkey)):
        process = f"process {server.pid}" if server.pid else ""
        print(f"{name:<7} {server.state:<8} {server.address:<28} {process}".rstrip())
    kind = "deleted by `broker services down`" if now.ephemeral else "kept"
    print(f"data    {now.data_dir} ({kind})")
    if now.addresses is None:
        print("start them with `broker services up`")
    else:
        print(_how_to_use(now.addresses))


def _how_to_use(addresses: Addresses) -> str:
    return (
        "Every `broker` verb finds them by itself; with another BROKER_DATA_DIR, or in your own programs:\n"
        f"  export BROKER_KAFKA_BOOTSTRAP_SERVERS={addresses.bootstrap_servers}\n"
        f"  export BROKER_REDIS_URL={addresses.redis_url}"
    )
