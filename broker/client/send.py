"""Putting packets into topics: acknowledged, counted, at the pace asked for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from confluent_kafka import KafkaError, KafkaException

from broker.config import Settings
from broker.errors import BrokerError
from broker.kafka.clients import admin, create_topics
from broker.kafka.delivery import RecordProducer
from broker.kafka.topics import input_spec
from broker.message import Packet

_SAVED_S = 0.1
"""A sender that was held up may catch up this much of its schedule; the rest is a slower average."""
_POLL_EVERY = 100
_TIMEOUT_MS = 60_000
_QUEUE_KIB = 64 * 1024


class Pace:
    """Lets `count` packets go at once every `every_s` seconds: a token bucket on a monotonic clock.

    A rate of R a second is one packet every 1/R.
    """

    def __init__(self, count: int, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._count, self._every_s, self._clock = count, every_s, clock
        self._left = count
        self._next = clock()

    def wait_s(self) -> float:
        """Seconds until the next packet may go; take it with `take` once this is 0."""
        if self._left == 0:
            self._next = max(self._next + self._every_s, self._clock() - _SAVED_S)
            self._left = self._count
        return max(0.0, self._next - self._clock()) if self._left == self._count else 0.0

    def take(self) -> None:
        """One packet goes."""
        self._left -= 1


@dataclass
class Sent:
    """What became of the packets so far: acknowledged by topic, refused by reason.

    resent : how many had to be sent again, for they were acknowledged without being stored
    """

    messages: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    resent: int = 0

    @property
    def total(self) -> int:
        """Acknowledged messages."""
        return self.messages.total()

    def check(self) -> None:
        """Raise BrokerError if any message was not delivered."""
        if self.failures:
            reasons = ", ".join(f"{count} x {reason}" for reason, count in self.failures.items())
            lost, whole = self.failures.total(), self.failures.total() + self.total
            raise BrokerError(f"{lost} of {whole} messages were not delivered: {reasons}")


class Sender:
    """A producer that creates the topics it writes to and knows what is stored in them.

    Memory is bounded: `send` waits while too much is unacknowledged. Call `finish` at the end.
    """

    def __init__(self, settings: Settings, pace: Pace | None = None) -> None:
        self._settings, self._pace = settings, pace
        self._ready: set[str] = set()
        self._calls = 0
        self.sent = Sent()
        self._producer = RecordProducer(
            settings.kafka,
            **{
                "linger.ms": 10,
                "message.timeout.ms": _TIMEOUT_MS,
                "queue.buffering.max.kbytes": _QUEUE_KIB,
            },
        )

    def send(self, packet: Packet) -> None:
        """Hand over one packet when the pace allows it.  Raises BrokerError when its topic cannot be made."""
        self._ensure_topic(packet.topic)
        if self._pace is not None:
            while (wait := self._pace.wait_s()) > 0:
                self._rest(wait)
            self._pace.take()
        self._produce(packet)
        self._calls += 1
        if self._calls % _POLL_EVERY == 0:
            self._producer.poll(0)

    def finish(self, timeout_s: float = _TIMEOUT_MS / 1000 + 10) -> Sent:
        """Wait for the acknowledgements; what has none in time counts as a failure."""
        left = self._producer.flush(timeout_s)
        self.sent.resent = self._producer.resent
        if left:
            self.sent.failures["no acknowledgement"] += left
        return self.sent

    def _ensure_topic(self, topic: str) -> None:
        if topic not in self._ready:
            create_topics(admin(self._settings.kafka), [input_spec(topic, self._settings.topics)])
            self._ready.add(topic)

    def _rest(self, wait_s: float) -> None:
        """Sleep; long waits also serve acknowledgements (librdkafka's clock ticks in milliseconds)."""
        if wait_s > 0.005:
            self._producer.poll(min(wait_s - 0.002, 0.5))
        else:
            time.sleep(wait_s)

    def _produce(self, packet: Packet) -> None:
        try:
            self._producer.send(packet, partial(self._note, packet.topic))
        except KafkaException as error:
            self.sent.failures[error.args[0].str()] += 1

    def _note(self, topic: str, error: KafkaError | None, _: int) -> None:
        if error is None:
            self.sent.messages[topic] += 1
        else:
            self.sent.failures[error.str()] += 1
