"""The `control` topic: following it (no group, from the beginning, each for itself) and writing it."""

from __future__ import annotations

import time
from types import TracebackType

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from broker import control
from broker.config import KafkaSettings
from broker.errors import BrokerError
from broker.kafka.clients import reader, watermarks, writer
from broker.kafka.topics import CONTROL


class ControlTail:
    """The control state, as new as the last call of `poll`.

    `poll` never blocks longer than it is told; a lost broker is waited for, not an error.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._consumer: Consumer = reader(kafka, **{"enable.partition.eof": True, "fetch.wait.max.ms": 50})
        # Offset 0 and not OFFSET_BEGINNING, which librdkafka looks up first and that takes half a second;
        # where the log begins later, auto.offset.reset finds its beginning.
        self._consumer.assign([TopicPartition(CONTROL, 0, 0)])
        self.state = control.ControlState()

    def poll(self, timeout_s: float = 0.0) -> bool:
        """Apply every record that is here; True if there was one."""
        before = self.state
        messages = self._consumer.consume(500, timeout_s)
        while messages:
            for message in messages:
                self._apply(message)
            messages = self._consumer.consume(500, 0.0)
        return self.state is not before

    def catch_up(self, timeout_s: float = 30.0) -> control.ControlState:
        """Read up to the end as it is now.  Raises BrokerError if Kafka does not answer in time."""
        try:
            _, high = watermarks(self._consumer, CONTROL, 0, timeout_s)
        except KafkaException as error:
            raise BrokerError(f"cannot read the control topic: {error.args[0].str()}") from error
        return self.wait_for(high - 1, timeout_s)

    def wait_for(self, epoch: int, timeout_s: float = 30.0) -> control.ControlState:
        """Read until the state includes the record at `epoch`."""
        deadline = time.monotonic() + timeout_s
        while self.state.epoch < epoch:
            self.poll(0.05)
            if time.monotonic() > deadline:
                raise BrokerError(f"the control topic ends at {self.state.epoch}, waited for {epoch}")
        return self.state

    def close(self) -> None:
        """Stop following."""
        self._consumer.close()

    def __enter__(self) -> ControlTail:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _apply(self, message: Message) -> None:
        error = message.error()
        if error is None:
            self.state = control.apply(self.state, message.offset(), message.key(), message.value())
        elif error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise BrokerError("there is no control topic yet; `broker run` creates it")


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
            topic,
            value,
            key,
            partition=0,
            on_delivery=lambda error, message: reports.append((error, message)),
        )
        self._producer.flush(25)
        if not reports:
            raise BrokerError(f"topic {topic!r} did not acknowledge a record within 25 s")
        error, message = reports[0]
        if error is not None:
            raise BrokerError(f"topic {topic!r} refused a record: {error.str()}")
        return int(message.offset())
