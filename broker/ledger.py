"""The account of the pipeline: alerts in = published + rejected + duplicates, and no offset left out.

Every transaction leaves one record in the `ledger` topic: the input offsets it covers and what became of
their alerts. The ranges must tile each input partition, and the counts must balance; the outputs themselves
can be counted against both.
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import fastavro

from broker.config import KafkaSettings, Settings
from broker.errors import BrokerError
from broker.kafka.clients import (
    PartitionKey,
    admin,
    committed_values,
    end_offsets,
    start_offsets,
    topic_partitions,
)
from broker.kafka.lag import committed_positions, input_partitions, lag_of
from broker.kafka.topics import ALERTS, DEAD_LETTERS, LEDGER
from broker.publish.records import FRAME_BYTES, LEDGER_SCHEMA, is_alert

_LEDGER = fastavro.parse_schema(LEDGER_SCHEMA)


@dataclass(frozen=True)
class Gap:
    """Offsets of an input partition that no transaction, or more than one, accounts for."""

    topic: str
    partition: int
    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class Balance:
    """What the ledger adds up to.

    counts : alerts by (survey, outcome, reason);  gaps : holes and overlaps in the input
    waiting : input records not processed yet;  expired : records that retention dropped before they were read
    found : records actually in the output topics, by outcome; None where they were not counted
    """

    counts: Mapping[tuple[str, str, str], int]
    gaps: Sequence[Gap]
    transactions: int
    waiting: int
    expired: int
    found: Mapping[str, int] | None = None
    problems: Sequence[str] = field(default=())

    def total(self, outcome: str) -> int:
        """Alerts of all surveys with one outcome."""
        return sum(count for (_, name, _), count in self.counts.items() if name == outcome)

    @property
    def balanced(self) -> bool:
        """Whether every alert in is accounted for exactly once."""
        return not self.problems


def balance(settings: Settings, *, verify: bool = False, tick: Callable[[], None] = lambda: None) -> Balance:
    """Add up the ledger of a cluster; with `verify`, count the output topics as well.

    tick : called for each record counted

    The pipeline may go on meanwhile: what is counted must lie between the ledger before and after.
    Raises BrokerError.
    """
    client = admin(settings.kafka)
    topics = topic_partitions(client)
    if LEDGER not in topics:
        raise BrokerError("there is no ledger yet; `broker run` keeps it")
    committed = committed_positions(client, settings.run.group)
    account = _read_account(settings, topics[LEDGER])
    found = _count_outputs(settings, client, topics, tick) if verify else None
    inputs = input_partitions(client, settings.run.topics)
    waiting = lag_of(end_offsets(client, inputs), start_offsets(client, inputs), committed)
    spans = sorted(account.ranges.items())
    gaps = [gap for key, ranges in spans for gap in find_gaps(key, ranges, committed.get(key))]
    problems = [f"{gap.topic}[{gap.partition}] {gap.start}..{gap.end}: {gap.kind}" for gap in gaps]
    problems += _imbalance(account.totals())
    if found and any(found[outcome] != account.totals()[outcome] for outcome in found):
        problems += _miscounts(found, account.totals(), _read_account(settings, topics[LEDGER]).totals())
    return Balance(
        account.counts, gaps, account.transactions, sum(waiting.values()), account.expired, found, problems
    )


@dataclass
class _Account:
    """The ledger added up."""

    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    ranges: dict[PartitionKey, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    transactions: int = 0
    expired: int = 0

    def totals(self) -> Counter[str]:
        """Alerts by outcome."""
        total: Counter[str] = Counter()
        for (_, outcome, _), count in self.counts.items():
            total[outcome] += count
        return total


def ledger_records(kafka: KafkaSettings, partitions: int = 1) -> Iterator[dict[str, Any]]:
    """Every committed record of the ledger, as LEDGER_SCHEMA has it.  Raises BrokerError."""
    for value in committed_values(kafka, [(LEDGER, part) for part in range(partitions)]):
        record: Any = fastavro.schemaless_reader(io.BytesIO(value[FRAME_BYTES:]), _LEDGER, None)
        yield record


def _read_account(settings: Settings, partitions: int) -> _Account:
    account = _Account()
    for record in ledger_records(settings.kafka, partitions):
        account.transactions += 1
        for item in record["counts"]:
            account.counts[(item["survey"], item["outcome"], item["reason"])] += item["count"]
        for part in record["partitions"]:
            account.ranges[(part["topic"], part["partition"])].append((part["before"], part["after"]))
            account.expired += part["expired"]
    return account


def find_gaps(key: PartitionKey, spans: Iterable[tuple[int, int]], committed: int | None) -> list[Gap]:
    """Holes and overlaps in the offsets that the ledger's ranges of one partition cover.

    spans : [before, after) of each transaction, in any order
    committed : the group's position before the ledger was read, if it has one

    >>> [(g.start, g.end, g.kind) for g in find_gaps(("t", 0), [(0, 5), (7, 9), (8, 12)], 12)]
    [(5, 7, 'hole'), (8, 9, 'overlap')]
    """
    gaps: list[Gap] = []
    ordered = sorted(spans)
    end = ordered[0][0] if ordered else 0
    for before, after in ordered:
        if before > end:
            gaps.append(Gap(*key, end, before, "hole"))
        elif before < end:
            gaps.append(Gap(*key, before, min(end, after), "overlap"))
        end = max(end, after)
    if committed is not None and committed > end:
        gaps.append(Gap(*key, end, committed, "committed without a ledger record"))
    return gaps


def _imbalance(total: Mapping[str, int]) -> list[str]:
    out = total["published"] + total["rejected"] + total["duplicate"]
    return [] if total["in"] == out else [f"{total['in']} alerts in, {out} accounted for"]


def _miscounts(found: Mapping[str, int], before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    return [
        f"the ledger says {before[outcome]} {outcome}, the topics hold {number}"
        for outcome, number in found.items()
        if not before[outcome] <= number <= after[outcome]
    ]


def _count_outputs(
    settings: Settings, client: Any, topics: Mapping[str, int], tick: Callable[[], None]
) -> dict[str, int]:
    """Committed records of the output topics; no figure where retention has begun to drop some.

    Updates and retractions are beside the account: what they are about was counted as an alert.
    """
    outputs = {
        "published": [name for name in topics if name.startswith(ALERTS)],
        "rejected": [name for name in topics if name == DEAD_LETTERS],
    }
    found: dict[str, int] = {}
    for outcome, names in outputs.items():
        partitions = [(name, part) for name in names for part in range(topics[name])]
        if any(start_offsets(client, partitions).values()):
            continue
        found[outcome] = 0
        for value in committed_values(settings.kafka, partitions):
            found[outcome] += outcome != "published" or is_alert(value)
            tick()
    return found
