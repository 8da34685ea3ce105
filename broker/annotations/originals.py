"""The messages that alerts came in, fetched once more from where they were."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from broker.config import KafkaSettings
from broker.errors import BrokerError, RetryBatch, WorkerFenced
from broker.history.pack import topic_hash
from broker.ingest.kafka import as_message
from broker.kafka.clients import PartitionKey, reader, topic_partitions
from broker.kafka.faults import failure, is_fatal
from broker.message import Message

Position = tuple[bytes, int, int]
"""Where a message was: hash of its topic's name (as a claim has it), partition, offset."""
Fetch = Callable[[Sequence[Position]], Mapping[Position, Message]]
"""Gives the messages at some positions; one that is not kept any more is left out."""

_REMEMBERED = 64
"""Messages that are kept at hand: several things may be said of one object in a row."""
_NEAR = 20
"""A message so many offsets on is read up to; a farther one is jumped to."""
_PATIENCE_S = 15.0
_POLL_S = 0.1
_CHUNK = 100
_FETCH_BYTES = 256 * 1024


def nothing_kept(_: Sequence[Position]) -> Mapping[Position, Message]:
    """A fetch of a pipeline without Kafka."""
    return {}


class Originals:
    """Fetches messages by a consumer of its own, which reads nothing else and commits nothing."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._consumer: Consumer | None = None
        self._topics: dict[bytes, str] = {}
        self._recent: OrderedDict[Position, Message] = OrderedDict()

    def fetch(self, positions: Sequence[Position]) -> Mapping[Position, Message]:
        """The messages at some positions; one that is not kept any more is left out.

        Raises RetryBatch when Kafka does not answer, WorkerFenced when the client failed for good.
        """
        missing = {position for position in positions if position not in self._recent}
        found = {position: self._recent[position] for position in positions if position not in missing}
        if missing:
            try:
                found |= self._read(missing)
            except WorkerFenced:
                raise
            except KafkaException as error:
                raise failure("cannot read an alert once more", error) from error
            except BrokerError as error:
                raise RetryBatch(f"cannot read an alert once more: {error}") from error
        for position, message in found.items():
            self._recent[position] = message
            self._recent.move_to_end(position)
        while len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)
        return found

    def close(self) -> None:
        """Let go of the connections."""
        if self._consumer is not None:
            self._consumer.close()

    def _read(self, positions: set[Position]) -> dict[Position, Message]:
        if self._consumer is None:
            self._consumer = _consumer(self._kafka)
        if any(topic not in self._topics for topic, _, _ in positions):
            self._topics = {topic_hash(name): name for name in topic_partitions(self._consumer)}
        wanted: dict[PartitionKey, list[int]] = {}
        for topic, partition, offset in sorted(positions, key=lambda position: position[2]):
            if topic in self._topics:  # else it was deleted
                wanted.setdefault((self._topics[topic], partition), []).append(offset)
        messages = _messages_at(self._consumer, wanted)
        return {(topic_hash(m.topic), m.partition, m.offset): m for m in messages}


def _consumer(kafka: KafkaSettings) -> Consumer:
    """A consumer that reads little ahead: of most partitions one message is wanted."""
    options = {
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 20,
        "fetch.message.max.bytes": _FETCH_BYTES,
        "queued.min.messages": 10,
        "fetch.queue.backoff.ms": 0,
        "queued.max.messages.kbytes": 4096,
    }
    return reader(kafka, **options)


def _messages_at(consumer: Consumer, wanted: dict[PartitionKey, list[int]]) -> list[Message]:
    """The messages at some offsets, ascending in each partition, that are still there.  Raises RetryBatch."""
    found: list[Message] = []
    left = {key: list(offsets) for key, offsets in wanted.items()}
    consumer.assign([TopicPartition(*key, offsets[0]) for key, offsets in left.items()])
    deadline = time.monotonic() + _PATIENCE_S
    try:
        while left:
            if time.monotonic() > deadline:
                raise RetryBatch(f"alerts of {len(left)} partitions could not be read again in time")
            first = consumer.poll(_POLL_S)
            for raw in [] if first is None else [first, *consumer.consume(_CHUNK, 0.0)]:
                key, error = (raw.topic(), raw.partition()), raw.error()
                if error is not None and is_fatal(error):
                    raise WorkerFenced(f"the reader of alerts failed for good: {error.str()}")
                if key not in left:
                    continue
                if error is None:
                    if raw.offset() in left[key]:
                        found.append(as_message(raw))
                    if raw.offset() >= left[key][0]:
                        _go_on(consumer, left, key, raw.offset())
                elif error.code() in (KafkaError._PARTITION_EOF, KafkaError.UNKNOWN_TOPIC_OR_PART):
                    del left[key]
                elif not error.retriable():
                    raise RetryBatch(f"cannot read {key[0]}: {error.str()}")
    finally:
        consumer.unassign()
    return found


def _go_on(consumer: Consumer, left: dict[PartitionKey, list[int]], key: PartitionKey, at: int) -> None:
    """What is still wanted of a partition after the message at an offset: later ones; earlier are gone."""
    left[key] = [offset for offset in left[key] if offset > at]
    if not left[key]:
        del left[key]
    elif left[key][0] > at + _NEAR:
        consumer.seek(TopicPartition(*key, left[key][0]))
