"""`broker history`: the light curves and claims in Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from broker.cli.options import KafkaOption, RedisOption, settings_from
from broker.errors import BrokerError

if TYPE_CHECKING:
    from broker.config import Settings
    from broker.history.redis import RedisStore

history = typer.Typer(no_args_is_help=True, help="Light curves and claims in Redis.")


@history.callback()
def _group() -> None:
    """Light curves and claims in Redis."""


@history.command()
def rebuild(kafka: KafkaOption = None, redis: RedisOption = None) -> None:
    """Put back what Redis should hold, from the alerts that were published.

    A run does this by itself on a new or emptied Redis. What is there stays, so it harms no running pipeline.
    Upper limits, forced photometry and what Kafka keeps no longer come back with the objects' next packets.
    """
    from broker.assemble import connected  # noqa: PLC0415
    from broker.history.redis import RedisStore  # noqa: PLC0415
    from broker.kafka.clients import admin, cluster_id  # noqa: PLC0415

    settings = connected(settings_from(kafka, redis))
    store = RedisStore(settings.redis.url, settings.history, cluster_id(admin(settings.kafka)))
    store.check()
    if not store.lock():
        raise BrokerError("another process is rebuilding this Redis; wait for it")
    try:
        _rebuild(settings, store)
    finally:
        store.unlock()
        store.close()


def _rebuild(settings: Settings, store: RedisStore) -> None:
    from broker.cli.progress import Meter  # noqa: PLC0415
    from broker.rebuild import rebuild as run  # noqa: PLC0415
    from broker.rebuild import scope_of  # noqa: PLC0415

    scope = scope_of(settings)
    with Meter("alerts put back", scope.records) as meter:
        run(settings, store, scope, meter.advance)
