"""A consumer group's member on real Kafka: what is held stays away, and comes again in its order."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from uuid import uuid4

import pytest
from confluent_kafka import Producer, TopicPartition
from harness import wait_until

from broker.config import Settings
from broker.errors import RetryBatch, WorkerFenced
from broker.ingest.kafka import KafkaInput, Polled
from broker.kafka.clients import admin, create_topics, writer
from broker.kafka.topics import TopicSpec

COUNT = 3000
Seen = dict[int, list[int]]
"""Offsets that came, by partition."""


class Topic:
    """A topic of two partitions that is full of numbered messages, and a group that reads it."""

    def __init__(self, settings: Settings) -> None:
        self.name = f"held-{uuid4().hex[:8]}"
        self.kafka = settings.kafka
        self.run = replace(settings.run, topics=(self.name,), group=self.name, poll_ms=50, batch_max=200)
        create_topics(admin(settings.kafka), [TopicSpec(self.name, 2, 1, ())])
        self.fill(COUNT)

    def fill(self, count: int) -> None:
        """More messages, as many in each partition."""
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers})
        for _ in range(count):
            for partition in (0, 1):
                producer.produce(self.name, bytes(300), partition=partition)
            producer.poll(0)
        assert producer.flush(60) == 0

    def commit(self, source: KafkaInput, polled: Polled) -> None:
        """Commit a batch, as a worker does."""
        producer = writer(self.kafka, **{"transactional.id": uuid4().hex})
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.send_offsets_to_transaction(KafkaInput.offsets(polled), source.metadata())
        producer.commit_transaction()

    def key(self, partition: int) -> tuple[str, int]:
        return self.name, partition


@pytest.fixture
def topic(settings: Settings) -> Topic:
    return Topic(settings)


@pytest.fixture
def join(topic: Topic) -> Iterator[Callable[[str], KafkaInput]]:
    """Makes members of the topic's group, and closes them."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(closing(KafkaInput(topic.kafka, topic.run, name)))


def note(seen: Seen, polled: Polled) -> None:
    for message in polled.messages:
        seen[message.partition].append(message.offset)


def poll_until(source: KafkaInput, seen: Seen, condition: Callable[[], bool], what: str) -> None:
    """Read until something is so."""

    def step() -> bool:
        note(seen, source.poll())
        return condition()

    wait_until(step, what)


