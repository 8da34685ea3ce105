"""What counts as delivered, and which records go first; the client stands in where Kafka cannot be asked."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from confluent_kafka import KafkaError, KafkaException

from broker.config import KafkaSettings
from broker.kafka import delivery
from broker.kafka.delivery import (
    ANY_PARTITION,
    FreshPartitions,
    RecordProducer,
    Reports,
    delivered,
    murmur2,
    reporting,
)
from broker.kafka.faults import is_fatal
from broker.message import Packet

HOUR = 3600.0


@dataclass
class Report:
    """A record as a report names it."""

    offset_: int | None
    topic_: str = "t"
    partition_: int = 0

    def offset(self) -> int | None:
        return self.offset_

    def topic(self) -> str:
        return self.topic_

    def partition(self) -> int:
        return self.partition_


class Cluster:
    """Numbers of partitions, and how often they were asked for."""

    def __init__(self, **counts: int) -> None:
        self.counts, self.looks, self.now = dict(counts), 0, 0.0

    def __call__(self) -> dict[str, int]:
        self.looks += 1
        return dict(self.counts)

    def fresh(self) -> FreshPartitions:
        return FreshPartitions(self, lambda: self.now)


def packets(topic: str, *keys: bytes | None) -> list[Packet]:
    return [Packet(topic, key, b"") for key in keys]


def answer_all(fresh: FreshPartitions, topic: str, partitions: int) -> None:
    fresh.answer([(topic, number) for number in range(partitions)])


@pytest.mark.parametrize(
    ("error", "offset", "expected"),
    [
        (None, 0, True),
        (None, 7, True),
        (None, None, False),
        (None, -1, False),
        (KafkaError(KafkaError._MSG_TIMED_OUT), 7, False),
        (KafkaError(KafkaError._MSG_TIMED_OUT), None, False),
    ],
)
def test_a_delivery_is_a_report_with_an_offset(
    error: KafkaError | None, offset: int | None, expected: bool
) -> None:
    assert delivered(error, Report(offset)) is expected  # type: ignore[arg-type]


def test_no_setting_keeps_reports_from_us() -> None:
    given = KafkaSettings(options=(("delivery.report.only.error", "true"), ("linger.ms", "7")))
    assert reporting(given).options == (("linger.ms", "7"),)


def test_reports_are_complete_when_each_record_has_one_with_an_offset() -> None:
    reports = Reports()
    reports.awaited = 3
    reports(None, Report(4))  # type: ignore[arg-type]
    reports(None, Report(None, "gone"))  # type: ignore[arg-type]
    assert not reports.complete
    assert reports.nowhere == {"gone"}
    reports(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), Report(None, "narrow"))  # type: ignore[arg-type]
    assert list(reports.errors) == ["narrow"]
    reports = Reports()
    reports.awaited = 2
    reports(None, Report(4))  # type: ignore[arg-type]
    assert not reports.complete
    reports(None, Report(5))  # type: ignore[arg-type]
    assert reports.complete


@pytest.mark.parametrize("code", [-150, -144, 47, 90, 82])
def test_a_client_that_failed_for_good_is_known_by_its_error(code: int) -> None:
    assert not KafkaError(code).fatal(), "which is why its code is asked"
    assert is_fatal(KafkaError(code))
    assert is_fatal(KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "made fatal", True))
    assert not is_fatal(KafkaError(KafkaError._TIMED_OUT))


def test_keys_hash_as_in_java() -> None:
    """The vectors of Kafka's own UtilsTest.murmur2, signed there."""
    expected = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        b"abc": 479470107,
    }
    assert {key: murmur2(key) for key in expected} == {key: value % 2**32 for key, value in expected.items()}


def test_the_first_record_of_each_fresh_partition_goes_first_and_order_within_it_stays() -> None:
    fresh = Cluster(t=3).fresh()
    batch = [Packet("t", b"%d" % (number % 9), b"%d" % number) for number in range(90)]
    order = fresh.order(batch)
    rest = list(order.rest)
    assert sorted(partition for _, partition in order.firsts) == [0, 1, 2]
    for partition in range(3):
        sent = [packet for packet, to in [*order.firsts, *rest] if to == partition]
        assert sent == [packet for packet in batch if murmur2(packet.key or b"") % 2**31 % 3 == partition]
    assert len(order.firsts) + len(rest) == 90


def test_keyless_records_are_spread_over_all_partitions() -> None:
    order = Cluster(t=4).fresh().order(packets("t", *[None] * 8))
    assert sorted(partition for _, partition in order.firsts) == [0, 1, 2, 3]
    assert sorted(partition for _, partition in order.rest) == [0, 1, 2, 3]


def test_a_settled_topic_is_left_to_the_producer_and_not_looked_up() -> None:
    cluster = Cluster(t=2, u=1)
    fresh = cluster.fresh()
    fresh.order(packets("t", b"a"))
    answer_all(fresh, "t", 2)
    for _ in range(5):
        order = fresh.order(packets("t", b"a", None))
        assert order.firsts == []
        assert [partition for _, partition in order.rest] == [ANY_PARTITION] * 2
    assert cluster.looks == 1
    mixed = fresh.order([*packets("t", b"a"), *packets("u", b"a", b"b")])
    assert [(packet.topic, partition) for packet, partition in mixed.firsts] == [("u", 0)]
    assert [(packet.topic, partition) for packet, partition in mixed.rest] == [("t", -1), ("u", 0)]


def test_a_partition_that_was_added_is_fresh_within_a_minute() -> None:
    cluster = Cluster(t=1)
    fresh = cluster.fresh()
    fresh.order(packets("t", b"a"))
    answer_all(fresh, "t", 1)
    assert fresh.order(packets("t", b"a")).firsts == []
    cluster.counts["t"], cluster.now = 2, 61.0
    order = fresh.order(packets("t", *[None] * 4))
    assert [partition for _, partition in order.firsts] == [1], "the old one has answered"


