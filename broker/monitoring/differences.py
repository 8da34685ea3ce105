"""The second look: which alerts, or which transactions, it is about where the accounts differ."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from broker.kafka.topics import FILTERS, alerts_topic
from broker.monitoring.account import ALERT, HITS_OF_KIND, NOWHERE, RETRACTION, UPDATE, topic_of
from broker.monitoring.hits import Differences, Figure, Identity, Lines, Published, Scope, place_of

_SLICE = 500_000
"""Hits of which every one is held against the other account at once."""
Records = Callable[[], Iterator[tuple[str, Published]]]
"""Reads the topics again, from their first record: (topic, record)."""
Place = tuple[str, str, str]
"""A topic, the filter's version (or the survey) it is about, and the kind of message."""
_VERB = {
    ALERT: "passed it",
    UPDATE: "passed it when it was judged again",
    RETRACTION: "was withdrawn from it",
}


def named_alerts(found: Differences, scope: Scope, records: Records, hits: int) -> list[str]:
    """The alerts that a filter's topic and `alerts.*` do not agree on.

    hits : how many there may be; of many, each look compares a share, so that memory stays bounded
    """
    lines, slices = Lines("alerts on which topics do not agree"), 1 + hits // _SLICE
    for number in range(slices if found.alerts else 0):
        for (label, kind, identity), (name, topic, alerts) in _unmatched(
            set(found.alerts), scope, records(), number, slices
        ):
            if topic < alerts or (topic > alerts and kind != RETRACTION):
                place = place_of(identity, name)
                lines.add(f"{topic_of(label)}: {place} {_disagreement(label, kind, topic, alerts)}")
    return lines.texts()


def _disagreement(label: str, kind: str, topic: int, alerts: int) -> str:
    verb = _VERB[kind]
    if not topic:
        return f"{verb} ({label}) and is not in its topic"
    if not alerts:
        return f"is in its topic, and alerts.* do not say that it {verb} ({label})"
    return f"is {topic} times in its topic, and {verb} {alerts} times ({label})"


def _unmatched(
    keys: set[Figure], scope: Scope, records: Iterable[tuple[str, Published]], number: int, slices: int
) -> list[tuple[tuple[str, str, Identity], tuple[str, int, int]]]:
    """(filter, kind, alert) and (its name, times in the filter's topic, in alerts.*) where those differ."""
    left: dict[tuple[str, str, Identity], tuple[str, int, int]] = {}
    for topic, record in records:
        if hash(record.identity) % slices != number:
            continue
        covered = NOWHERE if record.kind == UPDATE else scope.number(record)
        if covered == NOWHERE and record.kind != UPDATE:
            continue
        at_ms, hit = scope.at_ms(record, covered), topic.startswith(FILTERS)
        for label in record.passed:
            key = (label, record.kind)
            if (
                key in keys
                and (not hit or topic_of(label) == topic)
                and scope.both_kept(label, record, at_ms)
            ):
                _, in_topic, in_alerts = left.get((*key, record.identity), ("", 0, 0))
                left[(*key, record.identity)] = (record.name, in_topic + hit, in_alerts + (not hit))
    return [item for item in left.items() if item[1][1] != item[1][2]]


def named_transactions(found: Differences, scope: Scope, records: Records) -> list[str]:
    """The transactions whose ledger record counts other hits, or other alerts, than the topics hold."""
    lines = Lines("transactions that the topics do not agree with")
    keys = {(topic_of(label), label, kind) for label, kind in found.ledger if kind != UPDATE}
    keys |= {(alerts_topic(survey), survey, ALERT) for survey in found.surveys}
    held = _by_transaction(keys, scope, records()) if keys else {}
    for number, record in scope.account.again(scope.limit) if keys else ():
        counted = _counted(record, keys, scope)
        for key in sorted(counted.keys() | held.get(number, Counter()).keys()):
            said, there = counted[key], held.get(number, Counter())[key]
            if said != there:
                what = f"{there} of {said}" if there < said else f"{there} in place of {said}"
                lines.add(f"{key[0]}: {what} {key[2]}s of {key[1]} are there that came of {_ranges(record)}")
    return lines.texts()


def _ranges(record: Mapping[str, Any]) -> str:
    """The input that a transaction covers, for a person."""
    parts = record["partitions"]
    return ", ".join(f"{it['topic']}[{it['partition']}] {it['before']}..{it['after']}" for it in parts)


def _counted(record: Mapping[str, Any], keys: set[Place], scope: Scope) -> Counter[Place]:
    """What a ledger record counts, as far as it is still kept."""
    found: Counter[Place] = Counter()
    for item in record["counts"]:
        if item["outcome"] == "published":
            found[(alerts_topic(item["survey"]), item["survey"], ALERT)] += item["count"]
    for item in record["hits"] or ():
        for kind, name in HITS_OF_KIND:
            found[(topic_of(item["filter"]), item["filter"], kind)] += item[name]
    kept = [key for key in found if key in keys and record["committedAt"] >= scope.since_ms(key[0])]
    return Counter({key: found[key] for key in kept})


def _by_transaction(
    keys: set[Place], scope: Scope, records: Iterable[tuple[str, Published]]
) -> dict[int, Counter[Place]]:
    """What the topics hold of each of the ledger's records, by its number."""
    held: dict[int, Counter[Place]] = defaultdict(Counter)
    for topic, record in records:
        number = NOWHERE if record.kind == UPDATE else scope.number(record)
        hit = topic.startswith(FILTERS)
        key = (topic, record.passed[0] if hit else record.survey, record.kind)
        if number != NOWHERE and key in keys and (scope.account.recorded(number) or not hit):
            held[number][key] += scope.account.committed_ms(number) >= scope.since_ms(topic)
    return held
