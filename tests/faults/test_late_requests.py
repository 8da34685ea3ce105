"""Requests of one transaction that reach Kafka after its client gave up on them must not touch the next.

A proxy cuts the connection and hands the request on seconds later. What is asserted is read back
read_committed by a reader that goes past the proxy, and compared with what the output said of each batch.
"""

from __future__ import annotations

import signal
import threading
import time
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, TopicPartition
from harness import read_all, wait_until
from kafka_proxy import Act, Fault, KafkaProxy, servers_behind_proxy

from broker.config import Settings, load
from broker.embedded import OwnedServers
from broker.errors import RetryBatch, WorkerFenced
from broker.kafka.clients import admin, create_topics, reader
from broker.kafka.topics import LEDGER, TopicSpec
from broker.message import Packet
from broker.publish.kafka import KafkaOutput

LATE_S = 3.0
PARTITIONS = 3
BATCH = 30


class Wire:
    """Servers of the module's own; `slow` goes through the proxy, `straight` past it."""

    def __init__(self, proxy: KafkaProxy, servers: OwnedServers) -> None:
        self.proxy, self.servers = proxy, servers
        self.straight = straight = servers.addresses.bootstrap_servers
        self.slow: Settings = load({"kafka.bootstrap_servers": proxy.bootstrap_servers}, env={}, path=None)
        ours = load({"kafka.bootstrap_servers": straight}, env={}, path=None)
        self.kafka = ours.kafka
        create_topics(admin(self.kafka), [TopicSpec(LEDGER, 1, 1, ())])


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with servers_behind_proxy(valkey=False) as (servers, proxy):
        yield Wire(proxy, servers)


class Batches:
    """An input of numbers, copied to an output batch by batch as a worker does it."""

    def __init__(self, wire: Wire) -> None:
        name = uuid.uuid4().hex[:8]
        self.wire, self.source, self.out, self.group = wire, f"in-{name}", f"out-{name}", f"group-{name}"
        create_topics(
            admin(wire.kafka), [TopicSpec(self.source, 1, 1, ()), TopicSpec(self.out, PARTITIONS, 1, ())]
        )
        self.consumer: Consumer = reader(wire.slow.kafka, **{"group.id": self.group})
        self.output = KafkaOutput(wire.slow.kafka, f"slot-{name}")
        self.position = 0
        self.retries = 0

    def next(self) -> None:
        """Publish the next batch, however often it must be done again from the committed position."""
        goal = self.position + BATCH
        while self.position < goal:
            part = TopicPartition(self.source, 0, goal)
            values = [b"%d" % number for number in range(self.position, goal)]
            packets = [Packet(self.out, value, value) for value in values]
            try:
                self.output.transact(packets, [([part], self.consumer.consumer_group_metadata())])
                self.position = goal
            except RetryBatch:
                self.retries += 1
                self.again()

    def next_by_anybody(self) -> None:
        """The same, by a successor of the slot if this worker is ended."""
        try:
            self.next()
        except WorkerFenced:
            self.output.close()
            self.output = KafkaOutput(self.wire.slow.kafka, f"slot-{self.out[4:]}")
            self.position = max(0, self.committed())

    def again(self) -> None:
        """Go back to where the committed position is."""
        deadline = time.monotonic() + 60
        while True:
            assert time.monotonic() < deadline, "the output was not settled"
            try:
                self.output.settle()
                break
            except RetryBatch:
                time.sleep(0.2)
        self.position = max(0, self.committed())

    def committed(self) -> int:
        """The position as Kafka has it."""
        client = reader(self.wire.kafka, **{"group.id": self.group})
        try:
            return int(client.committed([TopicPartition(self.source, 0)], timeout=30)[0].offset)
        finally:
            client.close()

    def check(self) -> None:
        """Everything up to the committed position is there once, and nothing else."""
        values = sorted(int(record.value()) for record in read_all(self.wire.straight, self.out))
        assert values == list(range(self.position))
        assert self.committed() == self.position

    def close(self) -> None:
        self.output.close()
        self.consumer.close()


@pytest.fixture
def batches(wire: Wire) -> Iterator[Batches]:
    wire.proxy.clear()
    made = Batches(wire)
    yield made
    wire.proxy.clear()
    made.close()


KINDS = ("EndTxn", "TxnOffsetCommit", "Produce", "AddPartitionsToTxn", "AddOffsetsToTxn")
LATE = [(kind, 0.5) for kind in KINDS] + [("EndTxn", LATE_S)]
VERY_LATE = [(kind, seconds) for kind in KINDS for seconds in (0.05, 1.0, LATE_S, 8.0)]


@pytest.mark.parametrize(
    ("kind", "seconds"), LATE + [pytest.param(*case, marks=pytest.mark.soak) for case in VERY_LATE]
)
def test_a_late_request_does_not_touch_the_transactions_after_it(
    wire: Wire, batches: Batches, kind: str, seconds: float
) -> None:
    batches.next()
    deeds = len(wire.proxy.deeds)
    for _ in range(3):
        wire.proxy.plan(Fault(Act.LATE, kind, seconds=seconds))
        until = time.monotonic() + seconds + 0.5
        while time.monotonic() < until:  # batches before, while and after it arrives
            batches.next()
    wait_until(lambda: len(wire.proxy.deeds) >= deeds + 3, "the late requests arrived", 30)
    batches.next()
    batches.check()


@pytest.mark.parametrize("act", [Act.CUT_BEFORE, Act.CUT_AFTER, Act.DROP, Act.HOLD])
@pytest.mark.parametrize("kind", ["EndTxn", "TxnOffsetCommit", "Produce", "AddPartitionsToTxn"])
def test_a_broken_request_costs_a_batch_at_most_a_repeat(
    wire: Wire, batches: Batches, act: Act, kind: str
) -> None:
    batches.next()
    wire.proxy.plan(Fault(act, kind, seconds=1.0))
    for _ in range(5):
        batches.next()
    batches.check()


def test_a_wire_frozen_beyond_every_timeout_ends_the_worker_or_goes_on(wire: Wire, batches: Batches) -> None:
    """The coordinator aborts the transaction meanwhile; a successor of the slot goes on after it."""
    batches.next()
    for seconds in (4.0, 11.0):
        wire.proxy.freeze(seconds)
        batches.next_by_anybody()
        batches.next()
    batches.check()


@pytest.mark.parametrize("away", ["dead", "silent"])
def test_a_kafka_that_is_away_for_long_costs_a_worker_at_most(
    wire: Wire, batches: Batches, away: str
) -> None:
    """Longer than a transaction may last: the batch goes out when Kafka is back.

    A Kafka that was only stopped may abort the transaction as too old before the client does, which then
    fails for good, and a successor goes on.
    """
    batches.next()
    wire.servers.kill_kafka(signal.SIGKILL if away == "dead" else signal.SIGSTOP)
    back = wire.servers.restart_kafka if away == "dead" else lambda: wire.servers.kill_kafka(signal.SIGCONT)
    timer = threading.Timer(15.0, back)
    timer.start()
    batches.next_by_anybody()
    timer.join()
    batches.next()
    batches.check()


def test_a_second_process_in_the_slot_ends_the_first(wire: Wire, batches: Batches) -> None:
    batches.next()
    second = KafkaOutput(wire.kafka, f"slot-{batches.out[4:]}")
    with pytest.raises(WorkerFenced, match="for good"):
        batches.next()
    with pytest.raises(WorkerFenced):
        batches.output.settle()
    batches.output.close()
    batches.output.close()
    second.close()
    batches.check()
