"""Messages that end their process: found by the processes after it, and no neighbour goes with them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.ingest.kafka import Polled, Range
from broker.message import Message
from broker.run.attempts import ALONE, BATCH, DEATHS, PART, PARTS, Attempt, Attempts, Part, parts


class Redis:
    """One hash of a server."""

    def __init__(self) -> None:
        self.held: dict[bytes, bytes] = {}
        self.calls = 0

    def exchange(self, name: bytes, commands: Any) -> list[Any]:
        assert name == b"attempts:g"
        self.calls += 1
        return [self._answer(*command) for command in commands]

    def _answer(self, verb: bytes, name: bytes, *words: bytes) -> Any:
        assert name == b"attempts:g"
        if verb == b"HMGET":
            return [self.held.get(word) for word in words]
        if verb == b"HDEL":
            return sum(self.held.pop(word, None) is not None for word in words)
        self.held |= dict(zip(words[::2], words[1::2], strict=True))
        return len(words) // 2


def polled(*ranges: tuple[str, int, int, int], gaps: set[int] = frozenset()) -> Polled:  # type: ignore[assignment]
    """Everything of some ranges: (topic, partition, before, after)."""
    messages = [
        Message(topic, partition, offset, 0, b"")
        for topic, partition, before, after in ranges
        for offset in range(before, after)
        if offset not in gaps
    ]
    return Polled(messages, [Range(*item, expired=0) for item in ranges])


class Stream:
    """Partitions read by one process after the other, and messages that kill whoever judges them."""

    def __init__(self, ends: dict[tuple[str, int], int], poison: set[tuple[str, int, int]]) -> None:
        self.redis, self.ends, self.poison = Redis(), ends, poison
        self.at = dict.fromkeys(ends, 0)
        self.judged: list[tuple[str, int, int]] = []
        self.quarantined: list[tuple[str, int, int]] = []
        self.deaths = 0

    def run(self, batch: int = 500) -> None:
        """One process, to its death or the end."""
        attempts = Attempts("g", self.redis.exchange)
        while any(self.at[key] < end for key, end in self.ends.items()):
            ranges = [(*key, at, min(self.ends[key], at + batch)) for key, at in self.at.items()]
            both = [
                polled(*[item for item in ranges if item[2] < item[3] and (item[0] == "said") is said])
                for said in (False, True)
            ]
            for part in attempts.parts(*both):
                if not self._judge(part):
                    self.deaths += 1
                    return

    def _judge(self, part: Part) -> bool:
        names = [(m.topic, m.partition, m.offset) for m in part.polled.messages]
        if part.quarantined:
            self.quarantined += names
        elif self.poison & set(names):
            return False
        else:
            self.judged += names
        for item in part.polled.ranges:
            assert self.at[item.topic, item.partition] == item.before
            self.at[item.topic, item.partition] = item.after
        return True

    def finish(self) -> None:
        while any(self.at[key] < end for key, end in self.ends.items()):
            assert self.deaths < 100
            self.run()


def test_a_quiet_batch_is_one_part_and_two_commands() -> None:
    stream = Stream({("a", 0): 500, ("a", 1): 500}, set())
    attempts = Attempts("g", stream.redis.exchange)
    batch = polled(("a", 0, 0, 500), ("a", 1, 0, 500))
    assert list(attempts.parts(batch, Polled())) == [Part(batch, Polled())]
    assert stream.redis.calls == 2
    assert list(attempts.parts(Polled(), Polled())) == []
    assert stream.redis.calls == 2


def test_a_message_that_kills_takes_four_processes_and_no_neighbour() -> None:
    stream = Stream({("a", 0): 2000, ("b", 0): 10}, {("a", 0, 777)})
    stream.finish()
    assert stream.quarantined == [("a", 0, 777)]
    assert len(stream.judged) == len(set(stream.judged)) == 2009
    assert stream.deaths == 4


def test_a_kill_of_a_batch_of_several_partitions_costs_some_ten_parts() -> None:
    batch = polled(*[("a", number, 0, 125) for number in range(4)])
    made = parts(batch, Polled(), {("a", number): Attempt(0, 125, "x", BATCH) for number in range(4)})
    assert PARTS <= len(made) <= PARTS + 4
    large = parts(polled(("a", 0, 0, 400)), Polled(), {("a", 0): Attempt(0, 400, "x", PART)})
    assert len(large) == PARTS


def test_a_message_that_comes_alone_takes_two() -> None:
    stream = Stream({("said", 0): 1}, {("said", 0, 0)})
    stream.finish()
    assert (stream.quarantined, stream.deaths) == ([("said", 0, 0)], DEATHS)


def test_what_was_judged_alone_is_not_blamed_for_a_process_that_ends_while_it_commits() -> None:
    """A Kafka that is away ends workers in their transactions, at the same message again and again."""
    redis = Redis()
    for _ in range(5 * DEATHS):
        attempts = Attempts("g", redis.exchange)
        (part,) = attempts.parts(polled(("a", 0, 7, 8)), Polled())
        assert not part.quarantined
        attempts.judged(part)
    calls = redis.calls
    (part,) = Attempts("g", redis.exchange).parts(polled(("a", 0, 7, 500)), Polled())
    attempts.judged(part)
    assert redis.calls == calls + 2, "only what is judged alone is worth a command"


@settings(max_examples=60, deadline=None)
@given(
    ends=st.dictionaries(
        st.tuples(st.sampled_from(["a", "b", "said"]), st.integers(0, 1)), st.integers(1, 700), min_size=1
    ),
    seeds=st.lists(st.integers(0, 10**6), max_size=4),
)
def test_whatever_kills_is_quarantined_and_nothing_else(
    ends: dict[tuple[str, int], int], seeds: list[int]
) -> None:
    names = [(*key, offset) for key, end in ends.items() for offset in range(end)]
    poison = {names[seed % len(names)] for seed in seeds}
    stream = Stream(ends, poison)
    stream.finish()
    assert sorted(stream.quarantined) == sorted(poison)
    assert sorted(stream.judged) == sorted(set(names) - poison)


@settings(max_examples=100, deadline=None)
@given(kills=st.lists(st.integers(1, 30), max_size=30))
def test_kills_from_outside_quarantine_nothing_unless_twice_at_one_message(kills: list[int]) -> None:
    stream = Stream({("a", 0): 900}, set())
    for number in kills:
        attempts, left, alone = Attempts("g", stream.redis.exchange), number, False
        while stream.at["a", 0] < 900 and left:
            at = stream.at["a", 0]
            for part in attempts.parts(polled(("a", 0, at, min(900, at + 300))), Polled()):
                left -= 1
                if not left:
                    alone = len(part.polled.messages) == 1
                    break
                stream._judge(part)
        if alone:  # the next process gets past it
            stream.run(batch=300)
    stream.finish()
    assert stream.quarantined == []
    assert len(stream.judged) == len(set(stream.judged)) == 900


def test_parts_cover_the_batch_in_order_gaps_and_all() -> None:
    batch = polled(("a", 0, 10, 110), ("b", 3, 0, 7), gaps={10, 11, 108, 109})
    suspects = {("a", 0): Attempt(10, 60, "x", BATCH)}
    made = parts(batch, Polled(), suspects)
    ranges = [item for part in made for item in part.polled.ranges if item.topic == "a"]
    assert (ranges[0].before, ranges[-1].after) == (10, 110)
    assert all(one.after == two.before for one, two in pairwise(ranges))
    assert [part.level for part in made] == [PART] * (len(made) - 1) + [BATCH]
    assert len(made) <= PARTS + 2
    assert [m.offset for part in made for m in part.polled.messages if m.topic == "a"] == list(range(12, 108))
    assert {item.topic for item in made[-1].polled.ranges} == {"a", "b"}


def test_a_range_without_a_message_is_still_passed() -> None:
    empty = Polled([], [Range("a", 0, 5, 9, expired=4)])
    (part,) = parts(empty, Polled(), {("a", 0): Attempt(5, 9, "x", ALONE, 5)})
    assert part.polled.ranges == empty.ranges
    assert not part.quarantined


def test_what_was_committed_since_is_not_suspected() -> None:
    redis = Redis()
    first, second = Attempts("g", redis.exchange), Attempts("g", redis.exchange)
    list(first.parts(polled(("a", 0, 0, 100)), Polled()))
    later = polled(("a", 0, 100, 200))
    assert list(second.parts(later, Polled())) == [Part(later, Polled())]


def test_a_retry_of_its_own_stays_careful() -> None:
    redis = Redis()
    list(Attempts("g", redis.exchange).parts(polled(("a", 0, 0, 160)), Polled()))
    second = Attempts("g", redis.exchange)
    next(second.parts(polled(("a", 0, 0, 160)), Polled()))  # and the transaction is aborted
    assert len(list(second.parts(polled(("a", 0, 0, 160)), Polled()))) == PARTS


@pytest.mark.parametrize("value", [None, b"", b"\xff", b"[" * 9999, b"5", b"{}", b'{"first":"a"}', b"null",
    b'{"first":1e999,"after":2,"by":"x","level":0,"deaths":0}'])  # fmt: skip
def test_a_damaged_note_is_none(value: bytes | None) -> None:
    assert Attempt.decode(value) is None


def test_a_note_is_read_back() -> None:
    made = Attempt(3, 9, "1:ab", PART, 1)
    assert Attempt.decode(made.encode()) == made
