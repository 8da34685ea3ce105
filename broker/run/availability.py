"""Whether a server that a run stands on answers, and since when."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import redis
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from broker.config import KafkaSettings, RedisSettings
from broker.errors import BrokerError
from broker.kafka.clients import client_options
from broker.kafka.faults import is_refusal
from broker.kafka.topics import CONTROL

log = logging.getLogger(__name__)

LONG_S = 5.0
"""A server that was away for so long is worth a notice, once it is back."""
_PROBE_S = 5.0


@dataclass
class Availability:
    """One server; told of once when it goes away, and once when it is back.

    tell : given a text about an absence that lasted, once it is over
    why : why it does not answer; empty while it does
    """

    server: str
    tell: Callable[[str], None] = lambda _: None
    now: Callable[[], float] = time.monotonic
    why: str = ""
    _since: float = field(default=0.0)

    def __post_init__(self) -> None:
        self._since = self.now()

    @property
    def answering_s(self) -> float:
        """For how long it answers by now; 0 while it does not."""
        return 0.0 if self.why else self.now() - self._since

    def answers(self) -> None:
        """It does."""
        if not self.why:
            return
        away = self.now() - self._since
        text = f"{self.server} answers again after {away:.1f} s"
        log.warning("%s", text)
        if away >= LONG_S:
            self.tell(f"{text} ({self.why})")
        self.why, self._since = "", self.now()

    def silent(self, why: str) -> None:
        """It does not."""
        if self.why:
            return
        self.why, self._since = why or "no reason given", self.now()
        log.warning("%s does not answer: %s; waiting for it", self.server, self.why)


def kafka_trouble(settings: KafkaSettings) -> str:
    """Why Kafka cannot be reached now; empty if it can.  Raises BrokerError if it refuses us."""
    told: list[KafkaError] = []
    client = AdminClient(client_options(settings, error_cb=told.append))
    try:
        client.list_topics(CONTROL, timeout=_PROBE_S)
    except KafkaException as error:
        client.poll(0)
        refusals = [item.str() for item in told if is_refusal(item)]
        if refusals:
            raise BrokerError(
                f"Kafka at {settings.bootstrap_servers} refuses us: {refusals[-1]}; see the kafka.* settings"
            ) from error
        return f"{settings.bootstrap_servers}: {(told or [error.args[0]])[-1].str()}"
    return ""


def redis_trouble(settings: RedisSettings) -> str:
    """Why Redis cannot be reached now; empty if it can.  Raises BrokerError if it refuses us."""
    try:
        with redis.Redis.from_url(settings.url, socket_timeout=_PROBE_S, socket_connect_timeout=2) as client:
            client.ping()
    except redis.AuthenticationError as error:
        raise BrokerError(f"Redis refuses us: {error}; see redis.url") from error
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        return str(error)
    except (redis.RedisError, ValueError) as error:
        raise BrokerError(f"Redis cannot be used: {error}; see redis.url") from error
    return ""
