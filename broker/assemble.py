"""The wiring: which servers, which topics, which built-in filters a run stands on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from broker.config import Settings
from broker.embedded import Addresses, attach_or_start, owned
from broker.kafka.clients import admin, create_topics, topic_drift
from broker.kafka.topics import TopicSpec, archive_spec, core_specs


def survey_names() -> tuple[str, ...]:
    """Every survey we know, by the name in its topics."""
    from broker.surveys.catalog import SURVEYS  # noqa: PLC0415 (heavy: workers start before it is asked for)

    return tuple(survey.name for survey in SURVEYS)


def connected(settings: Settings, *, quiet: bool = False) -> Settings:
    """Settings whose addresses are filled in: the given ones, else those of the embedded background servers.

    What is set is used as it is; a server is started only for what is not, and this is said on stderr.
    Raises EmbeddedServerError.
    """
    if settings.kafka.bootstrap_servers and settings.redis.url:
        return settings
    addresses, started = attach_or_start()
    if started and not quiet:
        print(
            f"started Kafka on {addresses.bootstrap_servers} and Valkey on {addresses.redis_url}; "
            "`broker services down` stops them",
            file=sys.stderr,
        )
    return with_addresses(settings, addresses)


@contextmanager
def private_servers(settings: Settings) -> Iterator[Settings]:
    """Settings on servers of this process alone, their data thrown away at the end (demo, bench)."""
    needs_kafka, needs_valkey = not settings.kafka.bootstrap_servers, not settings.redis.url
    if not (needs_kafka or needs_valkey):
        yield settings
        return
    with owned(kafka=needs_kafka, valkey=needs_valkey) as servers:
        yield with_addresses(settings, servers.addresses)


def with_addresses(settings: Settings, addresses: Addresses) -> Settings:
    """Settings with an embedded server's address wherever none was set."""
    kafka = settings.kafka.bootstrap_servers or addresses.bootstrap_servers
    return replace(
        settings,
        kafka=replace(settings.kafka, bootstrap_servers=kafka),
        redis=replace(settings.redis, url=settings.redis.url or addresses.redis_url),
    )


def prepare(settings: Settings) -> list[str]:
    """Make everything that a run stands on: topics and built-in filters.

    Returns a line for each thing made or found to differ from our table.  Raises BrokerError.
    """
    from broker.filters.store import install_builtin  # noqa: PLC0415 (heavy, as the surveys are)

    made = [f"created topic {name}" for name in ensure_topics(settings)]
    made += [f"installed filter {item.owner}.{item.name}" for item in install_builtin(settings)]
    drift = topic_drift(admin(settings.kafka), _specs(settings))
    return made + [f"topic {line}" for line in drift]


def ensure_topics(settings: Settings) -> list[str]:
    """Create the topics that are missing of those every part needs; returns them.  Raises BrokerError."""
    return create_topics(admin(settings.kafka), _specs(settings))


def _specs(settings: Settings) -> list[TopicSpec]:
    archive = [archive_spec(settings.topics)] if settings.archive.folder else []
    return [*core_specs(survey_names(), settings.topics), *archive]
