"""Faults are told once an hour a kind."""

from __future__ import annotations

from broker.errors import BrokerError
from broker.run.fault_notices import EVERY_S, FaultNotices


def test_a_kind_is_told_once_an_hour_with_how_many_there_were() -> None:
    now, told = [0.0], list[tuple[str, str, str]]()
    notices = FaultNotices("slot", lambda *item: told.append(item), lambda: now[0])
    for _ in range(5):
        notices.add("internal_error", "KeyError at x.py:5", "first")
    notices.add("internal_error", "ValueError at x.py:9", "second")
    assert [item[:2] for item in told] == [
        ("KeyError at x.py:5", "internal_error"), ("ValueError at x.py:9", "internal_error"),
    ]  # fmt: skip
    now[0] = EVERY_S
    notices.add("internal_error", "KeyError at x.py:5", "third", 10)
    assert told[-1][2].startswith("slot: 14 of it")


def test_a_notice_that_cannot_be_sent_harms_nobody() -> None:
    def tell(*_: str) -> None:
        raise BrokerError("Kafka is away")

    FaultNotices("slot", tell).add("internal_error", "x", "y")
