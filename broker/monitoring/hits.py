"""The topics held against the ledger and against each other, alert by alert.

For each version of a filter three accounts must agree: the hits that the ledger counts, the records in the
filter's topic, and the alerts in `alerts.*` that say they passed it. The first look keeps of each a count and
two sums of hashes that do not depend on the order, so its memory is that of the filters, not the hits. Only
where they differ, a second look (differences.py) finds out which alerts it is about.

What is compared: alerts and retractions whose input offset the ledger covered before the topics were read, so
a pipeline may go on meanwhile. Updates say nothing of the annotation that made them: they are compared if the
ledger counted none meanwhile. A retraction that only a filter is told of is not in `alerts.*`. A sampled
filter counts as what it published: only that is in `filtersPassed`, in the ledger and in its topic. What
retention has begun to drop is compared from the time on that its topic still holds in full.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from broker.kafka.topics import FILTERS, alerts_topic
from broker.monitoring.account import ALERT, NOWHERE, RETRACTION, UPDATE, Account, Totals, topic_of

KINDS = (ALERT, UPDATE, RETRACTION)
NAMED = 20
"""Lines of one sort that say what it is about; of more there is only the number."""
WANTED = ("kind", "diaSourceId", "objectName", "survey", "source", "filter", "filtersPassed", "provenance")
_MASK = (1 << 64) - 1
_PIECE_BITS = 1024
_MOST_STRAYS = 1_000_000
Since = Callable[[str], float]
"""Of a topic, from which time on its records are still kept [Unix ms]."""
Identity = tuple[str, str, int, int, int, int]
"""What one hit is about: kind, then topic, partition, offset, index and diaSourceId of its alert."""
Figure = tuple[str, str]
"""Of which version of a filter (owner.name@version), and which kind of message."""


class Lines:
    """Findings of one sort: the first few in words, the others counted."""

    def __init__(self, noun: str) -> None:
        self._noun, self._texts, self._count = noun, list[str](), 0

    def add(self, text: str) -> None:
        """One more."""
        self._count += 1
        if self._count <= NAMED:
            self._texts.append(text)

    def texts(self) -> list[str]:
        """What a person is told."""
        more = self._count - NAMED
        return self._texts + ([f"and {more:,} more {self._noun}"] if more > 0 else [])


@dataclass(frozen=True, slots=True)
class Published:
    """A record of `alerts.*` or of a filter's topic, as far as it is compared.

    passed : owner.name@version of every filter it says it passed; of a hit, of the filter that has it
    """

    kind: str
    survey: str
    name: str
    identity: Identity
    published_ms: int
    passed: Sequence[str]


def published_record(value: Mapping[str, Any]) -> Published | None:
    """A decoded record; None for one of another kind, such as a notice in a filter's topic."""
    if "source" not in value:
        return None
    kind, source, item = value["kind"], value["source"], value.get("filter")
    return Published(
        kind,
        value["survey"],
        value["objectName"],
        (
            kind, source["topic"], source["partition"], source["offset"], source["index"],
            value["diaSourceId"],
        ),
        value["provenance"]["publishedAt"],
        value["filtersPassed"] if item is None else [f"{item['name']}@{item['version']}"],
    )  # fmt: skip


def place_of(identity: Identity, name: str) -> str:
    """Where an alert came from, for a person."""
    _, topic, partition, offset, index, _ = identity
    return f"{topic}[{partition}] offset {offset} index {index} ({name})"


@dataclass(slots=True)
class Tally:
    """Some hits: how many, and what identifies them, in any order."""

    count: int = 0
    total: int = 0
    mix: int = 0

    def add(self, word: int) -> None:
        """One more.  word : its identity's hash"""
        self.count += 1
        self.total = (self.total + word) & _MASK
        self.mix ^= word