def hold_at(source: KafkaInput, topic: Topic, seen: Seen, partition: int) -> int:
    """Hold a partition in the middle of a batch; the offset at which it is held."""
    while True:
        polled = source.poll()
        mine = [m.offset for m in polled.messages if m.partition == partition]
        if len(mine) < 2:
            note(seen, polled)
            continue
        at = mine[len(mine) // 2]
        left = source.hold(polled, {topic.key(partition): at})
        note(seen, left)
        assert [m.offset for m in left.messages if m.partition == partition] == mine[: len(mine) // 2]
        assert [item.after for item in left.ranges if item.partition == partition] == [at]
        others = [m for m in polled.messages if m.partition != partition]
        assert [m for m in left.messages if m.partition != partition] == others
        return at


def test_a_held_partition_brings_nothing_and_then_goes_on_where_it_was(
    topic: Topic, join: Callable[[str], KafkaInput]
) -> None:
    source, seen = join("a"), defaultdict(list)
    at = hold_at(source, topic, seen, 0)
    poll_until(source, seen, lambda: len(seen[1]) == COUNT, "the other partition is read")
    topic.fill(10)
    poll_until(source, seen, lambda: len(seen[1]) == COUNT + 10, "the other partition goes on")
    assert seen[0] == list(range(at))
    assert source.owns(topic.key(0))
    source.release(topic.key(0))
    poll_until(source, seen, lambda: len(seen[0]) == COUNT + 10, "the held partition is read")
    assert seen == {partition: list(range(COUNT + 10)) for partition in (0, 1)}
    source.release(topic.key(0))
    assert not source.poll()


def test_the_ranges_of_a_held_partition_have_no_hole(topic: Topic, join: Callable[[str], KafkaInput]) -> None:
    source, ranges = join("a"), defaultdict(list)
    held_at = 0

    def step() -> bool:
        nonlocal held_at
        polled = source.poll()
        ahead = [m.offset for m in polled.messages if m.partition == 0 and m.offset >= held_at + 170]
        if ahead:
            held_at = ahead[0]
            polled = source.hold(polled, {topic.key(0): held_at})
            source.release(topic.key(0))
        for item in polled.ranges:
            ranges[item.partition].append((item.before, item.after, item.expired))
        return all(spans and spans[-1][1] == COUNT for spans in (ranges[0], ranges[1]))

    wait_until(step, "everything is read")
    assert held_at > COUNT // 2, "it was held again and again"
    for spans in ranges.values():
        assert [before for before, _, _ in spans] == [0, *(after for _, after, _ in spans[:-1])]
        assert all(expired == 0 for _, _, expired in spans)


def test_a_rewind_ends_the_holding(topic: Topic, join: Callable[[str], KafkaInput]) -> None:
    source, seen = join("a"), defaultdict(list)
    hold_at(source, topic, seen, 0)
    source.rewind()
    again: Seen = defaultdict(list)
    poll_until(source, again, lambda: len(again[0]) + len(again[1]) == 2 * COUNT, "all is read again")
    assert again == {partition: list(range(COUNT)) for partition in (0, 1)}


def test_a_held_partition_that_goes_to_another_and_comes_back_is_read_there_and_here(
    topic: Topic, join: Callable[[str], KafkaInput]
) -> None:
    first, seen = join("a"), defaultdict(list)
    held: dict[tuple[str, int], int] = {}
    while len(held) < 2:
        polled = first.poll()
        new = {(m.topic, m.partition): m.offset for m in reversed(polled.messages)}
        if new:
            held |= new
            assert not first.hold(polled, new)
    with closing(KafkaInput(topic.kafka, topic.run, "b")) as second:
        theirs: Seen = defaultdict(list)

        def both() -> bool:
            assert not first.poll()
            note(theirs, second.poll())
            return sum(map(len, theirs.values())) == COUNT

        wait_until(both, "one partition moves and is read by its new owner")
        (moved,) = theirs
        assert theirs == {moved: list(range(COUNT))}
        assert not first.owns(topic.key(moved))
        assert first.owns(topic.key(1 - moved))
    first.release(topic.key(moved))
    poll_until(first, seen, lambda: len(seen[moved]) == COUNT, "it comes back and is read from its commit")
    assert seen == {moved: list(range(COUNT))}, "the other one is held all the time"
    first.release(topic.key(1 - moved))
    poll_until(first, seen, lambda: len(seen[1 - moved]) == COUNT, "the other one is let go")
    assert first._consumer.committed([TopicPartition(*topic.key(0))])[0].offset < 0


def test_what_was_committed_of_a_held_partition_is_all_before_it(
    topic: Topic, join: Callable[[str], KafkaInput]
) -> None:
    source = join("a")
    polled = source.poll()
    while not any(m.partition == 0 for m in polled.messages):
        polled = source.poll()
    first = next(m.offset for m in polled.messages if m.partition == 0)
    left = source.hold(polled, {topic.key(0): first + 7})
    topic.commit(source, left)
    source.rewind()
    seen: Seen = defaultdict(list)
    poll_until(source, seen, lambda: len(seen[0]) == COUNT - first - 7, "it is read from its commit")
    assert seen[0] == list(range(first + 7, COUNT))


def test_a_member_whose_place_is_taken_ends(join: Callable[[str], KafkaInput]) -> None:
    """A consumer says so once, in a message whose error is not marked as fatal."""
    first = join("a")
    seen: Seen = defaultdict(list)
    poll_until(first, seen, lambda: bool(seen), "the first member has messages")
    second = join("a")
    poll_until(second, defaultdict(list), lambda: second.assigned, "the second has its place")
    with pytest.raises(WorkerFenced, match=r"group\.instance\.id"):
        wait_until(lambda: first.poll() is None, "the first sees it", 20)


def test_a_member_whose_place_is_taken_ends_while_it_tries_to_go_back(
    join: Callable[[str], KafkaInput],
) -> None:
    """It does not poll then, and only who polls is told what the group has decided."""
    first = join("a")
    seen: Seen = defaultdict(list)
    poll_until(first, seen, lambda: bool(seen), "the first member has messages")
    second = join("a")
    poll_until(second, defaultdict(list), lambda: second.assigned, "the second has its place")

    def ended() -> bool:
        with suppress(RetryBatch):
            first.rewind()
        return False

    with pytest.raises(WorkerFenced, match=r"group\.instance\.id"):
        wait_until(ended, "the first sees it", 20)


def test_a_member_that_polled_too_late_goes_on_at_the_committed_offsets(
    topic: Topic, join: Callable[[str], KafkaInput]
) -> None:
    topic.kafka = replace(topic.kafka, options=(("max.poll.interval.ms", "6000"),))
    counted: list[str] = []
    with closing(KafkaInput(topic.kafka, topic.run, "a")) as source:
        source.faults.count = counted.append
        seen: Seen = defaultdict(list)
        poll_until(source, seen, lambda: len(seen) == 2, "messages of both partitions come")
        time.sleep(8.0)
        again: Seen = defaultdict(list)
        poll_until(
            source, again, lambda: all(0 in again[part] for part in (0, 1)), "they come again from the start"
        )
        for offsets in again.values():
            first = offsets[offsets.index(0) :]
            assert first == list(range(len(first))), "in order, with nothing of before among them"
    assert counted == ["_MAX_POLL_EXCEEDED"]
    assert source.faults.trouble == ""
