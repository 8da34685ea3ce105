"""Exactly once through thousands of schedules of faults, and what breaks when a mend is taken out.

Schedules are numbered: a failure names the smallest schedule with its story, and comes again.
"""

from __future__ import annotations

from collections import Counter
from textwrap import fill

import pytest
from model.explorer import Schedule, drawn, explore, run, story
from model.kafka import AddPartitions, CommitOffsets, EndTxn, Init, Produce
from model.worker import WHOLE, Mends
from model.world import PRODUCED, REQUESTS, WIRE, Fault, Kind

SCHEDULES = 12_000
ENOUGH_TO_BREAK = 40_000
"""Of these a mend's absence is found; it takes a few hundred at most, but which ones is a matter of dice."""

FRESH = Schedule(4, (Fault(1, Kind.NOT_LEADER, 2, Produce),))
"""The leader of a new partition refuses two requests and takes those in flight behind them."""
FORGOTTEN = Schedule(3, (Fault(26, Kind.FORGOTTEN, 1), Fault(29, Kind.NOT_LEADER, 2, Produce)))
"""A partition has forgotten a producer that has not: the same again, without a new partition."""
LATE_COMMIT = Schedule(4, (Fault(9, Kind.LATE, 11, EndTxn),))
"""A commit is repeated after a broken connection, and the first try arrives in the next transaction."""
LATE_ABORT = Schedule(2, (Fault(14, Kind.TIMED_OUT, 3, CommitOffsets), Fault(15, Kind.LATE, 15, EndTxn)))
"""The same with an abort."""
TROUBLED_START = Schedule(
    2,
    (
        Fault(14, Kind.LOST, 1, CommitOffsets),
        Fault(20, Kind.LOST, 1, Init),
        Fault(24, Kind.LATE, 10, EndTxn),
    ),
)
"""The second of these breaks is told, the third is not, for it is identical and the client the same."""


@pytest.fixture(scope="module")
def met() -> Counter[str]:
    """How many schedules met what, if none broke the promise."""
    counted, broken = explore(range(SCHEDULES))
    assert broken is None, story(broken)
    return counted


def test_no_schedule_loses_or_doubles_a_record_or_stands_still(
    met: Counter[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert met["schedules"] == SCHEDULES >= 10_000
    with capsys.disabled():
        print(fill(", ".join(f"{count:,} {what}" for what, count in met.most_common()), 110))


@pytest.mark.parametrize("kind", Kind)
def test_every_fault_came_to_pass(met: Counter[str], kind: Kind) -> None:
    requests = REQUESTS if kind in WIRE else (Produce,) if kind in PRODUCED else (None,)
    for request in requests:
        assert met[f"{kind.name} {request.__name__}" if request else kind.name] > 50


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("how", ["taken", "refused"])
def test_late_requests_of_every_kind_arrived(met: Counter[str], request_: type, how: str) -> None:
    assert met[f"late {request_.__name__} {how}"] > 50


@pytest.mark.parametrize(
    "what",
    [
        *("FIRSTS REFUSED", "FIRSTS FATAL", "REST REFUSED", "REST LOST", "REST FATAL"),
        *("OFFSETS REFUSED", "OFFSETS FATAL", "COMMIT REFUSED", "COMMIT FATAL"),
        *("ABORT REFUSED", "ABORT FATAL", "RENEW REFUSED", "report without an offset"),
    ],
)
def test_every_answer_was_given(met: Counter[str], what: str) -> None:
    assert met[what] > 5


@pytest.mark.parametrize(
    ("mends", "words"),
    [
        (Mends(firsts=False, guard=False), ["lost"]),
        (Mends(guard=False), ["lost"]),
        (Mends(trouble=False), ["lost", "doubled"]),
        (Mends(late=2), ["lost", "doubled"]),
        (Mends(verification=False), ["lost", "doubled", "stands still"]),
        (Mends(stable=False), ["doubled"]),
    ],
    ids=["fault-1", "firsts-alone", "fault-2", "told-too-late", "no-verification", "unstable-position"],
)
def test_without_a_mend_the_promise_breaks(mends: Mends, words: list[str]) -> None:
    _, broken = explore(range(ENOUGH_TO_BREAK), mends)
    assert broken is not None
    outcome = run(broken, mends)
    assert any(word in outcome.broken for word in words), story(broken, mends)
    assert not run(broken).broken, "with the mend the same schedule is harmless"


@pytest.mark.parametrize("mends", [Mends(firsts=False), Mends(late=1)], ids=["guard-alone", "told-late"])
def test_what_the_promise_does_not_rest_on(mends: Mends) -> None:
    """The guard alone keeps it, firsts spare aborts; trouble may be told as late as at the next batch."""
    _, broken = explore(range(SCHEDULES // 2), mends)
    assert broken is None, story(broken, mends)


@pytest.mark.parametrize(
    ("schedule", "mends", "loss"),
    [
        (FRESH, Mends(firsts=False, guard=False), "partition 0: lost 0a, 0b"),
        (FORGOTTEN, Mends(guard=False), "partition 0: lost 3a, 3b"),
        (LATE_COMMIT, Mends(trouble=False), "doubled"),
        (LATE_ABORT, Mends(trouble=False), "lost"),
    ],
    ids=["fresh", "forgotten", "late-commit", "late-abort"],
)
def test_known_faults_in_their_smallest_form(schedule: Schedule, mends: Mends, loss: str) -> None:
    assert loss in run(schedule, mends).broken, story(schedule, mends)
    assert not run(schedule).broken, story(schedule)


def test_firsts_alone_keep_a_new_partition_whole() -> None:
    assert not run(FRESH, Mends(guard=False)).broken
    assert run(FRESH, Mends(firsts=False)).met["REST LOST"] == 1
    assert run(FRESH).met["REST LOST"] == 0


def test_trouble_at_a_producers_start_is_kept() -> None:
    outcome = run(TROUBLED_START)
    assert outcome.met["late EndTxn refused"] == 1, story(TROUBLED_START)
    assert not outcome.broken


@pytest.mark.parametrize("request_", [AddPartitions, Produce, CommitOffsets, Init, EndTxn])
def test_one_late_request_is_harmless_whenever_it_arrives(request_: type) -> None:
    for moment in range(0, 70, 2):
        for moments in range(1, 40, 3):
            schedule = Schedule(3, (Fault(moment, Kind.LATE, moments, request_),))
            assert not run(schedule).broken, story(schedule)


def test_a_kill_at_any_moment_is_harmless() -> None:
    for moment in range(70):
        schedule = Schedule(3, (Fault(moment, Kind.KILLED, 1),))
        outcome = run(schedule)
        assert outcome.met["KILLED"] == 1
        assert not outcome.broken, story(schedule)


def test_a_number_is_a_schedule() -> None:
    assert drawn(7) == drawn(7) != drawn(8)
    assert run(drawn(7)) == run(drawn(7))
    assert story(drawn(7)).startswith(f"batches of {drawn(7).batch}\nfrom moment ")


def test_an_undisturbed_run_needs_no_mend() -> None:
    calm = Schedule(3, ())
    assert not run(calm).broken
    assert not run(calm, Mends(firsts=False, guard=False, trouble=False)).broken
    assert run(calm, WHOLE).met["RENEW DONE"] == 2, "one for the run, one for the look at its end"
