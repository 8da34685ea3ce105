"""Batches that end or hold up the process that judges them: found by those that come after it.

Before a batch is judged, the offsets it covers are noted in Redis (`attempts:<group>`, a hash: a field a
partition). If Redis is away nothing can be judged, so no other place is needed; the batch is done again. A
worker that polls offsets which another process noted, and did not commit, is careful with them:

- of a batch, it takes parts of a tenth, each with a transaction of its own;
- of such a part, single messages, or tenths again if they are more than SINGLES;
- of a single message that was judged alone, the same again; after DEATHS processes have not come back from it
  the message is not judged but becomes a dead letter `quarantined`.

So one message that kills takes four processes, and none of its neighbours. A worker killed from outside costs
the next one some ten small transactions once: no message is quarantined but one that was judged alone when a
process ended, twice in a row. An end while it commits does not count: what was judged alone is taken off the
notes.

A process that was given the partition while the one before still lives (its batch was aborted) is careful in
vain, which harms nobody.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from broker.ingest.kafka import Polled, Range
from broker.kafka.clients import PartitionKey
from broker.message import Message

BATCH, PART, ALONE = 0, 1, 2
"""How much was judged together."""
PARTS = 10
SINGLES = 50
"""So many suspected messages are taken one by one."""
DEATHS = 2

Exchange = Callable[[bytes, Sequence[tuple[bytes, ...]]], list[Any]]
"""Sends commands about one hash to Redis and gives their answers.  Raises RetryBatch."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Offsets [first, after) of a partition that a process began to judge.

    by : that process;  level : BATCH, PART or ALONE
    deaths : processes before it that did not come back from this message alone
    """

    first: int
    after: int
    by: str
    level: int
    deaths: int = 0

    def encode(self) -> bytes:
        """As it is noted."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def decode(cls, value: bytes | None) -> Attempt | None:
        """From what was noted; None if that is nothing, or none of ours."""
        try:
            said = json.loads(value or b"null")
            made = cls(**{item.name: said[item.name] for item in fields(cls)})
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        numbers = (made.first, made.after, made.level, made.deaths)
        return made if all(type(number) is int for number in numbers) else None

    def overlaps(self, item: Range) -> bool:
        """Whether it is of offsets that were not committed since."""
        return self.first < item.after and item.before < self.after


@dataclass(frozen=True)
class Part:
    """What goes into one transaction.

    alerts, said : of the two inputs
    deaths : processes that did not come back from it, a single message, so far
    """

    alerts: Polled = field(default_factory=Polled)
    said: Polled = field(default_factory=Polled)
    level: int = BATCH
    deaths: int = 0

    @property
    def polled(self) -> Polled:
        """Both inputs together."""
        return Polled(self.alerts.messages + self.said.messages, self.alerts.ranges + self.said.ranges)

    @property
    def alone(self) -> bool:
        """Whether it is a single message."""
        return len(self.alerts.messages) + len(self.said.messages) == 1

    @property
    def quarantined(self) -> bool:
        """Whether it must not be judged any more."""
        return self.deaths >= DEATHS


class Attempts:
    """What one process begins to judge, and what others before it did not come back from."""

    def __init__(self, group: str, exchange: Exchange) -> None:
        self._name = b"attempts:" + group.encode()
        self._exchange = exchange
        self._by = f"{os.getpid()}:{secrets.token_hex(4)}"
        self._suspects: dict[PartitionKey, Attempt] = {}

    def parts(self, alerts: Polled, said: Polled) -> Iterator[Part]:
        """A batch as it is to be judged: at once, unless a process did not come back from some of it.

        Each part is noted when it is asked for: judge and commit it before the next.  Raises RetryBatch.
        """
        ranges = [*alerts.ranges, *said.ranges]
        if not ranges:
            return
        suspects = self._suspected(ranges)
        for part in parts(alerts, said, suspects) if suspects else [Part(alerts, said)]:
            self._note(part)
            yield part
        for key in suspects:
            del self._suspects[key]

    def judged(self, part: Part) -> None:
        """A part was judged: if alone, a process that ends while it commits does not count against it.

        Raises RetryBatch.
        """
        if part.alone:
            names = [_name(item) for item in part.polled.ranges]
            self._exchange(self._name, [(b"HDEL", self._name, *names)])

    def _suspected(self, ranges: Sequence[Range]) -> dict[PartitionKey, Attempt]:
        """What others noted of a batch's partitions; it is remembered here, for we note there too."""
        (read,) = self._exchange(self._name, [(b"HMGET", self._name, *map(_name, ranges))])
        found: dict[PartitionKey, Attempt] = {}
        for item, value in zip(ranges, read, strict=True):
            key, noted = (item.topic, item.partition), Attempt.decode(value)
            if noted is not None and noted.by != self._by:
                self._suspects[key] = noted
            if key in self._suspects and self._suspects[key].overlaps(item):
                found[key] = self._suspects[key]
        return found

    def _note(self, part: Part) -> None:
        words: list[bytes] = []
        level = ALONE if part.alone else part.level
        for item in part.polled.ranges:
            made = Attempt(item.before, item.after, self._by, level, part.deaths)
            words += [_name(item), made.encode()]
        self._exchange(self._name, [(b"HSET", self._name, *words)])


