"""What is in Kafka's log, read by a reader of our own that knows a record not shown from one not there."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import time
from collections.abc import Iterable, Iterator
from typing import Any

import fastavro
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from harness import control_state

_PATIENCE_S = 60.0
_SILENCE_S = 60.0
Partition = tuple[str, int]


class OpenTransactions(AssertionError):
    """A partition whose stable end does not reach its end: nobody will ever see what lies between."""


def consumer(bootstrap: str, **options: Any) -> Consumer:
    """A consumer outside any group that sees what is committed."""
    base = {
        "bootstrap.servers": bootstrap,
        "log_level": 2,
        "group.id": "chaos-reader",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "auto.offset.reset": "error",
        "fetch.message.max.bytes": 20_000_000,
        "receive.message.max.bytes": 80_000_000,
    }
    return Consumer(base | options)


def partitions_of(client: Consumer, topics: Iterable[str]) -> list[Partition]:
    """Every partition of some topics."""
    known = client.list_topics(timeout=30).topics
    return [(name, number) for name in topics for number in sorted(known[name].partitions)]


def topic_names(bootstrap: str) -> list[str]:
    """The topics there are."""
    client = consumer(bootstrap)
    try:
        return sorted(client.list_topics(timeout=30).topics)
    finally:
        client.close()


def settled_ends(bootstrap: str, partitions: Iterable[Partition]) -> dict[Partition, int]:
    """Where each partition ends, once no transaction is open in it.  Raises OpenTransactions."""
    every, stable = consumer(bootstrap, **{"isolation.level": "read_uncommitted"}), consumer(bootstrap)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            ends = {key: _high(every, key) for key in partitions}
            shown = {key: _high(stable, key) for key in partitions}
            behind = {key: (shown[key], end) for key, end in ends.items() if shown[key] < end}
            if not behind:
                return ends
            if time.monotonic() > deadline:
                raise OpenTransactions(f"transactions that nobody ends: (stable end, end) {behind}")
            time.sleep(0.2)
    finally:
        every.close()
        stable.close()


def records(bootstrap: str, topics: Iterable[str]) -> Iterator[Any]:
    """Every committed record of some topics, each partition's in order, up to the ends as they are now."""
    client = consumer(bootstrap)
    try:
        ends = settled_ends(bootstrap, partitions_of(client, topics))
        left = {key for key, end in ends.items() if end > 0}
        client.assign([TopicPartition(*key, OFFSET_BEGINNING) for key in left])
        quiet_since = time.monotonic()
        while left:
            for message in client.consume(1000, 0.2):
                quiet_since = time.monotonic()
                key, error = (message.topic(), message.partition()), message.error()
                if error is None:
                    yield message
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise AssertionError(f"cannot read {key}: {error.str()}")
                elif message.offset() >= ends[key]:
                    left.discard(key)
            assert time.monotonic() - quiet_since < _SILENCE_S, f"nothing more of {left} comes"
    finally:
        client.close()


class Decoder:
    """Reads our framed records by fastavro, with the schemas in `control`."""

    def __init__(self, bootstrap: str) -> None:
        self._schemas = control_state(bootstrap).schemas
        self._parsed: dict[int, Any] = {}

    def __call__(self, value: bytes) -> dict[str, Any]:
        """The datum; it must fill the record to its last byte."""
        magic, number = struct.unpack(">bI", value[:5])
        assert magic == 0
        if number not in self._parsed:
            self._parsed[number] = self._schema(number)
        stream = io.BytesIO(value[5:])
        datum: Any = fastavro.schemaless_reader(stream, self._parsed[number], None)
        assert stream.read() == b"", "bytes left after the datum"
        return dict(datum)

    def _schema(self, number: int) -> Any:
        text = self._schemas[number]
        found = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
        assert found == number, f"`control` gives schema {number} a text that is not its own: {text[:100]!r}"
        return fastavro.parse_schema(json.loads(text))


def _high(client: Consumer, key: Partition) -> int:
    return int(client.get_watermark_offsets(TopicPartition(*key), timeout=30)[1])
