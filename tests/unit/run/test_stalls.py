"""Which partitions stand still, and whom to end for it."""

from __future__ import annotations

from broker.heartbeats import Heartbeat
from broker.run.stalls import Stalls, culprit

A, B = ("t", 0), ("t", 1)


def beat(pid: int, *owns: str) -> Heartbeat:
    return Heartbeat(f"slot-{pid}", 1, True, pid, owns=owns)


def test_a_partition_stands_still_while_its_position_does_not_move_though_records_come() -> None:
    stalls = Stalls()
    for second in range(0, 61, 5):
        stalls.look({A: 7, B: second}, {A: 10 + second, B: 10}, set(), second)
    assert stalls.longer_than(60.0, 60.0) == [A]
    stalls.look({A: 8, B: 60}, {A: 100, B: 10}, set(), 65.0)
    assert stalls.longer_than(1.0, 65.0) == [B]


def test_one_without_a_position_yet_stands_still_too() -> None:
    stalls = Stalls()
    for second in (0.0, 40.0):
        stalls.look({}, {A: 1}, set(), second)
    assert stalls.longer_than(40.0, 40.0) == [A]


def test_nothing_to_read_or_waiting_for_a_schema_is_not_standing_still() -> None:
    stalls = Stalls()
    for second in (0.0, 40.0):
        stalls.look({A: 7, B: 7}, {A: 0, B: 5}, {B}, second)
    assert stalls.longer_than(0.0, 40.0) == []


def test_time_in_which_kafka_did_not_answer_does_not_count() -> None:
    stalls = Stalls()
    stalls.look({A: 7}, {A: 1}, set(), 0.0)
    stalls.forget()
    stalls.look({A: 7}, {A: 1}, set(), 100.0)
    assert stalls.longer_than(1.0, 100.5) == []


def test_the_worker_that_has_the_partition_is_the_one_to_end() -> None:
    ours = [beat(1, "t[1]"), beat(2, "t[0]")]
    assert culprit([A], ours, []) == ours[1]


def test_where_nobody_has_it_the_oldest_is_and_where_another_run_has_it_nobody() -> None:
    ours = [beat(1, "t[1]"), beat(2)]
    assert culprit([A], ours, []) == ours[0]
    assert culprit([A], ours, [beat(9, "t[0]")]) is None
    assert culprit([A], [], []) is None
    assert culprit([], ours, []) is None
