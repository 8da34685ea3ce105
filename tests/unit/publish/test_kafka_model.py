"""The model says of Kafka and its client what their sources and measurements say."""

from __future__ import annotations

import pytest
from model.client import NOWHERE, Client, Fatal, Refused
from model.kafka import (
    LAST_EPOCH,
    OFFSETS,
    AddPartitions,
    CommitOffsets,
    EndTxn,
    Error,
    Identity,
    Init,
    Kafka,
    Partition,
    Produce,
    Reply,
)
from model.world import Fault, Kind, World

SLOT = "one"


def kafka(*places: int) -> tuple[Kafka, Identity]:
    """A Kafka of two partitions and a producer with a transaction that holds some of them."""
    servers = Kafka([Partition(), Partition()])
    who = servers.handle(Init(SLOT)).who
    assert who is not None
    if places:
        assert servers.handle(AddPartitions(SLOT, who, places)) == Reply()
    return servers, who


def end(servers: Kafka, who: Identity, commit: bool = True) -> Reply:
    reply = servers.handle(EndTxn(SLOT, who, commit))
    servers.write_marks()
    return reply


def test_a_partition_without_state_takes_any_first_sequence() -> None:
    servers, who = kafka(0)
    assert servers.handle(Produce(SLOT, who, 0, 3, "d")).error is None
    assert servers.handle(Produce(SLOT, who, 0, 0, "a")).error is Error.OUT_OF_ORDER
    assert servers.handle(Produce(SLOT, who, 0, 4, "e")).error is None


def test_state_is_lost_only_without_an_open_transaction() -> None:
    servers, who = kafka(0)
    servers.handle(Produce(SLOT, who, 0, 0, "a"))
    servers.partitions[0].forget()
    assert servers.handle(Produce(SLOT, who, 0, 5, "f")).error is Error.OUT_OF_ORDER
    end(servers, who)
    servers.partitions[0].forget()
    servers.handle(AddPartitions(SLOT, who, (0,)))
    assert servers.handle(Produce(SLOT, who, 0, 5, "f")).error is None


def test_a_repeat_is_answered_as_the_first_time() -> None:
    servers, who = kafka(0)
    first = servers.handle(Produce(SLOT, who, 0, 0, "a"))
    servers.handle(Produce(SLOT, who, 0, 1, "b"))
    assert servers.handle(Produce(SLOT, who, 0, 0, "a")) == first
    assert [entry.record for entry in servers.partitions[0].log] == ["a", "b"]


def test_a_new_epoch_starts_at_the_first_sequence() -> None:
    servers, who = kafka(0)
    servers.handle(Produce(SLOT, who, 0, 0, "a"))
    end(servers, who)
    newer = servers.handle(Init(SLOT)).who
    assert newer is not None
    servers.handle(AddPartitions(SLOT, newer, (0,)))
    assert servers.handle(Produce(SLOT, newer, 0, 1, "b")).error is Error.OUT_OF_ORDER
    assert servers.handle(Produce(SLOT, newer, 0, 0, "b")).error is None
    assert servers.handle(Produce(SLOT, who, 0, 1, "late")).error is Error.FENCED


def test_a_record_outside_of_a_transaction_is_refused() -> None:
    servers, who = kafka(0)
    assert servers.handle(Produce(SLOT, who, 1, 0, "a")).error is Error.INVALID_STATE
    servers.verifies = False
    assert servers.handle(Produce(SLOT, who, 1, 0, "a")).error is None


def test_a_late_end_ends_the_next_transaction_of_the_same_epoch() -> None:
    servers, who = kafka(0)
    servers.handle(Produce(SLOT, who, 0, 0, "a"))
    assert end(servers, who) == end(servers, who) == Reply()
    assert end(servers, who, commit=False).error is Error.INVALID_STATE
    servers.handle(AddPartitions(SLOT, who, (0,)))
    servers.handle(Produce(SLOT, who, 0, 1, "b"))
    end(servers, who)
    assert servers.partitions[0].committed() == ["a", "b"]