def test_a_topic_that_is_made_later_is_looked_up_at_once() -> None:
    cluster = Cluster(t=1)
    fresh = cluster.fresh()
    fresh.order(packets("t", b"a"))
    cluster.counts["u"] = 1
    order = fresh.order(packets("u", b"a"))
    assert order.unknown == frozenset()
    assert [partition for _, partition in order.firsts] == [0]


def test_a_topic_that_is_not_there_is_named() -> None:
    order = Cluster(t=1).fresh().order([*packets("t", b"a"), *packets("missing", b"a")])
    assert order.unknown == {"missing"}


def test_an_answer_counts_for_an_hour_only() -> None:
    cluster = Cluster(t=1)
    fresh = cluster.fresh()
    fresh.order(packets("t", b"a"))
    answer_all(fresh, "t", 1)
    cluster.now = HOUR - 1
    assert fresh.order(packets("t", b"a")).firsts == []
    cluster.now = HOUR + 1
    assert len(fresh.order(packets("t", b"a")).firsts) == 1


@pytest.mark.parametrize("how", ["lost", "deleted"])
def test_a_topic_that_lost_a_record_or_was_deleted_is_fresh_again(how: str) -> None:
    cluster = Cluster(t=1, other=1)
    fresh = cluster.fresh()
    fresh.order([*packets("t", b"a"), *packets("other", b"a")])
    answer_all(fresh, "t", 1)
    answer_all(fresh, "other", 1)
    if how == "lost":
        fresh.forget(["t"])
    else:
        del cluster.counts["t"]
        cluster.now = 61.0
        assert fresh.order(packets("t", b"a")).unknown == {"t"}
        cluster.counts["t"] = 1
    assert len(fresh.order(packets("t", b"a")).firsts) == 1
    assert fresh.order(packets("other", b"a")).firsts == []


class Client:
    """A producer whose reports are given: what a real Kafka cannot be brought to say."""

    made: list[Client]

    def __init__(self, answers: list[tuple[KafkaError | None, int | None]]) -> None:
        self.answers, self.waiting, self.sent = answers, [], []  # type: ignore[var-annotated]
        self.refuses: KafkaError | None = None

    def produce(self, topic: str, value: bytes, key: bytes | None, **options: object) -> None:
        if self.refuses is not None:
            raise KafkaException(self.refuses)
        self.sent.append(value)
        self.waiting.append((topic, options["on_delivery"]))

    def poll(self, _: float) -> None:
        waiting, self.waiting = self.waiting, []
        for topic, report in waiting:
            error, offset = self.answers.pop(0) if self.answers else (None, len(self.sent))
            report(error, Report(offset, topic))

    def flush(self, _: float) -> int:
        self.poll(0)
        return 0

    def purge(self) -> None:
        self.answers = [(KafkaError(KafkaError._PURGE_QUEUE), None)] * len(self.waiting)

    def list_topics(self, timeout: float) -> object:
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    def __len__(self) -> int:
        return len(self.waiting)


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[Client]:
    made: list[Client] = []

    def make(*_: object, **__: object) -> Client:
        made.append(Client([]))
        return made[-1]

    monkeypatch.setattr(delivery, "writer", make)
    return made


def test_a_record_without_an_offset_is_sent_again_and_counted(clients: list[Client]) -> None:
    producer, outcomes = RecordProducer(KafkaSettings()), []
    clients[0].answers = [(None, 3), (None, None), (None, 9)]
    for value in (b"a", b"b"):
        producer.send(Packet("t", None, value), lambda *outcome: outcomes.append(outcome))
    assert producer.flush(5) == 0
    assert outcomes == [(None, 3), (None, 9)]
    assert clients[0].sent == [b"a", b"b", b"b"]
    assert producer.resent == 1


def test_a_record_that_is_never_stored_is_refused_in_the_end(clients: list[Client]) -> None:
    producer, outcomes = RecordProducer(KafkaSettings()), []
    clients[0].answers = [(None, None)] * 50
    producer.send(Packet("t", None, b"a"), lambda *outcome: outcomes.append(outcome))
    assert producer.flush(5) == 0
    assert [error.code() for error, _ in outcomes] == [KafkaError._FAIL]


def test_an_error_of_the_record_is_told_and_not_tried_again(clients: list[Client]) -> None:
    producer, outcomes = RecordProducer(KafkaSettings()), []
    clients[0].answers = [(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), None)]
    producer.send(Packet("t", None, b"a"), lambda *outcome: outcomes.append(outcome))
    producer.flush(5)
    assert [error.code() for error, _ in outcomes] == [KafkaError.MSG_SIZE_TOO_LARGE]
    assert producer.resent == 0


@pytest.mark.parametrize("when", ["report", "call"])
def test_a_client_that_failed_for_good_is_replaced_and_what_it_held_is_sent(
    clients: list[Client], when: str
) -> None:
    producer, outcomes = RecordProducer(KafkaSettings()), []
    producer.send(Packet("t", None, b"a"), lambda *outcome: outcomes.append(outcome))
    if when == "report":
        clients[0].answers = [(KafkaError(KafkaError._FATAL), None)]
    else:
        clients[0].refuses = KafkaError(KafkaError._FATAL)
    producer.send(Packet("t", None, b"b"), lambda *outcome: outcomes.append(outcome))
    assert producer.flush(5) == 0
    assert len(clients) == 2
    assert [error for error, _ in outcomes] == [None, None]
    assert clients[1].sent == ([b"b"] if when == "call" else [b"a"])
