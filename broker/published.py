"""Published alerts read back from `alerts.<survey>`: the newest ones, and one by its id."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import fastavro
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from broker.config import KafkaSettings
from broker.errors import BrokerError
from broker.kafka.clients import PartitionKey, reader, topic_partitions, watermarks
from broker.kafka.topics import alerts_topic
from broker.publish.records import FRAME_BYTES, alert_start, is_alert, unframe

_BLOCK = 20_000
"""Offsets of a partition that a search looks through first; then ever more, from the newest to the oldest."""
_GROWTH = 4
_SPARE = 1.25
"""Offsets to read for each alert wanted of a partition: transactions take offsets of their own."""
_CHUNK = 2000
_PATIENCE_S = 0.2

Spans = Mapping[PartitionKey, tuple[int, int]]
"""[start, end) of each partition."""


class UnknownAlert(BrokerError):
    """No such alert was published, or it is no longer kept."""


class RecordDecoder:
    """Our own records by the schemas announced in `control`; of each only the fields that are wanted."""

    def __init__(self, schemas: Mapping[int, str], wanted: Sequence[str]) -> None:
        self._texts = schemas
        self._wanted = frozenset(wanted)
        self._parsed: dict[int, tuple[Any, Any]] = {}

    def record(self, value: bytes) -> dict[str, Any]:
        """The wanted fields of a framed record.  Raises BrokerError for a schema that was never announced."""
        identifier = unframe(value)
        if identifier not in self._parsed:
            if identifier is None:
                raise BrokerError("it is not framed as our records are: somebody else wrote it")
            text = self._texts.get(identifier)
            if text is None:
                raise BrokerError(f"its schema {identifier} was never announced in the control topic")
            whole = json.loads(text)
            fields = [item for item in whole["fields"] if item["name"] in self._wanted]
            part = fastavro.parse_schema({**whole, "fields": fields})
            self._parsed[identifier] = (fastavro.parse_schema(whole), part)
        datum = io.BytesIO(memoryview(value)[FRAME_BYTES:])
        found: Any = fastavro.schemaless_reader(datum, *self._parsed[identifier])
        return dict(found)


def newest_alerts(
    kafka: KafkaSettings, survey: str, count: int, decoder: RecordDecoder
) -> list[dict[str, Any]]:
    """Up to `count` of the newest alerts of a survey, the newest first; each partition gives its share.

    Raises BrokerError.
    """
    consumer = _consumer(kafka)
    try:
        held = _held(consumer, survey)
        share = int(_SPARE * count / max(1, len(held))) + 1
        spans = {key: (max(low, high - share), high) for key, (low, high) in held.items()}
        alerts = [
            (message.timestamp()[1], message.offset(), message.value() or b"")
            for message in _messages(consumer, spans)
            if is_alert(message.value() or b"")
        ]
    finally:
        consumer.close()
    newest = sorted(alerts, reverse=True)[:count]
    return [decoder.record(value) for _, _, value in newest]


def find_alert(
    kafka: KafkaSettings, survey: str, alert: int, decoder: RecordDecoder, patience_s: float = math.inf
) -> dict[str, Any]:
    """A published alert by its diaSourceId, looked for from the newest on.

    Raises UnknownAlert, or BrokerError if Kafka does not answer or it takes longer than patience_s.
    """
    consumer, deadline = _consumer(kafka), time.monotonic() + patience_s
    try:
        for spans in _backwards(_held(consumer, survey)):
            for number, message in enumerate(_messages(consumer, spans)):
                if number % _CHUNK == 0 and time.monotonic() > deadline:
                    raise BrokerError(
                        f"alert {alert} is none of the newest of {alerts_topic(survey)} that can be read "
                        f"in {patience_s:g} s; `broker explain` has more patience"
                    )
                value = message.value() or b""
                if value.startswith(alert_start(alert), FRAME_BYTES):
                    return decoder.record(value)
    finally:
        consumer.close()
    raise UnknownAlert(
        f"no alert {alert} in {alerts_topic(survey)}; is it of another survey, or is its retention over?"
    )


def alert_keys(kafka: KafkaSettings, survey: str, since_ms: int) -> Iterator[tuple[bytes, int]]:
    """Key and time [Unix ms] of each alert of a survey that was published since a moment [Unix ms].

    Raises BrokerError.
    """
    consumer = _consumer(kafka)
    try:
        held = _held(consumer, survey)
        wanted = [TopicPartition(*key, since_ms) for key in held]
        try:
            found = consumer.offsets_for_times(wanted, timeout=10.0) if wanted else []
        except KafkaException as error:
            raise BrokerError(f"cannot search {alerts_topic(survey)}: {error.args[0].str()}") from error
        firsts = {(part.topic, part.partition): part.offset for part in found if part.offset >= 0}
        spans = {key: (first, held[key][1]) for key, first in firsts.items()}
        for message in _messages(consumer, spans):
            if is_alert(message.value() or b""):
                yield message.key() or b"", message.timestamp()[1]
    finally:
        consumer.close()


def _consumer(kafka: KafkaSettings) -> Consumer:
    return reader(kafka, **{"enable.partition.eof": True, "fetch.wait.max.ms": 50})


def _held(consumer: Consumer, survey: str) -> dict[PartitionKey, tuple[int, int]]:
    """What a survey's topic holds now."""
    topic = alerts_topic(survey)
    count = topic_partitions(consumer).get(topic, 0)
    try:
        return {(topic, number): watermarks(consumer, topic, number) for number in range(count)}
    except KafkaException as error:
        raise BrokerError(f"cannot find the end of {topic}: {error.args[0].str()}") from error


def _backwards(held: Spans) -> Iterator[dict[PartitionKey, tuple[int, int]]]:
    """The offsets of some partitions in blocks, the newest first."""
    ends, block = {key: high for key, (_, high) in held.items()}, _BLOCK
    while any(ends[key] > low for key, (low, _) in held.items()):
        spans = {key: (max(low, ends[key] - block), ends[key]) for key, (low, _) in held.items()}
        yield spans
        ends, block = {key: start for key, (start, _) in spans.items()}, block * _GROWTH


def _messages(consumer: Consumer, spans: Spans) -> Iterator[Message]:
    """Every committed record of some spans; an open transaction ends its partition."""
    ends = {key: end for key, (start, end) in spans.items() if start < end}
    consumer.assign([TopicPartition(*key, spans[key][0]) for key in ends])
    left = set(ends)
    while left:
        for message in consumer.consume(_CHUNK, _PATIENCE_S):
            error, key = message.error(), (message.topic(), message.partition())
            if error is None:
                if message.offset() < ends[key]:
                    yield message
                if message.offset() + 1 >= ends[key]:
                    left.discard(key)
            elif error.code() == KafkaError._PARTITION_EOF:
                left.discard(key)
            elif not error.retriable():
                raise BrokerError(f"cannot read {key[0]}: {error.str()}")
