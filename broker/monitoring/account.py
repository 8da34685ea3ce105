"""The ledger read back and added up: which input offsets it covers, and what it says became of them.

Every record is read by the schema it names: older ones count, with their hits not recorded.
"""

from __future__ import annotations

import copy
import io
import json
from array import array
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import fastavro

from broker.config import KafkaSettings
from broker.control.topic import ControlTail
from broker.data.schema_ids import canonical, schema_id
from broker.errors import BrokerError, HangingTransaction
from broker.kafka.clients import PartitionKey
from broker.kafka.reading import Span, committed_records, whole
from broker.kafka.topics import DEAD_LETTERS, FILTERS, LEDGER, alerts_topic
from broker.publish.records import FRAME_BYTES, LEDGER_HITS_FIELDS, LEDGER_SCHEMA, unframe

FIRST_LEDGER_SCHEMA: dict[str, Any] = LEDGER_SCHEMA | {
    "fields": [item for item in LEDGER_SCHEMA["fields"] if item["name"] not in LEDGER_HITS_FIELDS]
}
"""How the first records of the ledger were written."""
_LEDGER = fastavro.parse_schema(LEDGER_SCHEMA)
NOWHERE = -1
ALERT, UPDATE, RETRACTION = "alert", "update", "retraction"
HITS_OF_KIND = ((ALERT, "alerts"), (UPDATE, "updates"), (RETRACTION, "retractions"))
"""Kinds of messages, and the field of the ledger that counts each."""


class LedgerDecoder:
    """Records of the ledger by the schema that each names."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._schemas = {
            schema_id(canonical(schema)): fastavro.parse_schema(schema)
            for schema in (LEDGER_SCHEMA, FIRST_LEDGER_SCHEMA)
        }
        self._announced: Mapping[int, str] | None = None

    def record(self, value: bytes) -> dict[str, Any]:
        """A record as LEDGER_SCHEMA has it.  Raises BrokerError where it cannot be read."""
        identifier = unframe(value)
        if identifier is None:
            raise BrokerError("it is not framed as a record of the ledger")
        writer = self._schemas.get(identifier) or self._look_up(identifier)
        try:
            found: Any = fastavro.schemaless_reader(io.BytesIO(value[FRAME_BYTES:]), writer, _LEDGER)
        except Exception as error:  # bytes that are not of the schema fail in any way
            raise BrokerError(f"it is not of the schema {identifier} that it names") from error
        return dict(found)

    def _look_up(self, identifier: int) -> Any:
        if self._announced is None:
            with ControlTail(self._kafka) as tail:
                self._announced = tail.catch_up().schemas
        text = self._announced.get(identifier)
        if text is None:
            raise BrokerError(f"its schema {identifier} was never announced in the control topic")
        self._schemas[identifier] = fastavro.parse_schema(json.loads(text))
        return self._schemas[identifier]


def ledger_records(kafka: KafkaSettings, partitions: int = 1) -> Iterator[dict[str, Any]]:
    """Every committed record of the ledger, as LEDGER_SCHEMA has it.  Raises BrokerError."""
    decoder = LedgerDecoder(kafka)
    for message in committed_records(kafka, whole(kafka, [(LEDGER, part) for part in range(partitions)])):
        try:
            yield decoder.record(message.value() or b"")
        except BrokerError as error:
            place = f"{LEDGER}[{message.partition()}] offset {message.offset()}"
            raise BrokerError(f"{place}: {error}") from error


class Ranges:
    """The offsets of one input partition that the ledger covers: [before, after) of each record."""

    def __init__(self) -> None:
        self._before, self._after, self._number = array("q"), array("q"), array("q")
        self._in_order = True

    def add(self, before: int, after: int, number: int) -> None:
        """One more.  number : of the ledger's record, counted as they were read"""
        self._in_order &= not self._before or before >= self._before[-1]
        self._before.append(before)
        self._after.append(after)
        self._number.append(number)

    def spans(self) -> list[tuple[int, int]]:
        """All of them, by offset."""
        self._sort()
        return list(zip(self._before, self._after, strict=True))

    def number(self, offset: int) -> int:
        """Number of the ledger's record that covers an offset; NOWHERE if none does."""
        self._sort()
        at = bisect_right(self._before, offset) - 1
        return self._number[at] if at >= 0 and offset < self._after[at] else NOWHERE

    def _sort(self) -> None:
        if not self._in_order:
            rows = sorted(zip(self._before, self._after, self._number, strict=True))
            self._before, self._after, self._number = (
                array("q", column) for column in zip(*rows, strict=True)
            )
            self._in_order = True


