"""Partitions that wait for a schema: held at the first alert that nobody can read now, let go once one can.

What a partition holds before that alert, and all other partitions, go on meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from broker.errors import BrokerError, RetryBatch
from broker.ingest.kafka import KafkaInput, Polled
from broker.kafka.clients import PartitionKey
from broker.metrics import PARTITION_PAUSED
from broker.surveys.avro import SchemaSource
from broker.surveys.registry import Unreadable, first_unreadable

log = logging.getLogger(__name__)

Tell = Callable[[str, str, str], None]
"""Sends a notice: subject, kind, text."""


class Waiting:
    """The partitions of one worker that wait, and what for.

    An outage is told once: a batch that is done again holds its partitions again without a word. A partition
    that another worker was given waits there.
    """

    def __init__(self, source: KafkaInput, schemas: SchemaSource, tell: Tell) -> None:
        self._source = source
        self._schemas = schemas
        self._tell = tell
        self._waiting: dict[PartitionKey, Unreadable] = {}

    def hold(self, polled: Polled) -> Polled:
        """The part of a batch that can be read now; the rest is held.  Raises RetryBatch."""
        try:
            found = first_unreadable(polled.messages, self._schemas)
        except RetryBatch:
            raise
        except Exception:  # some message's fault, which decoding meets again and contains
            log.exception("cannot tell which schemas a batch needs; it is taken as it is")
            return polled
        if not found:
            return polled
        readable = self._source.hold(polled, {key: item.offset for key, item in found.items()})
        new = found.keys() - self._waiting.keys()
        self._waiting |= found
        for key in sorted(new):
            PARTITION_PAUSED.labels(*map(str, key)).set(1)
            item = found[key]
            text = f"paused at offset {item.offset}, whose alert names schema id {item.schema_id}: {item.why}"
            self._say(key, "partition_paused", text)
        return readable

    def release(self) -> None:
        """Let go every partition whose schema can be told by now.  Raises RetryBatch."""
        for key, item in list(self._waiting.items()):
            if self._source.owns(key):
                if not self._answered(item.schema_id):
                    continue
                self._source.release(key)
                self._say(key, "partition_resumed", f"goes on at offset {item.offset}")
            del self._waiting[key]
            PARTITION_PAUSED.labels(*map(str, key)).set(0)

    def _answered(self, schema_id: int) -> bool:
        try:
            self._schemas.get(schema_id)
        except RetryBatch:
            return False
        return True

    def _say(self, key: PartitionKey, kind: str, text: str) -> None:
        subject = f"{key[0]}[{key[1]}]"
        log.warning("%s %s", subject, text)
        try:
            self._tell(subject, kind, text)
        except BrokerError as error:  # a notice is not worth a worker
            log.warning("no notice of it: %s", error)
