"""A worker is ready while it finishes steps, whatever else it does."""

from __future__ import annotations

from broker.run.progress import BATCH_S, QUIET_S, Progress


class Clock:
    """A time that passes when it is told to."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def made() -> tuple[Clock, Progress]:
    clock = Clock()
    return clock, Progress(clock)


def test_a_worker_that_finds_nothing_to_read_is_ready() -> None:
    clock, progress = made()
    for _ in range(100):
        clock.at += QUIET_S / 2
        progress.step()
    assert (progress.ready, progress.trouble) == (True, "")


def test_a_worker_that_hangs_in_a_call_is_not() -> None:
    clock, progress = made()
    clock.at += QUIET_S
    assert not progress.ready
    assert progress.trouble == "no batch was finished for 10 s"


def test_a_batch_may_take_longer_but_not_for_ever() -> None:
    clock, progress = made()
    progress.work()
    clock.at += BATCH_S - 1
    assert progress.ready
    clock.at += 1
    assert not progress.ready


def test_doing_a_batch_again_and_again_is_no_progress() -> None:
    clock, progress = made()
    for _ in range(5):
        clock.at += QUIET_S / 4
        progress.work()
        progress.hold_up("Redis does not answer")
    assert (progress.ready, progress.trouble) == (False, "Redis does not answer")
    progress.step()
    assert (progress.ready, progress.trouble) == (True, "")
