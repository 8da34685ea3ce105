"""Options that several verbs share, and the settings they lead to."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from broker.config import Settings, load

KafkaOption = Annotated[
    str | None,
    typer.Option(
        "--kafka", metavar="HOST:PORT", help="Our Kafka; else the settings', else the embedded one."
    ),
]
RedisOption = Annotated[
    str | None,
    typer.Option(
        "--redis", metavar="URL", help="Redis or Valkey; else the settings', else the embedded one."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def settings_from(kafka: str | None = None, redis: str | None = None, **flags: Any) -> Settings:
    """Effective settings with a verb's flags on top; a flag that is None was not given.

    flags : settings by their dotted names, as in **{"run.workers": 2}.  Raises SettingsError.
    """
    return load({"kafka.bootstrap_servers": kafka, "redis.url": redis, **flags})


def kafka_connected(settings: Settings) -> Settings:
    """Settings that name a Kafka: the one set, else the embedded one, started if need be.

    For verbs that use no Redis: they must not start servers because redis.url is unset.
    """
    if settings.kafka.bootstrap_servers:
        return settings
    from broker.assemble import connected  # noqa: PLC0415

    return connected(settings)
