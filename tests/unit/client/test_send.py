"""The pace of a sender, on a clock of its own."""

from __future__ import annotations

import pytest

from broker.client.send import Pace, Sent
from broker.errors import BrokerError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def times(pace: Pace, clock: Clock, count: int, delays: dict[int, float] | None = None) -> list[float]:
    """When each packet goes, if sending itself takes no time but for the delays given by packet."""
    gone = []
    for number in range(count):
        clock.now += (delays or {}).get(number, 0.0)
        while (wait := pace.wait_s()) > 0:
            clock.now += wait
        pace.take()
        gone.append(round(clock.now - 100.0, 6))
    return gone


def test_a_rate_spaces_packets_evenly() -> None:
    clock = Clock()
    assert times(Pace(1, 0.25, clock), clock, 5) == [0, 0.25, 0.5, 0.75, 1.0]


def test_a_burst_lets_its_packets_go_at_once() -> None:
    clock = Clock()
    assert times(Pace(3, 39.0, clock), clock, 7) == [0, 0, 0, 39, 39, 39, 78]


def test_a_short_delay_is_made_up_for_and_a_long_one_is_not() -> None:
    clock = Clock()
    assert times(Pace(1, 0.05, clock), clock, 5, {2: 0.12}) == [0, 0.05, 0.17, 0.17, 0.2]
    clock = Clock()
    late = times(Pace(1, 0.05, clock), clock, 6, {1: 10.0})
    assert late[0] == 0
    assert late[1:] == pytest.approx([10.0, 10.0, 10.0, 10.05, 10.1])


def test_what_was_not_delivered_is_an_error_with_its_reasons() -> None:
    sent = Sent()
    sent.messages["t"] += 7
    sent.check()
    sent.failures["too large"] += 2
    with pytest.raises(BrokerError, match="2 of 9 messages were not delivered: 2 x too large"):
        sent.check()
