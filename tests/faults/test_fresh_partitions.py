"""Records to partitions made a moment before, on servers that have just been started: none may be missing.

There the first request to a partition is often refused while a later one is taken, and the client reports
both as stored. What was acknowledged is compared with what a reader finds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewPartitions, NewTopic
from harness import read_all

from broker.annotations.record import from_json
from broker.annotations.send import send as annotate
from broker.client.send import Sender
from broker.config import Settings, load
from broker.control.topic import ControlWriter
from broker.embedded import owned
from broker.errors import RetryBatch
from broker.kafka.clients import admin, create_topics, producer_options
from broker.kafka.delivery import FreshPartitions, RecordProducer, partition_counts
from broker.kafka.topics import ANNOTATIONS, CONTROL, LEDGER, TopicSpec
from broker.message import Packet
from broker.publish.kafka import KafkaOutput

RECORDS = 60
VALUE = 300_000
PARTITIONS = 4


@contextmanager
def just_started(**kafka_settings: str) -> Iterator[Settings]:
    """A Kafka that nobody has asked anything yet."""
    with owned(quiet=True, valkey=False, kafka_settings=kafka_settings) as servers:
        yield load({"kafka.bootstrap_servers": servers.addresses.bootstrap_servers}, env={}, path=None)


@pytest.fixture(scope="module")
def running() -> Iterator[Settings]:
    with just_started(
        **{"producer.id.expiration.ms": "2000", "producer.id.expiration.check.interval.ms": "100"}
    ) as made:
        create_topics(admin(made.kafka), [TopicSpec(LEDGER, 1, 1, ())])
        yield made


def make(settings: Settings, topic: str, partitions: int = PARTITIONS) -> None:
    """Make a topic and wait for no more than the controller's word: its partitions are still being made."""
    client = admin(settings.kafka)
    client.create_topics([NewTopic(topic, partitions, 1)])[topic].result(30)


def batch(topic: str, first: int = 0, count: int = RECORDS, size: int = VALUE) -> list[Packet]:
    return [
        Packet(topic, b"%d" % number, b"%d " % number + bytes(size)) for number in range(first, first + count)
    ]


def numbers(settings: Settings, topic: str) -> list[int]:
    """The numbers of the records that a reader finds, sorted."""
    return sorted(
        int(record.value().split(b" ")[0]) for record in read_all(settings.kafka.bootstrap_servers, topic)
    )


def transact(output: KafkaOutput, packets: list[Packet]) -> int:
    """Publish, as often as it takes; how many attempts were in vain."""
    for attempt in range(20):
        try:
            output.transact(packets, [])
            return attempt
        except RetryBatch:
            time.sleep(0.1)
            output.settle()
    raise AssertionError("never published")


def transactions(settings: Settings, topics: int) -> None:
    output = KafkaOutput(settings.kafka, "slot")
    for number in range(topics):
        make(settings, f"txn-{number}")
        transact(output, batch(f"txn-{number}"))
        transact(output, batch(f"txn-{number}", RECORDS))
    output.close()
    found = {number: numbers(settings, f"txn-{number}") for number in range(topics)}
    assert found == {number: list(range(2 * RECORDS)) for number in range(topics)}


def replays(settings: Settings, topics: int) -> None:
    sender = Sender(settings)
    for number in range(topics):
        for packet in batch(f"in-{number}"):
            sender.send(Packet(packet.topic, None, packet.value))
    sent = sender.finish()
    sent.check()
    assert sent.messages == {f"in-{number}": RECORDS for number in range(topics)}
    found = {number: sorted(set(numbers(settings, f"in-{number}"))) for number in range(topics)}
    assert found == {number: list(range(RECORDS)) for number in range(topics)}


def announcements(settings: Settings, topics: int) -> None:
    writer = ControlWriter(settings.kafka)
    make(settings, CONTROL, 1)
    make(settings, ANNOTATIONS)
    offsets = [writer.write(b"key", b"%d " % number) for number in range(RECORDS)]
    assert offsets == sorted(offsets)
    assert sorted(set(numbers(settings, CONTROL))) == list(range(RECORDS))
    said = [
        from_json({"survey": "ztf", "object": f"ZTF21aaaaa{a}{b}", "kind": "note", "text": "x", "by": "me"})
        for a in "abcdefgh"
        for b in "abcdefgh"
    ]
    assert annotate(settings, said) == len(said)
    records = read_all(settings.kafka.bootstrap_servers, ANNOTATIONS)
    assert {record.key() for record in records} == {item.key for item in said}


