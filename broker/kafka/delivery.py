"""What counts as delivered, and how records are kept from being lost by clients that acknowledge them.

Kafka's broker accepts any sequence number from a producer of which a partition holds no state. Of two
requests in flight to such a partition the first may be refused (the partition is still being made:
NOT_LEADER) and the second taken; librdkafka then concludes that the first is stored too ("implicitly acked by
subsequent batch success") and reports it as delivered, but without an offset. It is nowhere, even if its
transaction commits.

So there is one rule: a record is delivered if its report has no error and names an offset (`delivered`). And
there is a prevention: the first record to a partition without state is sent alone and awaited
(`FreshPartitions`). A partition holds no state of a producer that is new, that has been silent for
`producer.id.expiration.ms` (a day by default), after the topic was deleted and made again, or if it was just
added. The first two and the last are noticed here; a topic made again under its name is noticed by the rule
alone, as the client names no topic ids. A leader that moves has the state in its copy of the log.

Measured, before choosing this: `max.in.flight.requests.per.connection=1` prevents the loss too, but costs a
round trip for each partition of a transaction, for a request of librdkafka holds records of one partition.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from broker.config import KafkaSettings
from broker.kafka.clients import PartitionKey, writer
from broker.kafka.faults import is_fatal
from broker.message import Packet

ANY_PARTITION = -1
"""Of the producer's choice (librdkafka's RD_KAFKA_PARTITION_UA)."""
_ANSWER_HOLDS_S = 3600.0
"""Far below the day after which Kafka forgets a silent producer (producer.id.expiration.ms)."""
_COUNT_HOLDS_S = 60.0
_LOOK_S = 5.0
_WAIT_S = 0.1
_MOST_TRIES = 10
_ONLY_ERRORS = "delivery.report.only.error"
_MASK = 0xFFFFFFFF
_PURGES = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)

Addressed = tuple[Packet, int]
"""A record and the partition it goes to, or ANY_PARTITION."""
Outcome = Callable[[KafkaError | None, int], None]
"""Told what became of a record: why it was not delivered, or None and its offset."""


def reporting(kafka: KafkaSettings) -> KafkaSettings:
    """Settings without what would keep the reports of delivered records from us."""
    return replace(kafka, options=tuple(item for item in kafka.options if item[0] != _ONLY_ERRORS))


def delivered(error: KafkaError | None, message: Message) -> bool:
    """Whether a report says that a record is in the log: no error, and an offset."""
    offset = message.offset()
    return error is None and offset is not None and offset >= 0


def murmur2(data: bytes) -> int:
    """The 32 bits by which Java clients and librdkafka's murmur2 choose a key's partition.

    >>> [murmur2(text) for text in (b"21", b"foobar", b"a-little-bit-long-string")]
    [3321034988, 3504634814, 3308985760]
    """
    whole = len(data) & ~3
    state = 0x9747B28C ^ len(data)
    for (word,) in struct.iter_unpack("<I", data[:whole]):
        mixed = word * 0x5BD1E995 & _MASK
        mixed = (mixed ^ mixed >> 24) * 0x5BD1E995 & _MASK
        state = (state * 0x5BD1E995 & _MASK) ^ mixed
    if len(data) > whole:
        state = (state ^ int.from_bytes(data[whole:], "little")) * 0x5BD1E995 & _MASK
    state = (state ^ state >> 13) * 0x5BD1E995 & _MASK
    return state ^ state >> 15


def partition_counts(producer: Producer) -> dict[str, int]:
    """Number of partitions of every topic of the cluster.  Raises KafkaException if it does not answer."""
    topics = producer.list_topics(timeout=_LOOK_S).topics
    return {
        name: len(topic.partitions)
        for name, topic in topics.items()
        if topic.error is None and topic.partitions
    }


def produce(producer: Producer, record: Addressed, report: Callable[..., None]) -> None:
    """Hand one record to a producer, however long its queue is full.  Raises KafkaException if refused."""
    packet, partition = record
    while True:
        try:
            producer.produce(
                packet.topic,
                packet.value,
                packet.key,
                partition=partition,
                headers=list(packet.headers) or None,
                on_delivery=report,
            )
            return
        except BufferError:
            served(producer.poll, _WAIT_S)


def served(call: Callable[[float], Any], timeout_s: float) -> Any:
    """What a call that tells reports returns.  Raises KafkaException, also if the client fails meanwhile.

    confluent-kafka raises a client's fatal error from within such a call: as a SystemError that it caused if
    a report was being told.
    """
    try:
        return call(timeout_s)
    except SystemError as error:
        if isinstance(error.__cause__, KafkaException):
            raise error.__cause__ from None
        raise


class Reports:
    """The reports of some records, each of which is looked at: what `Producer.produce` tells.

    nowhere : topics of records that are reported as delivered without an offset
    errors : the first error of each topic
    """

    def __init__(self) -> None:
        self.awaited = self.delivered = 0
        self.nowhere: set[str] = set()
        self.errors: dict[str, KafkaError] = {}

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        """One report."""
        if delivered(error, message):
            self.delivered += 1
        elif error is None:
            self.nowhere.add(message.topic())
        else:
            self.errors.setdefault(message.topic(), error)

    @property
    def complete(self) -> bool:
        """Whether every record that was handed over is in the log."""
        return self.delivered == self.awaited and not self.errors


@dataclass(frozen=True)
class Order:
    """In which order records go out.

    firsts : to be sent, and their reports awaited, before anything else; one a partition
    unknown : topics that the cluster does not have
    """

    firsts: list[Addressed] = field(default_factory=list)
    rest: Iterable[Addressed] = ()
    unknown: frozenset[str] = frozenset()


class FreshPartitions:
    """Which partitions may hold no state of a producer: all that have not told it an offset lately.

    Only records of topics with such a partition are given one here; order within a partition stays. With all
    topics settled this costs one look-up a topic.

    counts : looks up the number of partitions of every topic;  clock : monotonic [s]
    """

    def __init__(
        self, counts: Callable[[], Mapping[str, int]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._look_up, self._clock = counts, clock
        self._counts: Mapping[str, int] = {}
        self._looked = float("-inf")
        self._answered: dict[PartitionKey, float] = {}
        self._settled: dict[str, float] = {}
        self._turn = count()

    def order(self, packets: Sequence[Packet]) -> Order:
        """Which of some records go first, and where.  Raises KafkaException if the cluster is away."""
        open_topics = self.unsettled({packet.topic for packet in packets})
        if not open_topics:
            return Order(rest=((packet, ANY_PARTITION) for packet in packets))
        firsts: dict[PartitionKey, Addressed] = {}
        rest: list[Addressed] = []
        for packet in packets:
            number = self.partition(packet) if packet.topic in open_topics else ANY_PARTITION
            key = (packet.topic, number)
            if number == ANY_PARTITION or key in firsts or self.has_answered(key):
                rest.append((packet, number))
            else:
                firsts[key] = (packet, number)
        return Order(list(firsts.values()), rest, frozenset(open_topics - self._counts.keys()))

    def unsettled(self, topics: set[str]) -> set[str]:
        """Those topics with a partition that has not answered.  Raises KafkaException."""
        now = self._clock()
        settled = self._settled
        found = {topic for topic in topics if settled.get(topic, 0.0) <= now}
        if not (found <= self._counts.keys()) or now > self._looked + _COUNT_HOLDS_S:
            self._look(now)
            found = {topic for topic in topics if settled.get(topic, 0.0) <= now}
        return {topic for topic in found if not self._settles(topic, now)}

    def partition(self, packet: Packet) -> int:
        """Where a record goes, as murmur2_random puts it; without a key to each partition in turn."""
        partitions = self._counts.get(packet.topic, 0)
        if not partitions:
            return ANY_PARTITION
        number = next(self._turn) if packet.key is None else murmur2(packet.key) & 0x7FFFFFFF
        return number % partitions

    def has_answered(self, key: PartitionKey) -> bool:
        """Whether a partition has named an offset lately."""
        return self._answered.get(key, float("-inf")) + _ANSWER_HOLDS_S > self._clock()

    def answer(self, keys: Iterable[PartitionKey]) -> None:
        """Partitions that have just named an offset."""
        now = self._clock()
        self._answered.update(dict.fromkeys(keys, now))

    def forget(self, topics: Iterable[str]) -> None:
        """Take topics as never heard of: what was known of them turned out to be wrong."""
        gone = set(topics)
        self._answered = {key: at for key, at in list(self._answered.items()) if key[0] not in gone}
        self._counts = {topic: number for topic, number in self._counts.items() if topic not in gone}
        for topic in gone:
            self._settled.pop(topic, None)

    def _look(self, now: float) -> None:
        before, self._counts = self._counts, dict(self._look_up())
        self._looked = now
        changed = [topic for topic in before if self._counts.get(topic) != before[topic]]
        for topic in changed:
            self._settled.pop(topic, None)
        if gone := [topic for topic in changed if topic not in self._counts]:
            self.forget(gone)

    def _settles(self, topic: str, now: float) -> bool:
        """Note a topic as settled for as long as the oldest answer of its partitions holds."""
        never = float("-inf")
        partitions = range(self._counts.get(topic, 0))
        oldest = min((self._answered.get((topic, number), never) for number in partitions), default=never)
        if oldest + _ANSWER_HOLDS_S <= now:
            return False
        self._settled[topic] = oldest + _ANSWER_HOLDS_S
        return True


@dataclass
class _Record:
    packet: Packet
    outcome: Outcome
    partition: int = ANY_PARTITION
    tries: int = 0


class RecordProducer:
    """An idempotent producer outside transactions that sends a record until a report names its offset.

    At least once: a record that is sent again may be there twice. A client that failed for good is replaced,
    and what it had not delivered is sent by its successor. Threads may share one.

    resent : how many records had to be sent again
    """

    def __init__(self, kafka: KafkaSettings, **options: object) -> None:
        self._kafka, self._options = reporting(kafka), options
        self.resent = 0
        self._again: list[_Record] = []
        self._lock = threading.RLock()
        self._start()

    def send(self, packet: Packet, outcome: Outcome, partition: int = ANY_PARTITION) -> None:
        """Hand over one record; waits for its report if its partition holds no state of this producer.

        outcome : told once of each record, from within `send`, `poll` or `flush`
        partition : only where one record at a time is sent and awaited
        Waits while the queue is full.  Raises KafkaException when the record is refused at once.
        """
        self._resend()
        with self._lock:
            self._send(_Record(packet, outcome, partition))

    def poll(self, timeout_s: float) -> None:
        """Serve reports; returns after the first, or when the time is over."""
        self._serve(self._producer.poll, timeout_s)
        self._resend()

    def flush(self, timeout_s: float) -> int:
        """Wait for all reports; returns how many records have no outcome by then."""
        deadline = time.monotonic() + timeout_s
        while len(self) and time.monotonic() < deadline:
            self._serve(self._producer.flush, min(1.0, max(0.0, deadline - time.monotonic())))
            self._resend()
        return len(self)

    def __len__(self) -> int:
        """Records without an outcome."""
        return len(self._producer) + len(self._again)

    def _start(self) -> None:
        self._ended = False
        self._producer: Producer = writer(self._kafka, **self._options)
        self._fresh = FreshPartitions(partial(partition_counts, self._producer))

    def _send(self, record: _Record) -> None:
        if self._ended:
            self._replace()
        topic, key = record.packet.topic, None
        if record.partition == ANY_PARTITION and self._open(topic):
            key = (topic, self._fresh.partition(record.packet))
        self._produce(record, key[1] if key else record.partition)
        while key and not self._fresh.has_answered(key) and len(self._producer) and not self._ended:
            self._serve(self._producer.poll, _WAIT_S)

    def _serve(self, call: Callable[[float], Any], timeout_s: float) -> None:
        try:
            served(call, timeout_s)
        except KafkaException as error:
            if not is_fatal(error.args[0]):
                raise
            self._ended = True

    def _open(self, topic: str) -> bool:
        try:
            return bool(self._fresh.unsettled({topic}))
        except KafkaException:  # the cluster is away: then the record waits in the queue, and is looked at
            return False

    def _produce(self, record: _Record, partition: int) -> None:
        try:
            produce(self._producer, (record.packet, partition), partial(self._on_report, record))
        except KafkaException as error:
            if not is_fatal(error.args[0]):
                raise
            self._ended = True
            self._again.append(record)

    def _on_report(self, record: _Record, error: KafkaError | None, message: Message) -> None:
        key = (message.topic(), message.partition())
        if delivered(error, message):
            self._fresh.answer([key])
            record.outcome(None, message.offset())
        elif record.tries < _MOST_TRIES and (error is None or self._died_with(error)):
            self._fresh.forget([key[0]])
            self._again.append(record)
        else:
            record.outcome(error or KafkaError(KafkaError._FAIL, "reported without an offset"), -1)

    def _died_with(self, error: KafkaError) -> bool:
        """Whether a record failed only because its client did."""
        self._ended = self._ended or is_fatal(error)
        return self._ended and (is_fatal(error) or error.code() in _PURGES)

    def _resend(self) -> None:
        """Send again, one at a time, what was not delivered."""
        if not self._again and not self._ended:
            return
        with self._lock:
            if self._ended:
                self._replace()
            waiting, self._again = self._again, []
            for record in waiting:
                self._send_again(record)

    def _send_again(self, record: _Record) -> None:
        record.tries += 1
        self.resent += 1
        try:
            self._send(record)
        except KafkaException as error:
            record.outcome(error.args[0], -1)

    def _replace(self) -> None:
        """Another client in place of one that failed for good; what it still held is sent again."""
        with suppress(KafkaException):
            self._producer.purge()
            served(self._producer.flush, _WAIT_S)
        self._start()
