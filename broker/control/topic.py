"""The `control` topic: following it (no group, from the beginning, each for itself) and writing it."""

from __future__ import annotations

import time
from types import TracebackType

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from broker import control
from broker.config import KafkaSettings
from broker.errors import BrokerError, WorkerFenced
from broker.kafka.clients import reader, watermarks
from broker.kafka.delivery import RecordProducer
from broker.kafka.faults import ClientFaults, is_fatal
from broker.kafka.topics import CONTROL
from broker.message import Packet

_ANSWER_S = 25.0
_UNKNOWN = (
    KafkaError._TIMED_OUT,
    KafkaError._MSG_TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
)
"""After these a record may have been stored."""


class ControlTail:
    """The control state, as new as the last call of `poll`.

    `poll` seldom blocks longer than it is told; a lost broker is waited for, not an error: `faults` has it.
    """

    def __init__(self, kafka: KafkaSettings, faults: ClientFaults | None = None) -> None:
        self.faults = faults or ClientFaults("the reader of control")
        self._fatal: KafkaError | None = None
        options = {"enable.partition.eof": True, "fetch.wait.max.ms": 50, "error_cb": self._on_error}
        self._consumer: Consumer = reader(kafka, **options)
        # Offset 0 and not OFFSET_BEGINNING, which librdkafka looks up first and that takes half a second;
        # where the log begins later, auto.offset.reset finds its beginning.
        self._consumer.assign([TopicPartition(CONTROL, 0, 0)])
        self.state = control.ControlState()

    def poll(self, timeout_s: float = 0.0) -> bool:
        """Apply every record that is here; True if there was one.

        Raises WorkerFenced when the client failed for good, BrokerError when there is no such topic.
        """
        before = self.state
        self.faults.look_for_life(self._consumer)
        messages = self._consumer.consume(500, timeout_s)
        while messages:
            for message in messages:
                self._apply(message)
            messages = self._consumer.consume(500, 0.0)
        if self._fatal is not None:
            raise WorkerFenced(f"{self.faults.client} failed for good: {self._fatal.str()}")
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
        if error is None or error.code() == KafkaError._PARTITION_EOF:
            self.faults.over(CONTROL)
        if error is None:
            self.state = control.apply(self.state, message.offset(), message.key(), message.value())
        elif error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART and self.state.epoch < 0:
            raise BrokerError("there is no control topic yet; `broker run` creates it")
        elif error.code() != KafkaError._PARTITION_EOF:
            self._on_error(error, CONTROL)

    def _on_error(self, error: KafkaError, topic: str = "") -> None:
        """What librdkafka says of its own accord, or in the place of a message."""
        if is_fatal(error):
            self._fatal = error
        else:
            self.faults.begin(error, topic)


class ControlWriter:
    """Appends control records; each call returns once the cluster has the record on disk.

    A record may be appended twice when Kafka fails meanwhile; applied twice it says the same.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._producer = RecordProducer(kafka, **{"linger.ms": 0, "message.timeout.ms": 20000})

    def write(self, key: bytes, value: bytes) -> int:
        """Append one control record; returns its offset (the epoch it starts).  Raises BrokerError."""
        return self.send(CONTROL, key, value)

    def send(self, topic: str, key: bytes, value: bytes) -> int:
        """Append one record to a one-partition topic; returns its offset.

        Raises BrokerError if it is refused, or if Kafka does not answer and the record may be there or not.
        """
        outcomes: list[tuple[KafkaError | None, int]] = []
        try:
            self._producer.send(Packet(topic, key, value), lambda *outcome: outcomes.append(outcome), 0)
            self._producer.flush(_ANSWER_S)
        except KafkaException as error:
            raise BrokerError(f"topic {topic!r} refused a record: {error.args[0].str()}") from error
        failure, offset = outcomes[0] if outcomes else (KafkaError(KafkaError._TIMED_OUT), -1)
        if failure is None:
            return offset
        if failure.code() in _UNKNOWN:
            raise BrokerError(
                f"topic {topic!r} did not acknowledge a record in time, so it may be there or not: "
                f"look before doing it again ({failure.str()})"
            )
        raise BrokerError(f"topic {topic!r} refused a record: {failure.str()}")