def parts(alerts: Polled, said: Polled, suspects: Mapping[PartitionKey, Attempt]) -> list[Part]:
    """A batch in parts: first what is suspected, in small ones, each of one partition; then the rest."""
    made: list[Part] = []
    rest: list[Polled] = []
    whole = sum(len(_suspected(polled, suspects)) for polled in (alerts, said))
    for number, polled in enumerate((alerts, said)):
        left = []
        for item in polled.ranges:
            suspect = suspects.get((item.topic, item.partition))
            if suspect is None or not suspect.overlaps(item):
                left.append(item)
                continue
            end = min(item.after, suspect.after)
            mine = [m for m in polled.messages if _is_of((m.topic, m.partition), item) and m.offset < end]
            made += [
                replace(part, said=part.alerts, alerts=Polled()) if number else part
                for part in _small(mine, replace(item, after=end), suspect, whole)
            ]
            if end < item.after:
                left.append(replace(item, before=end, expired=0))
        rest.append(Polled(_within(polled.messages, left), left))
    return [*made, Part(rest[0], rest[1])] if any(rest) else made


def _suspected(polled: Polled, suspects: Mapping[PartitionKey, Attempt]) -> list[Message]:
    """The messages that were judged with others of several partitions."""
    ends = {key: it.after for key, it in suspects.items() if it.level == BATCH}
    return [m for m in polled.messages if m.offset < ends.get((m.topic, m.partition), m.offset)]


def _size(count: int, suspect: Attempt, whole: int) -> int:
    """How many messages of a partition go into a part.  count : suspected ones;  whole : of all partitions"""
    if suspect.level == BATCH:
        return -(-whole // PARTS)
    return 1 if count <= SINGLES or suspect.level == ALONE else -(-count // PARTS)


def _small(messages: Sequence[Message], item: Range, suspect: Attempt, whole: int) -> list[Part]:
    """Suspected messages of one partition in small parts, which cover a range."""
    size = _size(len(messages), suspect, whole)
    chunks = [messages[at : at + size] for at in range(0, len(messages), size or 1)] or [[]]
    ends = [chunk[-1].offset + 1 for chunk in chunks[:-1]] + [item.after]
    made: list[Part] = []
    before = item.before
    for chunk, end in zip(chunks, ends, strict=True):
        covered = replace(item, before=before, after=end, expired=0 if made else item.expired)
        level = ALONE if len(chunk) == 1 else PART
        deaths = suspect.deaths + 1 if suspect.level == level == ALONE else 0
        made.append(Part(Polled(list(chunk), [covered]), level=level, deaths=deaths))
        before = end
    return made


def _within(messages: Sequence[Message], ranges: Sequence[Range]) -> list[Message]:
    """The messages that ranges cover."""
    starts = {(item.topic, item.partition): item.before for item in ranges}
    return [m for m in messages if starts.get((m.topic, m.partition), m.offset + 1) <= m.offset]


def _is_of(key: PartitionKey, item: Range) -> bool:
    return key == (item.topic, item.partition)


def _name(item: Range) -> bytes:
    return b"%s/%d" % (item.topic.encode(), item.partition)
