"""How far the pipeline is behind its input, from the cluster's own account."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from broker.kafka.clients import PartitionKey, committed_offsets, end_offsets, start_offsets, topic_partitions
from broker.kafka.topics import ANNOTATIONS, ANNOTATIONS_GROUP


def matching_topics(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The topics that settings `run.topics` name; a name starting with ^ is a pattern.

    >>> matching_topics(["ztf_20260101_programid1", "alerts.ztf"], ["^ztf_[0-9]{8}_programid1$"])
    ['ztf_20260101_programid1']
    """
    return sorted(
        name
        for name in names
        if any(re.match(item, name) if item.startswith("^") else item == name for item in wanted)
    )


def input_partitions(client: Any, wanted: Sequence[str]) -> list[PartitionKey]:
    """Every partition of every input topic there is now, annotations included.  Raises BrokerError."""
    topics = topic_partitions(client)
    return [
        (name, number)
        for name in matching_topics(list(topics), [*wanted, ANNOTATIONS])
        for number in range(topics[name])
    ]


def committed_positions(client: Any, group: str) -> dict[PartitionKey, int]:
    """Committed positions of a pipeline's input, annotations included; empty if it has none."""
    return committed_offsets(client, group) | committed_offsets(client, group + ANNOTATIONS_GROUP)


def backlog(client: Any, group: str, wanted: Sequence[str]) -> dict[PartitionKey, int]:
    """Records of each input partition that the group has not committed yet.  Raises BrokerError."""
    partitions = input_partitions(client, wanted)
    ends, starts = end_offsets(client, partitions), start_offsets(client, partitions)
    return lag_of(ends, starts, committed_positions(client, group))


def lag_of(
    ends: Mapping[PartitionKey, int],
    starts: Mapping[PartitionKey, int],
    positions: Mapping[PartitionKey, int],
) -> dict[PartitionKey, int]:
    """Records left of each partition: from the commit, or from the first record where that is later."""
    return {key: max(0, end - max(positions.get(key, 0), starts[key])) for key, end in ends.items()}
