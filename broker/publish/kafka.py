"""Packets out to Kafka: one transaction a batch, with the batch's input offsets in it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from broker.config import KafkaSettings
from broker.errors import RetryBatch, WorkerFenced
from broker.kafka.clients import producer_options
from broker.kafka.topics import LEDGER
from broker.message import Packet
from broker.watchdog import Watchdog

log = logging.getLogger(__name__)

TRANSACTION_TIMEOUT_MS = 10000
_CALL_TIMEOUT_S = 15.0
_PATIENCE_S = 120.0
_POLL_EVERY = 500
_SECOND_LOOK_S = 0.5
_STUCK_S = 60.0
"""A call that is told to end after _CALL_TIMEOUT_S and has not by now never will."""
_TOPIC_FAULTS = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_RECORD,
)
"""Errors that are about one topic; all others are about the transaction, and say nothing of a topic."""


class DeliveryFailed(RetryBatch):
    """Topics that could not be written to: the transaction was aborted, the batch must be done again."""

    def __init__(self, failures: dict[str, str]) -> None:
        super().__init__("; ".join(f"{topic}: {why}" for topic, why in failures.items()))
        self.failures = failures


class KafkaOutput:
    """The transactional producer of one worker slot."""

    def __init__(self, kafka: KafkaSettings, transactional_id: str) -> None:
        self._failures: dict[str, str] = {}
        self._watchdog = Watchdog()
        self._producer = Producer(
            producer_options(
                kafka,
                **{
                    "transactional.id": transactional_id,
                    "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                    "delivery.report.only.error": True,
                    "linger.ms": 20,
                    "batch.size": 1024 * 1024,
                },
            )
        )
        with suppress(KafkaException):  # not yet connected, init_transactions looks again only after 0.5 s
            self._producer.list_topics(LEDGER, timeout=_CALL_TIMEOUT_S)
        self._patiently(lambda: self._producer.init_transactions(_CALL_TIMEOUT_S), "init_transactions")

    def transact(
        self, packets: Sequence[Packet], positions: Sequence[tuple[list[TopicPartition], Any]]
    ) -> None:
        """Publish everything and commit the offsets, or neither.

        positions : of each consumer group the offsets, and its metadata

        Raises RetryBatch (aborted: rewind and do the batch again), its kind DeliveryFailed with the topics
        at fault, or WorkerFenced (leave this process).
        """
        self._failures = {}
        try:
            self._producer.begin_transaction()
            self._produce(packets)
            for offsets, group in positions:
                self._patiently(partial(self._send_offsets, offsets, group), "offsets")
            self._patiently(lambda: self._producer.commit_transaction(_CALL_TIMEOUT_S), "commit")
        except KafkaException as error:
            self._abort(error.args[0], {packet.topic for packet in packets})

    def _send_offsets(self, offsets: list[TopicPartition], group: Any) -> None:
        self._producer.send_offsets_to_transaction(offsets, group, _CALL_TIMEOUT_S)

    def close(self) -> None:
        """Let go; anything unfinished was never visible."""
        self._producer.purge()
        self._producer.flush(1.0)

    def _produce(self, packets: Sequence[Packet]) -> None:
        for number, packet in enumerate(packets):
            while True:
                try:
                    self._producer.produce(
                        packet.topic,
                        packet.value,
                        packet.key,
                        headers=list(packet.headers) or None,
                        on_delivery=self._on_delivery,
                    )
                    break
                except BufferError:
                    self._producer.poll(0.1)
            if number % _POLL_EVERY == 0:
                self._producer.poll(0)

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and error.code() in _TOPIC_FAULTS:
            self._failures.setdefault(message.topic(), error.str())

    def _patiently(self, call: Callable[[], None], what: str) -> None:
        """Repeat a call while the client says that repeating it is right."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                with self._watchdog.expecting(_STUCK_S, what):
                    return call()
            except KafkaException as error:
                cause = error.args[0]
                if not cause.retriable() or time.monotonic() > deadline:
                    raise
                log.warning("%s: %s; trying again", what, cause.str())
                self._producer.poll(0.1)

    def _abort(self, cause: KafkaError, topics: set[str]) -> None:
        if cause.fatal() or cause.code() == KafkaError._FENCED:
            raise WorkerFenced(f"the producer failed for good: {cause.str()}")
        try:
            self._patiently(lambda: self._producer.abort_transaction(_CALL_TIMEOUT_S), "abort")
        except KafkaException as error:
            raise WorkerFenced(f"a transaction could not be aborted: {error.args[0].str()}") from error
        self._producer.poll(0)
        failures = self._failures or self._missing(topics)
        if failures:
            raise DeliveryFailed(dict(failures))
        raise RetryBatch(f"the transaction was aborted: {cause.str()}")

    def _missing(self, topics: set[str]) -> dict[str, str]:
        """Topics that are gone: the coordinator refuses a transaction with them without saying which.

        Looked at twice: a broker that has just come up may not know all its topics yet.
        """
        missing = topics
        for _ in range(2):
            try:
                present = self._producer.list_topics(timeout=_CALL_TIMEOUT_S).topics
            except KafkaException:
                return {}
            missing = {topic for topic in missing if topic not in present}
            if not missing:
                break
            time.sleep(_SECOND_LOOK_S)
        return dict.fromkeys(missing, "the topic does not exist")
