from __future__ import annotations

import threading

from broker.watchdog import STUCK_EXIT, Watchdog


def test_a_call_that_never_comes_back_ends_the_process() -> None:
    ended = threading.Event()
    codes: list[int] = []

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    with Watchdog(end).expecting(0.01, "commit"):
        assert ended.wait(30)
    assert codes == [STUCK_EXIT]


def test_a_call_that_comes_back_is_left_alone() -> None:
    codes: list[int] = []
    before = threading.active_count()
    for _ in range(5):
        with Watchdog(codes.append).expecting(3600, "commit"):
            pass
    assert codes == []
    assert threading.active_count() <= before + 5
