"""A subscriber beside the run: what it was shown, in the order in which it was shown it."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import defaultdict
from contextlib import suppress

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from chaos.log import Partition, consumer

_TOPICS = re.compile(r"alerts\..*|filters\..*|dead-letters|ledger")
_LOOK_EVERY_S = 1.0
# Of a cluster that is away or on its way back: nothing that a subscriber would have to act on.
_PASSING = (
    KafkaError._PARTITION_EOF,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
)


class Subscriber:
    """Follows every output topic, new ones too, with isolation read_committed."""

    def __init__(self, bootstrap: str) -> None:
        self.shown: dict[Partition, list[tuple[int, bytes]]] = defaultdict(list)
        """Of each partition the (offset, digest) of every record, in order of their coming."""
        self.troubles: list[str] = []
        self.alerts = 0
        self._followed: set[Partition] = set()
        self._client = consumer(bootstrap)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="subscriber", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; what was shown stays."""
        self._stop.set()
        self._thread.join()
        self._client.close()

    def has_seen(self, ends: dict[Partition, int]) -> bool:
        """Whether it has been shown as much of each partition as there are records."""
        return all(len(self.shown[key]) >= count for key, count in ends.items())

    def _run(self) -> None:
        looked = 0.0
        while not self._stop.is_set():
            if time.monotonic() - looked > _LOOK_EVERY_S:
                looked = time.monotonic()
                with suppress(KafkaException):  # the cluster is away
                    self._follow_new()
            for message in self._client.consume(500, 0.1):
                key = (message.topic(), message.partition())
                error = message.error()
                if error is None:
                    self.shown[key].append((message.offset(), digest(message.value() or b"")))
                    self.alerts += key[0].startswith("alerts.")
                elif error.code() not in _PASSING:
                    self.troubles.append(f"{key}: {error.str()}")

    def _follow_new(self) -> None:
        topics = self._client.list_topics(timeout=2).topics
        there = {
            (name, number) for name, topic in topics.items() if _TOPICS.fullmatch(name)
            for number in topic.partitions
        }  # fmt: skip
        new = sorted(there - self._followed)
        if new:
            self._client.incremental_assign([TopicPartition(*key, OFFSET_BEGINNING) for key in new])
            self._followed |= set(new)


def digest(value: bytes) -> bytes:
    """A short mark of a record's value."""
    return hashlib.blake2b(value, digest_size=8).digest()