def test_a_successor_aborts_what_is_open_and_fences_what_is_late() -> None:
    servers, who = kafka(0)
    servers.handle(Produce(SLOT, who, 0, 0, "a"))
    assert servers.handle(Init(SLOT)).error is Error.CONCURRENT
    assert servers.handle(Init(SLOT)).error is Error.CONCURRENT, "until the marks are written"
    servers.write_marks()
    assert servers.handle(Init(SLOT)).who == Identity(who.producer, who.epoch + 2)
    assert end(servers, who).error is Error.FENCED
    assert servers.partitions[0].committed() == []


def test_when_epochs_run_out_there_is_a_new_producer() -> None:
    servers, who = kafka()
    seen = [servers.handle(Init(SLOT)).who for _ in range(LAST_EPOCH + 1)]
    assert seen[-2] == Identity(who.producer, LAST_EPOCH)
    assert seen[-1] == Identity(who.producer + 1, 0)


def test_the_next_transaction_waits_for_the_marks_of_the_last() -> None:
    servers, who = kafka(0)
    servers.partitions[0].leader_from = 5
    end(servers, who)
    assert servers.handle(AddPartitions(SLOT, who, (1,))).error is Error.CONCURRENT
    servers.moment = 5
    servers.write_marks()
    assert servers.handle(AddPartitions(SLOT, who, (1,))) == Reply()


@pytest.mark.parametrize("commit", [True, False])
def test_a_position_is_stable_once_its_transaction_has_ended(commit: bool) -> None:
    servers, who = kafka(OFFSETS)
    generation = servers.group.join(SLOT)
    assert servers.handle(CommitOffsets(SLOT, who, 3, generation)) == Reply()
    assert servers.group.stable is None
    end(servers, who, commit)
    assert servers.group.stable == (3 if commit else 0)


def test_a_generation_that_is_over_commits_nothing() -> None:
    servers, who = kafka(OFFSETS)
    generation = servers.group.join(SLOT)
    assert servers.group.join(SLOT) == generation
    servers.group.join("other")
    assert servers.handle(CommitOffsets(SLOT, who, 3, generation)).error is Error.ILLEGAL_GENERATION


def client(*faults: Fault) -> Client:
    """A client within a transaction."""
    made = Client(World.fresh(2, faults), SLOT)
    made.init()
    made.begin()
    return made


def test_what_a_later_success_implies_is_reported_without_an_offset() -> None:
    made = client(Fault(0, Kind.NOT_LEADER, 2, Produce))
    assert made.send([(0, "a"), (0, "b"), (0, "c")]) == {(0, "a"): NOWHERE, (0, "b"): NOWHERE, (0, "c"): 0}


@pytest.mark.parametrize("kind", [Kind.LOST, Kind.UNANSWERED, Kind.LATE])
@pytest.mark.parametrize("extent", [2, 3])
def test_a_broken_connection_costs_and_doubles_no_record(kind: Kind, extent: int) -> None:
    made = client(Fault(5, kind, extent, Produce))
    assert made.send([(0, "a"), (0, "b"), (0, "c")]) == {(0, "a"): 0, (0, "b"): 1, (0, "c"): 2}
    made.world.settle()
    assert [entry.record for entry in made.world.kafka.partitions[0].log] == ["a", "b", "c"]


def test_a_broken_connection_is_told_once() -> None:
    made = client(Fault(0, Kind.LOST, 1, Produce), Fault(0, Kind.LOST, 1, Produce))
    made.send([(0, "a")])
    assert [made.news(), made.news()] == [True, False]
    made = client(Fault(0, Kind.LOST, 1, Produce), Fault(4, Kind.LOST, 1, EndTxn))
    made.send([(0, "a")])
    assert made.news()
    made.end(commit=True)
    assert not made.news()


def test_a_refused_record_ends_in_an_abort_and_a_new_epoch() -> None:
    made = client(Fault(0, Kind.REFUSED, 1, Produce))
    with pytest.raises(Refused):
        made.send([(0, "a"), (0, "b")])
    made.end(commit=False)
    made.begin()
    assert made.send([(0, "c")]) == {(0, "c"): 0}


def test_a_fenced_client_is_of_no_more_use() -> None:
    made = client()
    made.world.kafka.handle(Init(SLOT))
    with pytest.raises(Fatal):
        made.send([(0, "a")])