@pytest.mark.parametrize("write", [transactions, replays, announcements])
def test_nothing_acknowledged_is_missing_on_servers_just_started(
    write: Callable[[Settings, int], None],
) -> None:
    with just_started() as settings:
        write(settings, 4)


@pytest.mark.soak
@pytest.mark.parametrize("write", [transactions, replays, announcements])
def test_nothing_acknowledged_is_missing_however_often_servers_start(
    write: Callable[[Settings, int], None],
) -> None:
    for _ in range(12):
        with just_started() as settings:
            write(settings, 12)


def test_topics_made_while_running(running: Settings) -> None:
    output = KafkaOutput(running.kafka, "while-running")
    for number in range(10):
        make(running, f"new-{number}", 2)
        transact(output, batch(f"new-{number}", size=10) + batch("new-0", RECORDS * number, size=10))
    output.close()
    assert numbers(running, "new-0") == sorted([*range(RECORDS), *range(RECORDS * 10)])
    assert all(numbers(running, f"new-{number}") == list(range(RECORDS)) for number in range(1, 10))


def test_partitions_added_while_running(running: Settings) -> None:
    make(running, "grows", 1)
    output, sender = KafkaOutput(running.kafka, "grows"), Sender(running)
    client = admin(running.kafka)
    for number in range(8):
        transact(output, batch("grows", 2 * RECORDS * number, size=10))
        for packet in batch("grows", 2 * RECORDS * number + RECORDS, size=10):
            sender.send(packet)
        client.create_partitions([NewPartitions("grows", number + 2)])["grows"].result(30)
    sender.finish().check()
    output.close()
    assert sorted(set(numbers(running, "grows"))) == list(range(16 * RECORDS))


def test_a_producer_that_kafka_forgot(running: Settings) -> None:
    make(running, "forgets", 2)
    output, sender = KafkaOutput(running.kafka, "forgets"), Sender(running)
    for number in range(4):
        transact(output, batch("forgets", 2 * RECORDS * number, size=10))
        for packet in batch("forgets", 2 * RECORDS * number + RECORDS, size=10):
            sender.send(packet)
        sender.finish().check()
        time.sleep(3.0)
    output.close()
    assert sorted(set(numbers(running, "forgets"))) == list(range(8 * RECORDS))


def test_a_topic_deleted_and_made_again_under_its_name(running: Settings) -> None:
    """Nothing of what was acknowledged after it was made again is missing."""
    client = admin(running.kafka)
    output, sender = KafkaOutput(running.kafka, "again"), Sender(running)
    for number in range(5):
        make(running, "again", 2)
        transact(output, batch("again", size=10))
        for packet in batch("again", RECORDS, size=10):
            sender.send(packet)
        sender.finish().check()
        assert sorted(set(numbers(running, "again"))) == list(range(2 * RECORDS)), number
        client.delete_topics(["again"])["again"].result(30)
    output.close()


def test_keys_go_where_librdkafka_puts_them(running: Settings) -> None:
    make(running, "keys", 7)
    keys = [
        b"",
        b"\xff\xfe\xfd",
        *(b"ztf:%d" % (number * 7919) for number in range(300)),
        *(b"k" * n for n in range(1, 40)),
    ]
    producer = Producer(producer_options(running.kafka))
    placed: dict[bytes, int] = {}

    def note(key: bytes, error: Any, message: Any) -> None:
        assert error is None
        placed[key] = message.partition()

    for key in keys:
        producer.produce("keys", b"x", key, on_delivery=partial(note, key))
        producer.poll(0)
    assert producer.flush(30) == 0
    fresh = FreshPartitions(partial(partition_counts, producer))
    fresh.unsettled({"keys"})
    assert placed == {key: fresh.partition(Packet("keys", key, b"")) for key in keys}


def test_order_within_a_partition_stays(running: Settings) -> None:
    make(running, "order", 3)
    outcomes: list[Any] = []
    producer = RecordProducer(running.kafka, **{"linger.ms": 5})
    for packet in batch("order", count=300, size=1):
        producer.send(packet, lambda *outcome: outcomes.append(outcome))
    assert producer.flush(30) == 0
    assert [error for error, _ in outcomes] == [None] * 300
    by_partition: dict[int, list[int]] = {}
    for record in read_all(running.kafka.bootstrap_servers, "order"):
        by_partition.setdefault(record.partition(), []).append(int(record.value().split(b" ")[0]))
    assert len(by_partition) == 3
    assert all(found == sorted(found) for found in by_partition.values())
