"""Writing the small topics (control, notices): one record, acknowledged, its offset returned."""

from __future__ import annotations

from confluent_kafka import KafkaError, Message

from broker.config import KafkaSettings
from broker.errors import BrokerError
from broker.kafka import writer
from broker.topics import CONTROL


class ControlWriter:
    """Appends control records; each call returns once the cluster has the record on disk."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._producer = writer(kafka, **{"linger.ms": 0, "message.timeout.ms": 20000})

    def write(self, key: bytes, value: bytes) -> int:
        """Append one control record; returns its offset (the epoch it starts).  Raises BrokerError."""
        return self.send(CONTROL, key, value)

    def send(self, topic: str, key: bytes, value: bytes) -> int:
        """Append one record to a one-partition topic; returns its offset.  Raises BrokerError if refused."""
        reports: list[tuple[KafkaError | None, Message]] = []
        self._producer.produce(
            topic, value, key, partition=0, on_delivery=lambda error, message: reports.append((error, message))
        )
        self._producer.flush(25)
        if not reports:
            raise BrokerError(f"topic {topic!r} did not acknowledge a record within 25 s")
        error, message = reports[0]
        if error is not None:
            raise BrokerError(f"topic {topic!r} refused a record: {error.str()}")
        return int(message.offset())
