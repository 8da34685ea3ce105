"""One bounded read: every committed record from A to B of several partitions at once, or a stated reason.

The end of a read is the high watermark as it is at its start, records of open transactions included. A reader
of committed records sees only up to the last stable offset, which lies before the first record of any open
transaction. Two things make it lie before the end, and they look the same at first:

* marks. A commit returns once the coordinator has it on disk; the partitions get their marks after that, and
  until then they show none of its records. Measured on the embedded Kafka: after six of ten commits a reader
  that comes at once sees less; all is there after 7 ms in the median and 0.2 s at most on an idle machine, 20
  ms and 0.4 s on a busy one (4 partitions), 33 and 120 ms with 300 partitions. But the marks of the *first*
  transaction into partitions made a moment ago took up to 19 s.
* a transaction that stays open: its producer died, or hangs. The coordinator aborts it when its timeout is
  over, and its records never were. Until then all that follows it in the partition waits.

So a partition whose last stable offset does not move is waited for as long as marks can take and a
transaction of ours can stay open; one that stays longer is a HangingTransaction: said, never left out in
silence.

A record that is missing *below* the last stable offset is something else, and no waiting brings it back: it
was never written. "38 of 40 committed alerts" can have been either. The reader of that time gave up after
5 s, so marks alone explain less than everything in topics just made. But so does loss: of six transactions of
40 records of 300 kB into topics made on a Kafka just started, by a producer with several requests in flight,
21 records were not there after any wait, and exactly these had a delivery report without an offset; of 226
later ones none was missing, nor with one request in flight. A reader cannot know which records should be
there: the ledger tells (broker/ledger.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from broker.config import KafkaSettings
from broker.errors import BrokerError, HangingTransaction
from broker.kafka.clients import PartitionKey, admin, end_offsets, reader, stable_offsets, start_offsets

Span = tuple[int, int]
"""[start, end) of a partition's offsets."""

OPEN_S = 40.0
"""How long a transaction of ours may hide records: its timeout of 10 s, the coordinator's look every 10 s,
and 20 s for marks that are slow."""
_ANSWER_S = 60.0
"""No record and no end for so long: Kafka does not answer."""
_LOOK_EVERY_S = 1.0
_NAMED = 5
_CHUNK = 1000
_POLL_S = 0.1


def whole(kafka: KafkaSettings, partitions: Iterable[PartitionKey]) -> dict[PartitionKey, Span]:
    """All that some partitions hold now, records of open transactions included.  Raises BrokerError."""
    client, keys = admin(kafka), list(partitions)
    try:
        starts, ends = start_offsets(client, keys), end_offsets(client, keys)
    except KafkaException as error:
        raise BrokerError(f"cannot tell where {_names(keys)} ends: {error.args[0].str()}") from error
    return {key: (starts[key], ends[key]) for key in keys}


def committed_records(
    kafka: KafkaSettings, spans: Mapping[PartitionKey, Span], patience_s: float = OPEN_S
) -> Iterator[Message]:
    """Every committed record of some spans, in the order of each partition.

    patience_s : how long a transaction may stay open before it counts as hanging
    Raises HangingTransaction, after all that can be read, if a transaction before the end stays open; and
    BrokerError if Kafka does not answer, or a topic is gone.
    """
    consumer = reader(kafka, **{"enable.partition.eof": True, "fetch.wait.max.ms": 100})
    try:
        yield from _Reading(kafka, consumer, spans, patience_s).records()
    finally:
        consumer.close()


def committed_values(kafka: KafkaSettings, partitions: Iterable[PartitionKey]) -> Iterator[bytes]:
    """Value of every committed record of some partitions, up to their ends as they are now.

    Raises as committed_records does.
    """
    for message in committed_records(kafka, whole(kafka, partitions)):
        yield message.value() or b""


class _Reading:
    """Where a read is: the next offset of each partition that is not at its end, and when it last moved."""

    def __init__(
        self, kafka: KafkaSettings, consumer: Consumer, spans: Mapping[PartitionKey, Span], patience_s: float
    ) -> None:
        self._kafka, self._consumer, self._patience_s = kafka, consumer, patience_s
        self._at = {key: start for key, (start, end) in spans.items() if start < end}
        self._ends = {key: spans[key][1] for key in self._at}
        self._news = self._looked = time.monotonic()
        self._moved = dict.fromkeys(self._at, self._news)
        self._hanging: dict[PartitionKey, int] = {}

    def records(self) -> Iterator[Message]:
        self._consumer.assign([TopicPartition(*key, offset) for key, offset in self._at.items()])
        while self._at:
            messages = self._consumer.consume(_CHUNK, _POLL_S)
            if messages:
                self._news = time.monotonic()
            for message in messages:
                key = (message.topic(), message.partition())
                if key in self._at and self._note(key, message):
                    yield message
            self._look()
        if self._hanging:
            raise HangingTransaction(self._hanging, self._patience_s)

    def _note(self, key: PartitionKey, message: Message) -> bool:
        """Go on to a message or an end; whether it is a record of the span."""
        error, offset = message.error(), message.offset()
        if error is None:
            self._advance(key, offset + 1)
            return bool(offset < self._ends[key])
        if error.code() == KafkaError._PARTITION_EOF:  # the last offset may be a mark, which is no message
            self._advance(key, offset)
        elif not error.retriable():
            raise BrokerError(f"cannot read {key[0]}: {error.str()}")
        return False

    def _advance(self, key: PartitionKey, offset: int) -> None:
        if offset > self._at[key]:
            self._at[key], self._moved[key] = offset, time.monotonic()
        if offset >= self._ends[key]:
            self._leave(key)

    def _leave(self, key: PartitionKey) -> None:
        del self._at[key], self._moved[key]
        self._consumer.pause([TopicPartition(*key)])

    def _look(self) -> None:
        """Now and then: whether what does not move waits for a transaction, or for Kafka."""
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY_S:
            return
        self._looked = now
        if now - self._news > _ANSWER_S:
            names = ", ".join(sorted({topic for topic, _ in self._at}))
            raise BrokerError(
                f"Kafka has been silent for {_ANSWER_S:.0f} s while {names} was read; is it up?"
            )
        slow = [key for key, moved in self._moved.items() if now - moved > self._patience_s]
        for key, stable in _stable_offsets(self._kafka, slow).items():
            if stable <= self._at[key]:
                self._hanging[key] = stable
                self._leave(key)


def _names(partitions: Iterable[PartitionKey]) -> str:
    """The topics of some partitions, for a person; the first few of many."""
    topics = sorted({topic for topic, _ in partitions})
    return ", ".join(topics[:_NAMED]) + (f" and {len(topics) - _NAMED} more" if len(topics) > _NAMED else "")


def _stable_offsets(kafka: KafkaSettings, partitions: list[PartitionKey]) -> dict[PartitionKey, int]:
    """Last stable offset of each partition; none while Kafka does not tell."""
    try:
        return stable_offsets(admin(kafka), partitions) if partitions else {}
    except KafkaException:
        return {}
