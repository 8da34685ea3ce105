"""Pauses that grow while a worker dies young, and whether deaths repeat."""

from __future__ import annotations

import pytest

from broker.run.restarts import STUCK, Repetition, Restarts, exit_cause
from broker.watchdog import STUCK_EXIT
from broker.worker import FENCED_EXIT


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (FENCED_EXIT, "fenced"),
        (STUCK_EXIT, STUCK),
        (-9, "signal 9"),
        (-11, "signal 11"),
        (1, "error"),
        (0, "stopped"),
    ],
)
def test_why_a_worker_ended(code: int, cause: str) -> None:
    assert exit_cause(code) == cause


def test_no_pause_is_long_and_a_long_life_ends_the_row() -> None:
    restarts = Restarts()
    pauses = [restarts.pause_after(0.1) for _ in range(1000)]
    assert pauses == sorted(pauses)
    assert (pauses[0], max(pauses)) == (0.0, 5.0)
    assert [restarts.pause_after(3600.0), restarts.pause_after(0.1)] == [0.0, 0.5]


def test_deaths_that_repeat_are_told_once_and_once_when_it_is_over() -> None:
    repetition, told = Repetition(), []
    for second in range(1000):
        if second in (10, 20, 30, 40, 50, 60):
            repetition.note(second)
        if repetition.begins(second):
            told.append(("begins", second))
        if repetition.ends(second):
            told.append(("ends", second))
    assert told == [("begins", 40), ("ends", 181)]


def test_a_death_now_and_then_is_no_news() -> None:
    repetition = Repetition()
    for second in range(0, 10_000, 110):
        repetition.note(second)
        assert not repetition.begins(second)