class Seen:
    """Which alerts were there already: a bit for each input offset and index, in small pieces."""

    def __init__(self) -> None:
        self._pieces: dict[tuple[str, int, int, int], int] = defaultdict(int)

    def add(self, identity: Identity) -> bool:
        """Note an alert; whether it was there before."""
        _, topic, partition, offset, index, _ = identity
        place, bit = (topic, partition, index, offset // _PIECE_BITS), 1 << offset % _PIECE_BITS
        before = self._pieces[place]
        self._pieces[place] = before | bit
        return bool(before & bit)


@dataclass(frozen=True)
class FilterFigures:
    """What the three accounts say of one version of a filter, by kind.

    ledger, topic : hits counted, and records, of the time that its topic still holds
    alerts : of the time that the survey's topic holds as well
    """

    ledger: Mapping[str, int]
    topic: Mapping[str, int]
    alerts: Mapping[str, int]


@dataclass(frozen=True)
class Differences:
    """Where the accounts differ.

    alerts : where a filter's topic and `alerts.*` do;  ledger : where a filter's topic and the ledger do
    surveys : where `alerts.<survey>` and the ledger do
    """

    alerts: Sequence[Figure] = ()
    ledger: Sequence[Figure] = ()
    surveys: Sequence[str] = ()


@dataclass
class Scope:
    """Which records are compared, and what they count as: the same rule at each look.

    limit : records of the ledger that were read before the topics
    """

    account: Account
    limit: int
    since_ms: Since

    def number(self, record: Published) -> int:
        """Number of the ledger's record that covers a record's input; NOWHERE if none of those does."""
        _, topic, partition, offset, _, _ = record.identity
        number = self.account.number(topic, partition, offset)
        return number if number < self.limit else NOWHERE

    def at_ms(self, record: Published, number: int) -> int:
        """When a record went out, by the ledger or, of an update, by itself."""
        return record.published_ms if record.kind == UPDATE else self.account.committed_ms(number)

    def both_kept(self, label: str, record: Published, at_ms: int) -> bool:
        """Whether what went out then is still in the filter's topic and in the survey's."""
        return at_ms >= self.since_ms(topic_of(label)) and at_ms >= self.since_ms(alerts_topic(record.survey))

    def counted(self, record: Published, number: int) -> bool:
        """Whether the ledger's record would count a hit of a kept time."""
        label = record.passed[0]
        known = record.kind == UPDATE or self.account.recorded(number)
        return known and self.at_ms(record, number) >= self.since_ms(topic_of(label))


class FirstLook:
    """Everything that is published, counted once."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._seen = Seen()
        self._topic: dict[Figure, Tally] = defaultdict(Tally)
        self._alerts: dict[Figure, Tally] = defaultdict(Tally)
        self._ledgers: Counter[Figure] = Counter()
        self._kept: Counter[Figure] = Counter()
        self._published: Counter[str] = Counter()
        self._strays: list[tuple[str, Identity, str]] = []
        self._too_many = 0
        self._twice = Lines("alerts that are published twice")
        self._foreign = Lines("records that are in the wrong topic")
        self.found: Counter[tuple[str, str]] = Counter()
        """Records of `alerts.*` by topic and kind."""

    def add(self, topic: str, record: Published) -> None:
        """One record of a topic."""
        number = NOWHERE if record.kind == UPDATE else self._scope.number(record)
        hit = topic.startswith(FILTERS)
        if hit and topic_of(record.passed[0]) != topic:
            where = place_of(record.identity, record.name)
            return self._foreign.add(f"{topic}: it holds a hit of {record.passed[0]}, {where}")
        if not hit:
            self.found[(topic, record.kind)] += 1
            if record.kind == ALERT and self._seen.add(record.identity):
                self._twice.add(f"{topic}: {place_of(record.identity, record.name)} is published twice")
        if number == NOWHERE and record.kind != UPDATE:
            return self._set_aside(topic, record)
        if hit:
            self._count(self._topic, record, number)
            self._ledgers[(record.passed[0], record.kind)] += self._scope.counted(record, number)
            kept = self._scope.at_ms(record, number) >= self._scope.since_ms(topic)
            self._kept[(record.passed[0], record.kind)] += kept
        else:
            self._count(self._alerts, record, number)
            kept = self._scope.at_ms(record, number) >= self._scope.since_ms(topic)
            self._published[record.survey] += record.kind == ALERT and kept
        return None

    def _count(self, tallies: dict[Figure, Tally], record: Published, number: int) -> None:
        at_ms, word = self._scope.at_ms(record, number), hash(record.identity) & _MASK
        for label in record.passed:
            if self._scope.both_kept(label, record, at_ms):
                tallies[(label, record.kind)].add(word)

    def _set_aside(self, topic: str, record: Published) -> None:
        """Look at it again when the ledger has been read on: the pipeline may be ahead of what was read."""
        if len(self._strays) < _MOST_STRAYS:
            self._strays.append((topic, record.identity, record.name))
        else:
            self._too_many += 1

    def problems(self) -> list[str]:
        """What is wrong whatever the figures are; ask when the ledger has been read on."""
        strays = Lines("records whose input offset no ledger record covers")
        for topic, identity, name in self._strays:
            if self._scope.account.number(*identity[1:4]) == NOWHERE:
                strays.add(f"{topic}: no ledger record covers {place_of(identity, name)}, which is published")
        return strays.texts() + self._twice.texts() + self._foreign.texts()

    def notes(self) -> list[str]:
        """What was not compared."""
        more = self._too_many
        return [f"{more:,} records are newer than the ledger was when it was read"] if more else []

    def labels(self, before: Totals) -> list[str]:
        """Every version of a filter that anything was said of."""
        return sorted({label for label, _ in (*self._topic, *self._alerts, *before.hits, *self._ledgers)})

    def figures(self, label: str, before: Totals) -> FilterFigures:
        """The three accounts of one version."""
        return FilterFigures(
            {kind: before.hits[(label, kind)] for kind in KINDS},
            {kind: self._kept[(label, kind)] for kind in KINDS},
            {kind: self._held(self._alerts, label, kind).count for kind in KINDS},
        )

    def differences(self, before: Totals, after: Totals, gone: Callable[[str], bool]) -> Differences:
        """Where the accounts differ.  gone : whether nothing can be said of a topic"""
        wanted = [
            (label, kind) for label in self.labels(before) if not gone(topic_of(label)) for kind in KINDS
        ]
        settled = [
            (label, kind) for label, kind in wanted if kind != UPDATE or _unchanged(before, after, label)
        ]
        return Differences(
            [key for key in settled if self._differs_from_alerts(key)],
            [key for key in settled if self._differs_from_ledger(key, before)],
            [
                survey
                for survey in sorted(self._published.keys() | before.published.keys())
                if not gone(alerts_topic(survey)) and self._published[survey] != before.published[survey]
            ],
        )

    def published(self, survey: str) -> int:
        """Alerts of a survey that the ledger covers."""
        return self._published[survey]

    def _differs_from_alerts(self, key: Figure) -> bool:
        topic, alerts = self._held(self._topic, *key), self._held(self._alerts, *key)
        return alerts.count > topic.count if key[1] == RETRACTION else alerts != topic

    def _differs_from_ledger(self, key: Figure, before: Totals) -> bool:
        topic, ledger = self._ledgers[key], before.hits[key]
        if key[1] != UPDATE:
            return topic != ledger
        since = self._scope.since_ms(topic_of(key[0]))
        if since:  # an update's own time is a little before the ledger's: no sharp line can be drawn
            return False
        return topic < ledger if before.unrecorded else topic != ledger

    @staticmethod
    def _held(tallies: Mapping[Figure, Tally], label: str, kind: str) -> Tally:
        return tallies.get((label, kind)) or Tally()


def _unchanged(before: Totals, after: Totals, label: str) -> bool:
    """Whether no update of a filter was counted, nor could have been, while the topics were read."""
    same = before.hits[(label, UPDATE)] == after.hits[(label, UPDATE)]
    return same and before.unrecorded == after.unrecorded
