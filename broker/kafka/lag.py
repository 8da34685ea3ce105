"""How far the pipeline is behind its input, from the cluster's own account."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from broker.config import KafkaSettings
from broker.kafka.clients import (
    PartitionKey,
    admin,
    bystander,
    committed_offsets,
    end_offsets,
    positions_of,
    start_offsets,
    topic_partitions,
)
from broker.kafka.topics import ANNOTATIONS, ANNOTATIONS_GROUP

_CLOSE_S = 1.0


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


class Backlog:
    """Looks, as often as it is asked, at how far a pipeline is behind; its clients live until it is closed.

    group : of the pipeline;  wanted : names and patterns of its input topics
    positions : the committed position of each input partition that has one, as it was at the last look
    """

    def __init__(self, kafka: KafkaSettings, group: str, wanted: Sequence[str]) -> None:
        self._admin, self._wanted = admin(kafka), wanted
        self._groups = [bystander(kafka, name) for name in (group, group + ANNOTATIONS_GROUP)]
        self._in_use = threading.Lock()
        self.positions: dict[PartitionKey, int] = {}

    def look(self) -> dict[PartitionKey, int]:
        """Records of each input partition that the group has not committed yet.

        Raises BrokerError or KafkaException while Kafka does not answer.
        """
        with self._in_use:
            partitions = input_partitions(self._admin, self._wanted)
            ends, starts = end_offsets(self._admin, partitions), start_offsets(self._admin, partitions)
            self.positions = _merged(positions_of(group, partitions) for group in self._groups)
            return lag_of(ends, starts, self.positions)

    def close(self) -> None:
        """Let the clients go; one that another thread is asking just now is left to end with the process."""
        if self._in_use.acquire(timeout=_CLOSE_S):
            for group in self._groups:
                group.close()

    def __enter__(self) -> Backlog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def backlog(kafka: KafkaSettings, group: str, wanted: Sequence[str]) -> dict[PartitionKey, int]:
    """What a Backlog sees, looked at once.  Raises as it does."""
    with Backlog(kafka, group, wanted) as it:
        return it.look()


def committed_positions(
    kafka: KafkaSettings, group: str, partitions: Sequence[PartitionKey]
) -> dict[PartitionKey, int]:
    """Committed positions of a pipeline in input partitions, annotations included.  Raises BrokerError."""
    names = (group, group + ANNOTATIONS_GROUP)
    return _merged(committed_offsets(kafka, name, partitions) for name in names)


def _merged(found: Iterable[dict[PartitionKey, int]]) -> dict[PartitionKey, int]:
    return {key: offset for part in found for key, offset in part.items()}


def lag_of(
    ends: Mapping[PartitionKey, int],
    starts: Mapping[PartitionKey, int],
    positions: Mapping[PartitionKey, int],
) -> dict[PartitionKey, int]:
    """Records left of each partition: from the commit, or from the first record where that is later."""
    return {key: max(0, end - max(positions.get(key, 0), starts[key])) for key, end in ends.items()}