@dataclass
class Totals:
    """What the ledger adds up to at one moment.

    counts : alerts by (survey, outcome, reason)
    published : alerts by survey, of the records since that survey's topic can be compared
    hits : by (owner.name@version, kind), of the records since the filter's topic can be compared
    outputs : other records by (topic, kind)
    """

    transactions: int = 0
    unrecorded: int = 0
    expired: int = 0
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    published: Counter[str] = field(default_factory=Counter)
    hits: Counter[tuple[str, str]] = field(default_factory=Counter)
    outputs: Counter[tuple[str, str]] = field(default_factory=Counter)

    def of(self, outcome: str) -> int:
        """Alerts of all surveys with one outcome."""
        return sum(count for (_, name, _), count in self.counts.items() if name == outcome)


class Account:
    """The ledger added up, as far as it was read; reading goes on where it ended.

    since_ms : of a topic, from which time of the ledger on its records are still kept [Unix ms]; 0 = from the
    first on
    """

    def __init__(self, kafka: KafkaSettings, partitions: int, since_ms: Callable[[str], float]) -> None:
        self._kafka = kafka
        self._since_ms = since_ms
        self._decoder = LedgerDecoder(kafka)
        self._read = {(LEDGER, part): 0 for part in range(partitions)}
        self._committed_ms, self._recorded = array("q"), bytearray()
        self.ranges: dict[PartitionKey, Ranges] = defaultdict(Ranges)
        self.totals = Totals()
        self.problems: list[str] = []

    def read(self) -> Totals:
        """Read on to the end as it is now; what everything adds up to, for good.  Raises BrokerError."""
        ends = {key: end for key, (_, end) in whole(self._kafka, self._read).items()}
        spans: dict[PartitionKey, Span] = {key: (self._read[key], end) for key, end in ends.items()}
        try:
            for message in committed_records(self._kafka, spans):
                try:
                    self.add(self._decoder.record(message.value() or b""))
                except BrokerError as error:
                    self.problems.append(
                        f"{LEDGER}[{message.partition()}] offset {message.offset()}: {error}"
                    )
        except HangingTransaction as error:
            self.problems.append(str(error))
            ends |= error.open_at
        self._read = ends
        return copy.deepcopy(self.totals)

    def add(self, record: Mapping[str, Any]) -> None:
        """One record, as LEDGER_SCHEMA has it."""
        total, at_ms, number = self.totals, record["committedAt"], len(self._recorded)
        self._committed_ms.append(at_ms)
        self._recorded.append(record["hits"] is not None)
        total.transactions += 1
        total.unrecorded += record["hits"] is None
        for part in record["partitions"]:
            self.ranges[(part["topic"], part["partition"])].add(part["before"], part["after"], number)
            total.expired += part["expired"]
        for item in record["counts"]:
            total.counts[(item["survey"], item["outcome"], item["reason"])] += item["count"]
            if item["outcome"] == "published" and at_ms >= self._since_ms(alerts_topic(item["survey"])):
                total.published[item["survey"]] += item["count"]
            elif item["outcome"] == "rejected" and record["hits"] is None:  # each of them was a letter
                total.outputs[(DEAD_LETTERS, "")] += item["count"]
        self._add_hits(record)

    def _add_hits(self, record: Mapping[str, Any]) -> None:
        """What went to other topics than the survey's."""
        total, at_ms = self.totals, record["committedAt"]
        for item in record["hits"] or ():
            if at_ms >= self._since_ms(topic_of(item["filter"])):
                total.hits.update(
                    {(item["filter"], kind): item[name] for kind, name in HITS_OF_KIND if item[name]}
                )
        for item in record["outputs"]:
            total.outputs[(item["topic"], item["kind"])] += item["records"]

    def again(self, limit: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """The first records once more, with their numbers.  limit : how many

        Raises BrokerError.
        """
        number = 0
        spans: dict[PartitionKey, Span] = {key: (0, end) for key, end in self._read.items()}
        for message in committed_records(self._kafka, spans):
            with suppress(BrokerError):  # it has no number, for it could not be read
                yield number, self._decoder.record(message.value() or b"")
                number += 1
            if number >= limit:
                return

    def number(self, topic: str, partition: int, offset: int) -> int:
        """Number of the record that covers an input offset; NOWHERE if none does."""
        ranges = self.ranges.get((topic, partition))
        return NOWHERE if ranges is None else ranges.number(offset)

    def committed_ms(self, number: int) -> int:
        """When a record was committed [Unix ms]."""
        return self._committed_ms[number]

    def recorded(self, number: int) -> bool:
        """Whether a record says what went to filters' topics."""
        return bool(self._recorded[number])


def topic_of(label: str) -> str:
    """The topic of a filter's hits.  label : owner.name@version"""
    return FILTERS + label.partition("@")[0]
