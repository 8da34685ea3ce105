"""Following the `control` topic: no group, from the beginning, every process for itself."""

from __future__ import annotations

import time
from types import TracebackType

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from broker import control
from broker.config import KafkaSettings
from broker.errors import BrokerError
from broker.kafka import reader
from broker.topics import CONTROL


class ControlTail:
    """The control state, as new as the last call of `poll`.

    `poll` never blocks longer than it is told; a lost broker is waited for, not an error.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._consumer: Consumer = reader(kafka, **{"enable.partition.eof": True, "fetch.wait.max.ms": 50})
        self._consumer.assign([TopicPartition(CONTROL, 0, OFFSET_BEGINNING)])
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
            _, high = self._consumer.get_watermark_offsets(TopicPartition(CONTROL, 0), timeout=timeout_s)
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
