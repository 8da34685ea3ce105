"""What goes out in a transaction, as its ledger record counts it.

Counted from the packets themselves, and from the same masks that they were made of: `broker ledger` holds
these figures against the topics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

from broker.filter import Filter
from broker.kafka.topics import ALERTS, FILTERS
from broker.message import Packet
from broker.publish.records import kind_of


def hits_of(
    filters: Sequence[Filter],
    alerts: Mapping[str, int],
    updates: Mapping[str, int],
    retractions: Mapping[str, int],
) -> list[dict[str, Any]]:
    """Records of each filter's topic, of filters that have any.

    filters : those that judged the batch;  alerts, updates : hits by owner.name
    retractions : by owner.name@version, for versions of any age may be told
    """
    named = alerts.keys() | updates.keys()
    judged = {item.label: name for item in filters if (name := item.full_name) in named}
    return [
        {
            "filter": label,
            "alerts": alerts.get(judged.get(label, ""), 0),
            "updates": updates.get(judged.get(label, ""), 0),
            "retractions": retractions.get(label, 0),
        }
        for label in sorted(judged.keys() | retractions.keys())
    ]


def outputs_of(packets: Sequence[Packet]) -> list[dict[str, Any]]:
    """Records of every topic that is no filter's, those of alerts by their kind."""
    topics = Counter(map(attrgetter("topic"), packets))
    alerts = {topic for topic in topics if topic.startswith(ALERTS)}
    counted = Counter((topic, kind_of(value)) for topic, value in _values(packets, alerts))
    counted.update(
        {(topic, ""): count for topic, count in topics.items() if not topic.startswith((ALERTS, FILTERS))}
    )
    return [
        {"topic": topic, "kind": kind, "records": count} for (topic, kind), count in sorted(counted.items())
    ]


def _values(packets: Sequence[Packet], topics: Collection[str]) -> Iterator[tuple[str, bytes]]:
    return ((packet.topic, packet.value) for packet in packets if packet.topic in topics)
