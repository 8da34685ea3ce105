"""Which workers are ready and which are stuck, by their heartbeats alone."""

from __future__ import annotations

from typing import Any

from broker.heartbeats import FRESH_S, Heartbeat
from broker.run.vitals import BEAT_LIMIT_S, PROGRESS_LIMIT_S, START_LIMIT_S, Vitals

EPOCH = 5_000_000.0
"""The server's clock differs from ours."""


def beat(pid: int, at: float, quiet: float = 0.0, **said: Any) -> Heartbeat:
    at += EPOCH
    return Heartbeat(f"slot-{pid}", 1, said.pop("ready", True), pid, at, since=at - quiet, **said)


def looked(vitals: Vitals, until: float, *, beats_until: float, **said: Any) -> None:
    """Look once a second at the heartbeat that process 1 sends as often."""
    for second in range(int(until) + 1):
        vitals.look(EPOCH + second, [beat(1, min(second, beats_until), **said)], [1], float(second))


def test_a_worker_that_beats_and_gets_on_is_well() -> None:
    vitals = Vitals()
    looked(vitals, 1000, beats_until=1000)
    assert vitals.ready([1], 1000.0) == {1}
    assert vitals.why_stuck(1, 1000.0, 1000.0, 1000.0) == ""
    assert vitals.ever_ready


def test_a_heartbeat_that_stops() -> None:
    vitals = Vitals()
    looked(vitals, 10 + FRESH_S, beats_until=10)
    assert vitals.ready([1], 10.0 + FRESH_S) == set()
    assert vitals.why_stuck(1, 99.0, 99.0, 10.0 + FRESH_S) == ""
    vitals = Vitals()
    looked(vitals, 11 + BEAT_LIMIT_S, beats_until=10)
    assert "heartbeat stopped" in vitals.why_stuck(1, 99.0, 99.0, 11.0 + BEAT_LIMIT_S)


def test_a_redis_that_was_away_or_a_machine_that_slept_stops_no_heartbeat() -> None:
    vitals = Vitals()
    looked(vitals, 10, beats_until=10)
    vitals.look(EPOCH + 500, [beat(1, 10.0)], [1], 500.0)
    assert vitals.why_stuck(1, 500.0, 500.0, 500.0) == ""
    assert vitals.why_stuck(1, 500.0, 500.0, 500.0 + BEAT_LIMIT_S) == "", "nothing was seen since"


def test_a_worker_that_gets_nowhere_while_all_servers_answer() -> None:
    vitals = Vitals()
    looked(vitals, 10, beats_until=10, quiet=PROGRESS_LIMIT_S + 1, ready=False, trouble="it hangs")
    assert "it hangs" in vitals.why_stuck(1, 500.0, PROGRESS_LIMIT_S + 1, 10.0)
    assert vitals.why_stuck(1, 500.0, PROGRESS_LIMIT_S - 1, 10.0) == "", "Kafka has just come back"


def test_a_worker_that_rebuilds_the_history_takes_its_time() -> None:
    vitals = Vitals()
    looked(vitals, 10, beats_until=10, quiet=10 * PROGRESS_LIMIT_S, ready=False, starting=True)
    assert vitals.why_stuck(1, 5000.0, 5000.0, 10.0) == ""


def test_a_worker_that_never_said_a_word() -> None:
    vitals = Vitals()
    vitals.look(EPOCH, [], [1], 0.0)
    assert vitals.why_stuck(1, START_LIMIT_S - 1, 5000.0, 0.0) == ""
    assert "no heartbeat" in vitals.why_stuck(1, START_LIMIT_S + 1, 5000.0, 0.0)


def test_the_old_heartbeat_of_a_slot_is_nobodys() -> None:
    vitals = Vitals()
    vitals.look(EPOCH + 50, [beat(7, 0.0)], [1], 50.0)
    assert (vitals.beats, vitals.ready([1], 50.0), vitals.ever_ready) == ((), set(), False)
