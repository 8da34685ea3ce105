"""How many annotations a batch takes: what was said of many objects at once must not make alerts wait."""

from __future__ import annotations

from broker.ingest.kafka import KafkaInput, Polled
from broker.kafka import PartitionKey
from broker.topics import ANNOTATIONS

MAX_A_BATCH = 50
"""Each costs an alert fetched once more and judged, the more so if they lie far apart."""


class Pace:
    """Leaves annotations beyond MAX_A_BATCH for the next batch."""

    def __init__(self, source: KafkaInput) -> None:
        self._source = source
        self._held: set[PartitionKey] = set()

    def hold(self, polled: Polled) -> Polled:
        """The part of a batch that is worked on now; the rest comes again.  Raises RetryBatch."""
        offsets = beyond(polled, MAX_A_BATCH)
        if not offsets:
            return polled
        self._held |= offsets.keys()
        return self._source.hold(polled, offsets)

    def release(self) -> None:
        """Let go on what was left.  Raises RetryBatch."""
        for key in list(self._held):
            if self._source.owns(key):
                self._source.release(key)
            self._held.discard(key)


def beyond(polled: Polled, most: int) -> dict[PartitionKey, int]:
    """For each partition with annotations beyond the first so many of a batch: the first such offset."""
    said = [message for message in polled.messages if message.topic == ANNOTATIONS]
    offsets: dict[PartitionKey, int] = {}
    for message in said[most:]:
        offsets.setdefault((message.topic, message.partition), message.offset)
    return offsets
