"""What the tests of whole runs share: the command line as a user types it, topics read back, inputs made."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastavro
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition

from broker import control
from broker.control import ControlState
from broker.embedded import Addresses
from broker.schemas import lsst_schema

PATIENCE_S = 180.0
OPEN_S = 45.0
"""Longer than a transaction of ours can hide records (broker/kafka/reading.py)."""


@dataclass
class Shell:
    """Runs `broker` as a user would, against given servers and in a data folder of its own."""

    addresses: Addresses | None
    folder: Path
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
        clean |= {"BROKER_DATA_DIR": str(self.folder), "BROKER_METRICS_PORT": "0", "COLUMNS": "150"}
        if self.addresses is not None:
            clean["BROKER_KAFKA_BOOTSTRAP_SERVERS"] = self.addresses.bootstrap_servers
            clean["BROKER_REDIS_URL"] = self.addresses.redis_url
        return clean | self.extra

    def __call__(self, *args: str, expect: int = 0) -> str:
        """Run a verb to its end; its standard output."""
        done = subprocess.run(
            [sys.executable, "-m", "broker", *args],
            env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == expect, (
            f"broker {' '.join(args)}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout

    @contextmanager
    def running(self, *args: str) -> Iterator[subprocess.Popen[bytes]]:
        """A verb in the background, ended by SIGTERM; its output in <verb>.log of the folder."""
        with (self.folder / f"{args[0]}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "broker", *args],
                env=self.env, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
            try:
                yield process
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def read_all(bootstrap: str, topic: str, *, committed: bool = True) -> list[Any]:
    """Every record of a topic up to its end now; of a transaction that was just committed, its records too.

    A commit returns before each partition has the transaction's mark; until then its records are not shown.
    A transaction that stays open for longer than OPEN_S fails the test: what follows it cannot be read, and
    less than everything must not pass for everything.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "tests",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed" if committed else "read_uncommitted",
            "fetch.message.max.bytes": 20_000_000,
            "receive.message.max.bytes": 80_000_000,
        }
    )
    metadata = consumer.list_topics(topic, timeout=10).topics[topic]
    ends = high_watermarks(bootstrap, topic, metadata.partitions)
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in ends])
    at, records, deadline = dict.fromkeys(ends, 0), [], time.monotonic() + OPEN_S
    while left := {number: at[number] for number in ends if at[number] < ends[number]}:
        for message in consumer.consume(500, 0.2):
            number, offset = message.partition(), message.offset()
            if message.error() is None:
                at[number], deadline = offset + 1, time.monotonic() + OPEN_S
                records += [message] if offset < ends[number] else []
            elif message.error().code() == KafkaError._PARTITION_EOF:
                at[number] = offset  # the last one may be a mark, which is no message
        assert time.monotonic() < deadline, (
            f"{topic}: nothing can be read from {left} on, though it ends at {ends}: a transaction is open"
        )
    consumer.close()
    return records


def high_watermarks(bootstrap: str, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """Ends of a topic's partitions, records and marks of open transactions included."""
    options = {"group.id": "tests", "isolation.level": "read_uncommitted", "bootstrap.servers": bootstrap}
    consumer = Consumer(options)
    try:
        return {
            number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)[1]
            for number in partitions
        }
    finally:
        consumer.close()


def control_state(bootstrap: str) -> ControlState:
    """The control topic, folded."""
    state = control.ControlState()
    for record in read_all(bootstrap, "control"):
        state = control.apply(state, record.offset(), record.key(), record.value())
    return state


def decoded(bootstrap: str, topic: str) -> list[dict[str, Any]]:
    """The framed records of one of our topics, decoded by fastavro with the schemas in `control`."""
    schemas = control_state(bootstrap).schemas
    parsed: dict[int, Any] = {}
    result = []
    for record in read_all(bootstrap, topic):
        magic, number = struct.unpack(">bI", record.value()[:5])
        assert magic == 0
        if number not in parsed:
            parsed[number] = fastavro.parse_schema(json.loads(schemas[number]))
        stream = io.BytesIO(record.value()[5:])
        result.append(fastavro.schemaless_reader(stream, parsed[number], None))
        assert stream.read() == b"", "bytes left after the datum"
    return result


def headers(message: Any) -> dict[str, str]:
    """A record's headers as text."""
    return {name: (value or b"").decode() for name, value in message.headers() or []}


def send(bootstrap: str, topic: str, values: list[bytes]) -> None:
    """Produce values to a topic, to its partitions in turn."""
    producer = Producer({"bootstrap.servers": bootstrap, "message.max.bytes": 17 * 2**20, "linger.ms": 5})
    partitions = len(producer.list_topics(topic, timeout=10).topics[topic].partitions)
    for number, value in enumerate(values):
        producer.produce(topic, value, partition=number % partitions)
        producer.poll(0)
    assert producer.flush(60) == 0


def records_of(value: bytes) -> list[tuple[dict[str, Any], bytes]]:
    """(record, its bytes) of a message, by fastavro alone; raises where it cannot."""
    if value[:4] == b"Obj\x01":
        found = []
        for block in fastavro.block_reader(io.BytesIO(value)):
            records = list(block)
            assert len(records) == 1, "replay sends one record a message"
            found.append((records[0], block.bytes_.getvalue()))
        return found
    schema = lsst_schema(struct.unpack(">I", value[1:5])[0])
    assert schema is not None
    record = fastavro.schemaless_reader(io.BytesIO(value[5:]), fastavro.parse_schema(dict(schema)), None)
    return [(record, value[5:])]  # type: ignore[list-item]


def sha256(value: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(value).hexdigest()


def wait_until(condition: Any, what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for something to become true; fail, saying what, if it does not."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {patience_s:.0f} s: {what}"
        time.sleep(0.1)


def repeated(items: list[Any]) -> list[Any]:
    """The items that occur more than once."""
    return [item for item, count in Counter(items).items() if count > 1]
