"""The proxy does to requests what it says, seen from both sides: by the client, and in Kafka's log."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from harness import read_all, wait_until
from kafka_proxy import Act, Fault, KafkaProxy, Request, parse, servers_behind_proxy

from broker.embedded import OwnedServers

_INVALID_PRODUCER_EPOCH = 47


class Place:
    """The servers, the proxy before them, and topics for the asking."""

    def __init__(self, servers: OwnedServers, proxy: KafkaProxy) -> None:
        self.servers, self.proxy = servers, proxy
        self.direct = servers.addresses.bootstrap_servers

    def topic(self) -> str:
        """A new topic that has taken a record already, of a producer that passed the proxy by."""
        name = f"t-{uuid.uuid4().hex[:8]}"
        new = NewTopic(name, 1, 1)
        client = AdminClient({"bootstrap.servers": self.direct})
        client.create_topics([new])[name].result()
        producer = Producer({"bootstrap.servers": self.direct})
        producer.produce(name, b"first")
        assert producer.flush(30) == 0
        return name

    def values(self, topic: str, *, committed: bool = True) -> list[bytes]:
        """What is in a topic beyond the first record."""
        return [record.value() for record in read_all(self.direct, topic, committed=committed)[1:]]

    def open_values(self, topic: str) -> list[bytes]:
        """The same while a transaction is open: what may be read before it."""
        options = {"bootstrap.servers": self.direct, "group.id": "tests", "enable.partition.eof": True}
        consumer = Consumer(options | {"isolation.level": "read_committed"})
        consumer.assign([TopicPartition(topic, 0, 0)])
        values: list[bytes] = []
        while (message := consumer.poll(30)) is not None and message.error() is None:
            values.append(message.value())
        consumer.close()
        return values[1:]

    def producer(self, **options: object) -> Producer:
        """A producer through the proxy that sends nothing twice."""
        once = {
            "message.send.max.retries": 0,
            "linger.ms": 0,
            "bootstrap.servers": self.proxy.bootstrap_servers,
        }
        return Producer(once | options)


@pytest.fixture(scope="module")
def servers() -> Iterator[Place]:
    with servers_behind_proxy(valkey=False) as (running, proxy):
        yield Place(running, proxy)


@pytest.fixture
def place(servers: Place) -> Place:
    servers.proxy.clear()
    servers.proxy.deeds.clear()
    return servers


def send(producer: Producer, topic: str, value: bytes, patience_s: float = 30.0) -> KafkaError | None:
    """Send one record: the error of its report."""
    errors: list[KafkaError | None] = []

    def note(error: KafkaError | None, _: Message) -> None:
        errors.append(error)

    producer.produce(topic, value, on_delivery=note)
    assert producer.flush(patience_s) == 0
    return errors[0]


def transaction(place: Place, name: str, topic: str) -> Producer:
    """A producer with an open transaction of one record, which is written."""
    producer = Producer({"bootstrap.servers": place.proxy.bootstrap_servers, "transactional.id": name})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, name.encode())
    assert producer.flush(30) == 0
    return producer


def test_clients_stay_on_the_proxy(place: Place) -> None:
    topic, before = place.topic(), place.proxy.seen["Produce"]
    producer = place.producer()
    ports = {broker.port for broker in producer.list_topics(timeout=10).brokers.values()}
    assert ports == {place.proxy.port}
    assert send(producer, topic, b"a") is None
    assert place.proxy.seen["Produce"] == before + 1
    assert place.values(topic) == [b"a"]


def test_cut_before_keeps_a_request_from_kafka(place: Place) -> None:
    topic = place.topic()
    place.proxy.plan(Fault(Act.CUT_BEFORE, "Produce"))
    assert send(place.producer(), topic, b"a") is not None
    assert place.values(topic) == []
    assert place.proxy.done["cut before", "Produce"] == 1


def test_cut_after_loses_the_answer_alone(place: Place) -> None:
    topic = place.topic()
    place.proxy.plan(Fault(Act.CUT_AFTER, "Produce"))
    assert send(place.producer(), topic, b"a") is not None
    assert place.values(topic) == [b"a"]


def test_drop_is_silence(place: Place) -> None:
    topic = place.topic()
    place.proxy.plan(Fault(Act.DROP, "Produce", seconds=4.0))
    start = time.monotonic()
    error = send(place.producer(**{"message.timeout.ms": 2000}), topic, b"a")
    assert error is not None
    assert error.code() == KafkaError._MSG_TIMED_OUT
    assert time.monotonic() - start >= 1.5, "a connection that broke would have been noticed at once"
    assert place.values(topic) == []


def test_late_is_a_cut_for_the_client_and_a_request_for_kafka(place: Place) -> None:
    topic = place.topic()
    place.proxy.plan(Fault(Act.LATE, "Produce", seconds=2.0))
    assert send(place.producer(), topic, b"a") is not None
    assert place.values(topic) == []
    wait_until(lambda: place.proxy.done["late", "Produce"] == 1, "the late request is delivered", 30)
    assert place.values(topic) == [b"a"]


def test_hold_delays_the_transaction_it_is_meant_for(place: Place) -> None:
    topic = place.topic()
    producers = [transaction(place, name, topic) for name in ("one", "two")]
    place.proxy.plan(Fault(Act.HOLD, "EndTxn", seconds=1.0, name="two"))
    took = []
    for producer in producers:
        start = time.monotonic()
        producer.commit_transaction(30)
        took.append(time.monotonic() - start)
    assert took[1] >= 1.0
    assert place.proxy.done["hold", "EndTxn"] == 1
    (deed,) = place.proxy.deeds
    assert deed.request is not None
    assert deed.request.name == "two"
    assert sorted(place.values(topic)) == [b"one", b"two"]


def test_a_late_end_of_a_transaction_ends_the_next_of_the_same_producer(place: Place) -> None:
    """What the proxy is for: the client asked again at once and went on; the first request then did harm."""
    topic = place.topic()
    producer = transaction(place, "kept", topic)
    place.proxy.plan(Fault(Act.LATE, "EndTxn", seconds=2.0, name="kept"))
    producer.commit_transaction(30)
    producer.begin_transaction()
    producer.produce(topic, b"not committed")
    assert producer.flush(30) == 0
    assert place.proxy.done["late", "EndTxn"] == 0
    wait_until(lambda: place.proxy.done["late", "EndTxn"] == 1, "the late request is delivered", 30)
    assert [deed.error_code for deed in place.proxy.deeds] == [0]
    assert place.values(topic) == [b"kept", b"not committed"]


def test_a_late_end_of_a_transaction_is_refused_once_its_producer_is_replaced(place: Place) -> None:
    topic = place.topic()
    place.proxy.plan(Fault(Act.LATE, "EndTxn", seconds=2.0, name="replaced"))
    transaction(place, "replaced", topic).commit_transaction(30)
    successor = transaction(place, "replaced", topic)
    wait_until(lambda: place.proxy.done["late", "EndTxn"] == 1, "the late request is delivered", 30)
    assert [deed.error_code for deed in place.proxy.deeds] == [_INVALID_PRODUCER_EPOCH]
    assert place.open_values(topic) == [b"replaced"], "the successor's is still open"
    successor.commit_transaction(30)
    assert place.values(topic) == [b"replaced", b"replaced"]


def test_only_the_named_client_is_struck(place: Place) -> None:
    topic = place.topic()
    place.proxy.plan(Fault(Act.CUT_BEFORE, "Produce", client="bad"))
    assert send(place.producer(**{"client.id": "good"}), topic, b"good") is None
    assert send(place.producer(**{"client.id": "bad"}), topic, b"bad") is not None
    assert place.values(topic) == [b"good"]


def test_cut_all_breaks_what_is_connected_and_lets_it_come_back(place: Place) -> None:
    topic, producer = place.topic(), place.producer()
    assert send(producer, topic, b"a") is None
    assert place.proxy.cut_all() >= 1
    assert send(producer, topic, b"b") is None
    assert place.values(topic) == [b"a", b"b"]


def test_freeze_stops_both_ways_and_breaks_nothing(place: Place) -> None:
    topic, producer = place.topic(), place.producer()
    assert send(producer, topic, b"a") is None
    start = time.monotonic()
    place.proxy.freeze(2.0)
    assert send(producer, topic, b"b") is None
    assert time.monotonic() - start >= 2.0
    assert place.values(topic) == [b"a", b"b"]


def test_clients_come_back_with_kafka(place: Place) -> None:
    topic = place.topic()
    producer = place.producer(**{"message.send.max.retries": 1000})
    place.servers.kill_kafka()
    place.servers.restart_kafka()
    assert send(producer, topic, b"a", 60) is None
    assert place.values(topic) == [b"a"]


def test_an_unknown_kind_is_refused(place: Place) -> None:
    with pytest.raises(ValueError, match="EndTransaction"):
        place.proxy.plan(Fault(Act.HOLD, "EndTransaction"))


def test_names_are_read_in_both_forms() -> None:
    plain = b"\x00\x1a\x00\x01\x00\x00\x00\x07\x00\x02me\x00\x03txn" + bytes(11)
    flexible = b"\x00\x1a\x00\x03\x00\x00\x00\x08\xff\xff\x00\x04txn" + bytes(12)
    assert parse(plain) == Request("EndTxn", 1, 7, "me", "txn")
    assert parse(flexible) == Request("EndTxn", 3, 8, "", "txn")
