"""The ledger held against the topics, from the first look to the words that a person reads."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from confluent_kafka import Message

from broker.config import KafkaSettings
from broker.control.topic import ControlTail
from broker.errors import HangingTransaction
from broker.kafka.clients import PartitionKey, admin, topic_partitions
from broker.kafka.reading import Span, committed_records, whole
from broker.kafka.topics import ALERTS, ARCHIVE, DEAD_LETTERS, FILTERS, alerts_topic
from broker.monitoring.account import ALERT, Account, Totals, topic_of
from broker.monitoring.differences import named_alerts, named_transactions
from broker.monitoring.fields import FieldReader
from broker.monitoring.hits import (
    Differences,
    FilterFigures,
    FirstLook,
    Lines,
    Published,
    Scope,
)
from broker.monitoring.kept import Kept, look_at, moved

Spans = Mapping[PartitionKey, Span]


@dataclass(frozen=True)
class Comparison:
    """What the topics say of the ledger.

    found : records of the topics, by outcome, where all are kept;  filters : by owner.name@version
    problems : what is wrong;  notes : what could not be compared, and why
    """

    found: Mapping[str, int] = field(default_factory=dict)
    filters: Mapping[str, FilterFigures] = field(default_factory=dict)
    problems: Sequence[str] = ()
    notes: Sequence[str] = ()


def compare(
    kafka: KafkaSettings, account: Account, before: Totals, kept: Kept, tick: Callable[[], None]
) -> Comparison:
    """Read the topics, then the ledger's end, and hold them against each other.

    before : what the account was when the topics were not read yet;  kept : what they held even before that
    Raises BrokerError.
    """
    spans = whole(kafka, kept.partitions(""))
    topics = _Topics(kafka, tick)
    scope = Scope(account, before.transactions, kept.since_ms)
    look = FirstLook(scope)
    others = topics.read(look.add, spans)
    after = account.read()
    client = admin(kafka)
    lost = moved(kept, look_at(client, topic_partitions(client)))
    unsure = topics.hidden | set(lost)
    gone = partial(_is_gone, kept, unsure)
    found = look.differences(before, after, gone)
    if any(topic.startswith(ALERTS) for topic in unsure):
        found = replace(found, alerts=())
    figures = {label: look.figures(label, before) for label in look.labels(before)}
    problems = topics.problems() + look.problems() + _headlines(found, look, figures, before)
    problems += _names(found, scope, topics, spans, figures)
    counts = {(DEAD_LETTERS, ""): others[DEAD_LETTERS], (ARCHIVE, ""): others[ARCHIVE], **look.found}
    problems += _miscounts(counts, before, after, lambda topic: gone(topic) or bool(kept.since_ms(topic)))
    notes = _notes(kept, lost, before, figures) + look.notes()
    return Comparison(_found(look, others, kept), figures, problems, notes)


def _is_gone(kept: Kept, lost: set[str], topic: str) -> bool:
    """Whether nothing can be said of a topic."""
    return topic not in kept.topics or topic in lost


class _Topics:
    """Reads the output topics, as often as it is asked."""

    def __init__(self, kafka: KafkaSettings, tick: Callable[[], None]) -> None:
        self._kafka, self._tick = kafka, tick
        with ControlTail(kafka) as tail:
            self._reader = FieldReader(tail.catch_up().schemas)
        self._unreadable = Lines("records that cannot be read")
        self._hanging: list[str] = []
        self.hidden: set[str] = set()
        """Topics that a hanging transaction hides records of: nothing else can be said of them."""

    def read(self, add: Callable[[str, Published], None], spans: Spans) -> Counter[str]:
        """Give every record that is compared to `add`; the number of the others, by topic."""
        others: Counter[str] = Counter()
        try:
            for message in committed_records(self._kafka, spans):
                self._tick()
                topic = message.topic()
                if topic.startswith((ALERTS, FILTERS)):
                    record = self._decoded(message)
                    if record is not None:
                        add(topic, record)
                else:
                    others[topic] += 1
        except HangingTransaction as error:
            self._hanging.append(str(error))
            self.hidden |= {topic for topic, _ in error.open_at}
        return others

    def again(self, spans: Spans) -> Iterator[tuple[str, Published]]:
        """The records that are compared, once more; of topics that show all."""
        shown = {key: span for key, span in spans.items() if key[0] not in self.hidden}
        for message in committed_records(self._kafka, shown):
            self._tick()
            record = self._decoded(message, quiet=True)
            if record is not None:
                yield message.topic(), record

    def problems(self) -> list[str]:
        """What could not be read."""
        return self._hanging + self._unreadable.texts()

    def _decoded(self, message: Message, *, quiet: bool = False) -> Published | None:
        try:
            return self._reader.record(message.value() or b"")
        except Exception as error:  # whatever was written there; bytes of no schema fail in any way
            if not quiet:
                place = f"{message.topic()}[{message.partition()}] offset {message.offset()}"
                self._unreadable.add(f"{place}: it cannot be read as a record of the broker: {error}")
            return None


def _headlines(
    found: Differences, look: FirstLook, figures: Mapping[str, FilterFigures], before: Totals
) -> list[str]:
    """One line for each account that is not as it should be."""
    lines = [
        f"the ledger says {before.published[survey]} published of {survey}, "
        f"{alerts_topic(survey)} holds {look.published(survey)}"
        for survey in found.surveys
    ]
    for label, kind in sorted({*found.alerts, *found.ledger}):
        one = figures[label]
        lines.append(
            f"{topic_of(label)}: {kind}s of {label}: the ledger counts {one.ledger[kind]}, "
            f"the topic holds {one.topic[kind]}, alerts.* name {one.alerts[kind]}"
        )
    return lines


def _names(
    found: Differences, scope: Scope, topics: _Topics, spans: Spans, figures: Mapping[str, FilterFigures]
) -> list[str]:
    """Which alerts and transactions it is about: the topics concerned are read once more, if any is."""
    concerned = {topic_of(label) for label, _ in (*found.alerts, *found.ledger)}
    wanted = {key: span for key, span in spans.items() if key[0].startswith(ALERTS) or key[0] in concerned}
    hits = sum(max(figures[label].topic[kind], figures[label].alerts[kind]) for label, kind in found.alerts)
    records = partial(topics.again, wanted)
    return named_alerts(found, scope, records, hits) + named_transactions(found, scope, records)


def _miscounts(
    counts: Mapping[tuple[str, str], int], before: Totals, after: Totals, gone: Callable[[str], bool]
) -> list[str]:
    """Records of other topics that the ledger counts otherwise; it may have counted more meanwhile."""
    problems = []
    keys = {key for key in before.outputs.keys() | counts.keys() if key[1] != ALERT and not gone(key[0])}
    for topic, kind in sorted(key for key in keys if key[0] in (DEAD_LETTERS, ARCHIVE) or key[1]):
        there, least = counts.get((topic, kind), 0), before.outputs[(topic, kind)]
        most = after.outputs[(topic, kind)]
        older = before.unrecorded and topic != DEAD_LETTERS
        if there < least or (there > most and not older):
            what = f"{kind}s" if kind else "records"
            problems.append(f"{topic}: the ledger counts {least} {what}, the topic holds {there}")
    return problems


def _compared(since_ms: float) -> str:
    if math.isinf(since_ms):
        return "it holds nothing that can be compared"
    since = datetime.fromtimestamp(since_ms / 1000, UTC)
    return f"only what came after {since:%Y-%m-%d %H:%M UTC} is compared"


def _found(look: FirstLook, others: Mapping[str, int], kept: Kept) -> dict[str, int]:
    found = {}
    alerts = [topic for topic in kept.topics if topic.startswith(ALERTS)]
    if not any(kept.since_ms(topic) for topic in alerts):
        found["published"] = sum(look.found[(topic, ALERT)] for topic in alerts)
    if DEAD_LETTERS in kept.topics and not kept.since_ms(DEAD_LETTERS):
        found["rejected"] = others.get(DEAD_LETTERS, 0)
    return found


def _notes(
    kept: Kept, lost: Iterable[str], before: Totals, figures: Mapping[str, FilterFigures]
) -> list[str]:
    """What was not compared, and why."""
    deleted, expired = Lines("filters' topics that are gone"), Lines("topics that lost their first records")
    for label, one in figures.items():
        if topic_of(label) not in kept.topics:
            count = max(sum(one.ledger.values()), sum(one.alerts.values()))
            deleted.add(f"{topic_of(label)} does not exist any more: {count:,} hits of {label} went with it")
    for topic, since in sorted(kept.since.items()):
        expired.add(f"{topic}: its first records have expired, {_compared(since)}")
    notes = deleted.texts() + expired.texts()
    notes += [f"{topic}: records expired while it was read; it was not compared" for topic in lost]
    if before.unrecorded:
        notes.append(f"{before.unrecorded:,} transactions are of a time when hits were not recorded")
    return notes
