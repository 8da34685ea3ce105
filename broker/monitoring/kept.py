"""What the output topics still hold: retention drops their first records, and a topic may be deleted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from broker.errors import BrokerError
from broker.kafka.clients import PartitionKey, first_times, start_offsets
from broker.kafka.topics import ALERTS, ARCHIVE, DEAD_LETTERS, FILTERS

_MARGIN_MS = 600_000
"""A transaction's ledger record is a little older than its other records, and clocks of hosts differ."""


@dataclass(frozen=True)
class Kept:
    """The output topics as they were at one moment.

    topics : all of them, and their partitions;  firsts : offset of each partition's first record
    since : of topics whose first records are gone, from which time on they hold all [Unix ms]; inf = nothing
    """

    topics: Mapping[str, int]
    firsts: Mapping[PartitionKey, int]
    since: Mapping[str, float]

    def since_ms(self, topic: str) -> float:
        """From which time on a topic holds everything [Unix ms]; 0 = from its first record on."""
        return self.since.get(topic, 0.0)

    def partitions(self, *starts: str) -> list[PartitionKey]:
        """Partitions of the topics whose names begin so."""
        return [key for key in self.firsts if key[0].startswith(starts)]


def look_at(client: AdminClient, topics: Mapping[str, int]) -> Kept:
    """What the output topics among some topics hold now.  Raises BrokerError."""
    outputs = {name: count for name, count in topics.items() if _is_output(name)}
    keys = [(name, part) for name, count in outputs.items() for part in range(count)]
    try:
        firsts = start_offsets(client, keys)
        times = first_times(client, [key for key in keys if firsts[key]])
    except KafkaException as error:
        raise BrokerError(f"cannot tell what the topics hold: {error.args[0].str()}") from error
    since: dict[str, float] = {}
    for key in keys:
        if firsts[key]:
            since[key[0]] = max(since.get(key[0], 0.0), times.get(key, math.inf) + _MARGIN_MS)
    return Kept(outputs, firsts, since)


def is_input(topic: str) -> bool:
    """Whether a pipeline may have read a topic: it is none that the broker itself writes for others."""
    return not _is_output(topic) and not topic.startswith("__")


def moved(before: Kept, after: Kept) -> list[str]:
    """Topics that lost records, or went, between two looks."""
    return sorted({key[0] for key, first in before.firsts.items() if after.firsts.get(key) != first})


def _is_output(topic: str) -> bool:
    return topic.startswith((ALERTS, FILTERS)) or topic in (DEAD_LETTERS, ARCHIVE)
