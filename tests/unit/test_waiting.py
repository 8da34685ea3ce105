"""What waits for a schema, told apart from what does not, and said once."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from prometheus_client import REGISTRY

from broker.errors import BrokerError, RetryBatch
from broker.ingest.kafka import Polled, Range
from broker.message import Message
from broker.waiting import Waiting

AWAY, ELSEWHERE = ("lsst", 0), ("ztf", 0)
UNKNOWN = b"\x00\x00\x00\x00\x07datum"


class Schemas:
    """A registry that is there or not."""

    there = False

    def get(self, schema_id: int) -> str | None:
        if not self.there:
            raise RetryBatch("the registry is away")
        return None


class Source:
    """What Waiting asks of its consumer."""

    def __init__(self) -> None:
        self.mine = {AWAY, ELSEWHERE}
        self.held: dict[tuple[str, int], int] = {}
        self.released: list[tuple[str, int]] = []

    def hold(self, polled: Polled, offsets: Mapping[tuple[str, int], int]) -> Polled:
        self.held.update(offsets)
        return polled.before(offsets)

    def release(self, key: tuple[str, int]) -> None:
        self.released.append(key)

    def owns(self, key: tuple[str, int]) -> bool:
        return key in self.mine


def batch() -> Polled:
    """Three messages of each topic; the second of `lsst` cannot be read."""
    values = {AWAY: [b"Obj", UNKNOWN, b"Obj"], ELSEWHERE: [b"Obj"] * 3}
    return Polled(
        [Message(*key, 10 + n, 0, value) for key, them in values.items() for n, value in enumerate(them)],
        [Range(*key, 8, 15, 2) for key in values],
    )


def gauge() -> float | None:
    return REGISTRY.get_sample_value("broker_partition_paused", {"topic": "lsst", "partition": "0"})


@pytest.fixture
def told() -> list[tuple[str, str, str]]:
    return []


@pytest.fixture
def waiting(told: list[tuple[str, str, str]]) -> Waiting:
    return Waiting(Source(), Schemas(), lambda *what: told.append(what))  # type: ignore[arg-type]


def test_only_what_comes_before_the_unreadable_alert_is_left(
    waiting: Waiting, told: list[tuple[str, str, str]]
) -> None:
    left = waiting.hold(batch())
    assert [(m.topic, m.offset) for m in left.messages] == [("lsst", 10), *(("ztf", n) for n in (10, 11, 12))]
    assert left.ranges == [Range(*AWAY, 8, 11, 2), Range(*ELSEWHERE, 8, 15, 2)]
    assert gauge() == 1.0
    text = "paused at offset 11, whose alert names schema id 7: the registry is away"
    assert told == [("lsst[0]", "partition_paused", text)]


def test_a_batch_without_such_an_alert_is_not_touched(waiting: Waiting) -> None:
    polled = Polled([Message(*ELSEWHERE, 3, 0, b"Obj")], [Range(*ELSEWHERE, 3, 4, 0)])
    assert waiting.hold(polled) is polled


def test_an_outage_is_told_once_and_so_is_its_end(waiting: Waiting, told: list[tuple[str, str, str]]) -> None:
    for _ in range(3):  # a batch that is done again
        waiting.hold(batch())
        waiting.release()
    source, schemas = waiting._source, waiting._schemas
    assert source.released == []  # type: ignore[attr-defined]
    schemas.there = True  # type: ignore[attr-defined]
    for _ in range(2):
        waiting.release()
    assert source.released == [AWAY]  # type: ignore[attr-defined]
    assert gauge() == 0.0
    assert [kind for _, kind, _ in told] == ["partition_paused", "partition_resumed"]


def test_a_partition_that_was_taken_away_is_forgotten(
    waiting: Waiting, told: list[tuple[str, str, str]]
) -> None:
    waiting.hold(batch())
    waiting._source.mine.discard(AWAY)  # type: ignore[attr-defined]
    waiting.release()
    assert gauge() == 0.0
    assert waiting._source.released == []  # type: ignore[attr-defined]
    waiting.hold(batch())
    assert [kind for _, kind, _ in told] == ["partition_paused"] * 2, "another owner tells it anew"


def test_a_notice_that_cannot_be_sent_stops_nothing() -> None:
    def refuse(*_: str) -> None:
        raise BrokerError("no acknowledgement")

    waiting = Waiting(Source(), Schemas(), refuse)  # type: ignore[arg-type]
    assert len(waiting.hold(batch()).messages) == 4
