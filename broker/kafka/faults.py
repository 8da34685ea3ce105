"""What ends a Kafka client, and what only keeps it from its work for a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException

from broker.errors import BrokerError, RetryBatch, WorkerFenced
from broker.kafka.topics import CONTROL

log = logging.getLogger(__name__)

LONG_S = 5.0
"""A fault that lasted so long is worth a notice once it is over."""
CONNECTION = "connection"
"""What faults are about that any answer of any broker ends."""
GROUP = "group"
"""What faults are about that a new assignment ends."""

_PROBE_EVERY_S = 1.0
_PROBE_S = 0.5
_FOR_GOOD = frozenset(
    {
        KafkaError._FATAL,  # how a consumer's message tells a fatal error; fatal() is False on it
        KafkaError._FENCED,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError._DESTROY,
    }
)
_OF_CONNECTION = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._SSL,
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
    }
)
_REFUSED = frozenset({KafkaError._SSL, KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED})
_OF_GROUP = frozenset(
    {
        KafkaError._MAX_POLL_EXCEEDED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.INCONSISTENT_GROUP_PROTOCOL,
        KafkaError.GROUP_MAX_SIZE_REACHED,
        KafkaError.INVALID_SESSION_TIMEOUT,
    }
)


def is_fatal(error: KafkaError) -> bool:
    """Whether a client that met this error is of no more use: it must be dropped, and with it its worker.

    Authorization that is refused, topics that are missing and brokers that are away are not: they last, but
    the client goes on by itself once they are over.
    """
    return bool(error.fatal()) or error.code() in _FOR_GOOD


def is_refusal(error: KafkaError) -> bool:
    """Whether a broker answered, but would not have us: waiting does not help, other settings may."""
    return error.code() in _REFUSED


def failure(what: str, error: KafkaException) -> BrokerError:
    """What a failed call of a worker's client comes to: RetryBatch, or WorkerFenced if it failed for good."""
    cause = error.args[0]
    kind = WorkerFenced if is_fatal(cause) else RetryBatch
    return kind(f"{what}: {cause.str()}")


@dataclass(frozen=True)
class Fault:
    """Something that keeps a client from its work.

    about : CONNECTION, GROUP, or a topic's name;  name : of the error, in Kafka's words;  since : monotonic
    """

    about: str
    name: str
    text: str
    since: float


@dataclass
class ClientFaults:
    """The faults of one client that last, each told once when it begins and once when it is over.

    client : what it does, for people
    count : told the error's name of each fault that begins
    tell : given a text about each fault that lasted for LONG_S or more, once it is over: while it lasts,
           Kafka itself may be what is away
    """

    client: str
    count: Callable[[str], None] = lambda _: None
    tell: Callable[[str], None] = lambda _: None
    now: Callable[[], float] = time.monotonic
    _faults: dict[str, Fault] = field(default_factory=dict)
    _probe_at: float = 0.0

    @property
    def trouble(self) -> str:
        """What holds the client up now, in a few words; empty if nothing does."""
        return "; ".join(fault.text for fault in self._faults.values())

    def begin(self, error: KafkaError, topic: str = "") -> None:
        """Note an error that is not fatal; the same fault again is no news."""
        about = _about(error, topic)
        if about in self._faults:
            return
        self._faults[about] = Fault(about, str(error.name()), f"{self.client}: {error.str()}", self.now())
        log.warning("%s", self._faults[about].text)
        self.count(self._faults[about].name)

    def over(self, *about: str) -> None:
        """Something was heard of a topic or of the group; either comes over a connection that works."""
        for key in (CONNECTION, *about):
            fault = self._faults.pop(key, None)
            if fault is None:
                continue
            lasted = self.now() - fault.since
            text = f"{fault.text}: over after {lasted:.1f} s"
            log.warning("%s", text)
            if lasted >= LONG_S:
                self.tell(text)

    def look_for_life(self, client: Consumer) -> None:
        """Ask a cluster that was away whether it is back: where nothing is to be read, nothing else tells."""
        if CONNECTION not in self._faults or self.now() < self._probe_at:
            return
        try:
            client.list_topics(CONTROL, timeout=_PROBE_S)  # one topic is cheap to ask for
        except KafkaException:
            self._probe_at = self.now() + _PROBE_EVERY_S
        else:
            self.over()


def _about(error: KafkaError, topic: str) -> str:
    if error.code() in _OF_CONNECTION:
        return CONNECTION
    return GROUP if error.code() in _OF_GROUP or not topic else topic
