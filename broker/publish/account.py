"""What goes out in a transaction, as its ledger record counts it.

Counted from the packets themselves, and from the same masks that they were made of: `broker ledger` holds
these figures against the topics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
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
    judged = {
        item.label: item.full_name
        for item in filters
        if item.full_name in alerts or item.full_name in updates
    }
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
    counted: Counter[tuple[str, str]] = Counter(
        (packet.topic, kind_of(packet.value) if packet.topic.startswith(ALERTS) else "")
        for packet in packets
        if not packet.topic.startswith(FILTERS)
    )
    return [
        {"topic": topic, "kind": kind, "records": count} for (topic, kind), count in sorted(counted.items())
    ]
