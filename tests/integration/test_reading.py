"""A bounded read of committed records on a real Kafka: marks are waited for, an open transaction is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from broker.config import Settings
from broker.errors import BrokerError, HangingTransaction
from broker.kafka.clients import PartitionKey, admin, create_topics, stable_offsets
from broker.kafka.reading import OPEN_S, committed_records, committed_values, whole
from broker.kafka.topics import TopicSpec


class Topic:
    """A topic of the test's own, and producers of transactions into it."""

    def __init__(self, settings: Settings, name: str, partitions: int) -> None:
        self.settings, self.name = settings, name
        create_topics(admin(settings.kafka), [TopicSpec(name, partitions, 1, ())])
        self.keys = [(name, number) for number in range(partitions)]

    def producer(self, name: str, timeout_ms: int = 60_000) -> Producer:
        options = {
            "bootstrap.servers": self.settings.kafka.bootstrap_servers,
            "transactional.id": f"{self.name}-{name}",
            "transaction.timeout.ms": timeout_ms,
            "max.in.flight.requests.per.connection": 1,
            "linger.ms": 0,
        }
        made = Producer(options)
        made.init_transactions(30)
        return made

    def write(self, producer: Producer, values: list[bytes], partition: int) -> None:
        """Values as acknowledged records of a transaction that stays open."""
        producer.begin_transaction()
        for value in values:
            producer.produce(self.name, value, partition=partition)
        assert producer.flush(30) == 0

    def commit(self, values: list[bytes], partition: int) -> None:
        producer = self.producer(f"commit-{time.time_ns()}")
        self.write(producer, values, partition)
        producer.commit_transaction(30)

    def spans(self) -> dict[PartitionKey, tuple[int, int]]:
        return whole(self.settings.kafka, self.keys)

    def read(self, patience_s: float = OPEN_S) -> list[tuple[int, int, bytes]]:
        records = committed_records(self.settings.kafka, self.spans(), patience_s)
        return sorted((it.partition(), it.offset(), it.value()) for it in records)


@pytest.fixture
def topic(settings: Settings, request: pytest.FixtureRequest) -> Iterator[Topic]:
    name = request.node.name.replace("_", "-")[:60]
    made = Topic(settings, f"{name}-{time.time_ns()}", 3)
    yield made
    client = admin(settings.kafka)
    client.delete_topics([made.name])[made.name].result()


def test_what_was_just_committed_is_all_there(topic: Topic) -> None:
    producer = topic.producer("again")
    for count in range(1, 21):
        for partition in range(3):
            if partition == 0:
                producer.begin_transaction()
            producer.produce(topic.name, b"%d" % count, partition=partition)
        producer.commit_transaction(30)
        assert len(list(committed_values(topic.settings.kafka, topic.keys))) == 3 * count


def test_a_transaction_that_ends_in_time_is_waited_for(topic: Topic) -> None:
    topic.commit([b"before"], 0)
    producer = topic.producer("slow")
    topic.write(producer, [b"late"], 0)
    topic.commit([b"behind"], 0)
    timer = threading.Timer(4.0, producer.commit_transaction)
    timer.start()
    found = topic.read()
    timer.join()
    assert [value for _, _, value in found] == [b"before", b"late", b"behind"]


def test_what_was_aborted_is_no_record_and_no_reason_to_wait(topic: Topic) -> None:
    topic.commit([b"before"], 1)
    producer = topic.producer("doubtful")
    topic.write(producer, [b"never"], 1)
    timer = threading.Timer(3.0, producer.abort_transaction)
    timer.start()
    found = topic.read()
    timer.join()
    assert [value for _, _, value in found] == [b"before"]


def test_a_dead_producers_transaction_is_waited_for_until_the_coordinator_ends_it(topic: Topic) -> None:
    producer = topic.producer("dead", timeout_ms=6000)
    topic.write(producer, [b"never"], 0)
    topic.commit([b"behind"], 0)
    assert [value for _, _, value in topic.read()] == [b"behind"]


def test_a_transaction_that_stays_open_is_a_finding_after_all_that_can_be_read(topic: Topic) -> None:
    topic.commit([b"before"], 0)
    open_at = topic.spans()[(topic.name, 0)][1]
    producer = topic.producer("hangs")
    topic.write(producer, [b"open"], 0)
    topic.commit([b"hidden"], 0)
    topic.commit([b"elsewhere"], 2)
    found: list[tuple[int, bytes]] = []
    records = committed_records(topic.settings.kafka, topic.spans(), patience_s=3.0)
    with pytest.raises(HangingTransaction) as told:
        found.extend((record.partition(), record.value()) for record in records)
    assert sorted(found) == [(0, b"before"), (2, b"elsewhere")]
    assert told.value.open_at == {(topic.name, 0): open_at}
    assert f"{topic.name}[0] from offset {open_at} on" in str(told.value)
    producer.abort_transaction(30)
    assert [value for _, _, value in topic.read()] == [b"before", b"hidden", b"elsewhere"]


def test_only_the_span_is_read_though_the_topic_grows(topic: Topic) -> None:
    topic.commit([b"%d" % number for number in range(10)], 0)
    spans = {(topic.name, 0): (3, 7), (topic.name, 1): (0, 0)}
    topic.commit([b"later"] * 50, 0)
    records = list(committed_records(topic.settings.kafka, spans))
    assert [record.offset() for record in records] == [3, 4, 5, 6]


def test_transactions_that_follow_each_other_without_a_pause_are_no_hanging_one(topic: Topic) -> None:
    """One is open at any time, but none for long."""
    over = threading.Event()

    def flow() -> None:
        producer = topic.producer("flow")
        while not over.is_set():
            topic.write(producer, [b"x"], 0)
            time.sleep(0.2)
            producer.commit_transaction(30)

    thread = threading.Thread(target=flow)
    thread.start()
    time.sleep(1.0)
    try:
        for _ in range(3):
            end = topic.spans()[(topic.name, 0)][1]
            records = list(committed_records(topic.settings.kafka, topic.spans(), patience_s=2.0))
            assert all(record.value() == b"x" for record in records)
            assert records[-1].offset() + 3 >= end
    finally:
        over.set()
        thread.join()


def test_a_topic_that_is_gone_is_told(topic: Topic) -> None:
    with pytest.raises(BrokerError, match="no-such-topic"):
        list(committed_values(topic.settings.kafka, [("no-such-topic", 0)]))


def test_the_stable_offset_is_where_an_open_transaction_begins(topic: Topic) -> None:
    topic.commit([b"before"], 0)
    end = topic.spans()[(topic.name, 0)][1]
    producer = topic.producer("open")
    topic.write(producer, [b"open"], 0)
    assert stable_offsets(admin(topic.settings.kafka), [(topic.name, 0)]) == {(topic.name, 0): end}
    producer.abort_transaction(30)
