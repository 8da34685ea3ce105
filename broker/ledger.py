"""The account of the pipeline: alerts in = published + rejected + duplicates, and no offset left out.

Every transaction leaves one record in the `ledger` topic: the input offsets it covers, what became of their
alerts, and what went to which filter. The ranges must tile each input partition, the counts must balance, and
the output topics must hold what the ledger says, alert by alert (monitoring/).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from broker.config import Settings
from broker.errors import BrokerError
from broker.kafka.clients import PartitionKey, admin, end_offsets, start_offsets, topic_partitions
from broker.kafka.lag import committed_positions, input_partitions, lag_of
from broker.kafka.topics import LEDGER
from broker.monitoring.account import Account, Totals, ledger_records
from broker.monitoring.comparison import Comparison, compare
from broker.monitoring.kept import is_input, look_at

__all__ = ["Balance", "Gap", "balance", "find_gaps", "ledger_records"]


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
    unrecorded : transactions whose ledger record is older than figures of hits
    hits : what the ledger counts by (owner.name@version, kind);  compared : with the topics, if asked for
    """

    counts: Mapping[tuple[str, str, str], int]
    gaps: Sequence[Gap]
    transactions: int
    waiting: int
    expired: int
    unrecorded: int = 0
    hits: Mapping[tuple[str, str], int] = field(default_factory=dict)
    compared: Comparison | None = None
    problems: Sequence[str] = field(default=())

    @property
    def found(self) -> Mapping[str, int] | None:
        """Records actually in the output topics, by outcome; None where they were not counted."""
        return None if self.compared is None else self.compared.found

    def total(self, outcome: str) -> int:
        """Alerts of all surveys with one outcome."""
        return sum(count for (_, name, _), count in self.counts.items() if name == outcome)

    @property
    def balanced(self) -> bool:
        """Whether every alert in is accounted for exactly once."""
        return not self.problems


def balance(settings: Settings, *, verify: bool = False, tick: Callable[[], None] = lambda: None) -> Balance:
    """Add up the ledger of a cluster; with `verify`, hold the output topics against it as well.

    tick : called for each record counted

    The pipeline may go on meanwhile (monitoring/hits.py says how).  Raises BrokerError.
    """
    client = admin(settings.kafka)
    topics = topic_partitions(client)
    if LEDGER not in topics:
        raise BrokerError("there is no ledger yet; `broker run` keeps it")
    read = [(name, part) for name, count in topics.items() if is_input(name) for part in range(count)]
    committed = committed_positions(settings.kafka, settings.run.group, read)
    kept = look_at(client, topics)
    account = Account(settings.kafka, topics[LEDGER], kept.since_ms)
    before = account.read()
    compared = compare(settings.kafka, account, before, kept, tick) if verify else None
    spans = sorted((key, ranges.spans()) for key, ranges in account.ranges.items())
    gaps = [gap for key, ranges in spans for gap in find_gaps(key, ranges, committed.get(key))]
    problems = [f"{gap.topic}[{gap.partition}] {gap.start}..{gap.end}: {gap.kind}" for gap in gaps]
    problems += [*_imbalance(before), *account.problems, *(compared.problems if compared else ())]
    return Balance(
        before.counts, gaps, before.transactions, _waiting(settings, committed), before.expired,
        before.unrecorded, before.hits, compared, problems,
    )  # fmt: skip


def _waiting(settings: Settings, committed: Mapping[PartitionKey, int]) -> int:
    """Input records that are not processed yet."""
    client = admin(settings.kafka)
    inputs = input_partitions(client, settings.run.topics)
    return sum(lag_of(end_offsets(client, inputs), start_offsets(client, inputs), committed).values())


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


def _imbalance(total: Totals) -> list[str]:
    out = total.of("published") + total.of("rejected") + total.of("duplicate")
    return [] if total.of("in") == out else [f"{total.of('in')} alerts in, {out} accounted for"]
