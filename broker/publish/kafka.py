"""Packets out to Kafka: one transaction a batch, with the batch's input offsets in it.

What is done next, and after what, is protocol.py's; here its steps are carried out on librdkafka.

Of a connection that broke under a request librdkafka tells neither the call, which it repeats inside, nor
`error_cb` (seen with 2.16); its log does, in a line that is put before the repeated request is answered. So
the log is listened to (`_Ear`), with `debug=broker`: without it, a line that repeats one of the last half
minute is left out, and so is that the client let go of a coordinator that moved. It says some three lines a
transaction. A client is of use only until the first line that tells of trouble.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition, libversion

from broker.config import KafkaSettings
from broker.errors import BrokerError, RetryBatch, WorkerFenced
from broker.kafka.clients import producer_options
from broker.kafka.delivery import (
    Addressed,
    FreshPartitions,
    Order,
    Reports,
    partition_counts,
    produce,
    reporting,
    served,
)
from broker.kafka.faults import is_fatal
from broker.kafka.topics import LEDGER
from broker.message import Packet
from broker.publish.protocol import Answer, Delivery, Step, following, settled, started
from broker.watchdog import Watchdog

log = logging.getLogger(__name__)

TRANSACTION_TIMEOUT_MS = 10000
_CALL_TIMEOUT_S = 5.0
_STEP_S = 10.0
"""How long a step is tried; a transaction that takes longer is aborted by Kafka anyway."""
_STUCK_S = 10.0
"""A call that is told to end after _CALL_TIMEOUT_S and has not by now never will."""
_SLOW_END_S = 2.0
"""A commit or abort that takes longer may have been sent twice; it takes some ten milliseconds."""
_START_PATIENCE_S = 60.0
_IDLE_S = 60.0
"""After a pause a client is replaced: what became of its connections meanwhile was not asked."""
_TROUBLES = ("REQTMOUT", "TXNERR", "FATAL")
"""Lines of librdkafka's log: a request that timed out, a transaction that failed, a client that did."""
_LET_GO = "_DESTROY_BROKER"
"""In the line about a bootstrap address that is no more needed: nothing was under way there."""
_LISTENING = {"log_level": 7, "debug": "broker"}
_POLL_EVERY = 500
_LOOK_S = 0.5
_STARTS = 3
_STEADY = {"metadata.recovery.strategy": "none"} if libversion()[1] >= 0x020B0000 else {}
"""Else the client forgets its brokers when all are down, and `send_offsets_to_transaction` waits for ever for
the group coordinator that it remembers (librdkafka issue 5511; 2.16 does after one broken connection)."""
_TOPIC_FAULTS = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_RECORD,
)
"""Errors that are about one topic; all others are about the transaction, and say nothing of a topic."""

Positions = Sequence[tuple[list[TopicPartition], Any]]
"""Of each consumer group the offsets to commit, and its metadata."""


class DeliveryFailed(RetryBatch):
    """Topics that could not be written to: the transaction was aborted, the batch must be done again."""

    def __init__(self, failures: dict[str, str]) -> None:
        super().__init__("; ".join(f"{topic}: {why}" for topic, why in failures.items()))
        self.failures = failures


@dataclass
class _Batch:
    """What one attempt is to deliver, and what was found wrong with it."""

    packets: Sequence[Packet] = ()
    positions: Positions = ()
    order: Order = field(default_factory=Order)
    cause: str = ""
    failures: dict[str, str] = field(default_factory=dict)


class _Ear:
    """Listens to the log of one client for requests that were cut off or timed out."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def log(self, level: int, text: str, facility: str, client: str, said: str) -> None:
        """One line, as confluent-kafka hands it to a logger."""
        log.log(logging.ERROR if level >= logging.CRITICAL else logging.DEBUG, text, facility, client, said)
        broken = facility == "FAIL" and ("in state UP" in said or "in state " not in said)
        if (broken and _LET_GO not in said) or facility in _TROUBLES:
            self.heard.append(said)


class TransactionClient:
    """One transactional producer, from its start to its end.

    initialised : whether init_transactions is done; before, it may be called again
    """

    def __init__(self, kafka: KafkaSettings, transactional_id: str, watchdog: Watchdog) -> None:
        self.initialised = False
        self._ear, self._watchdog = _Ear(), watchdog
        options = producer_options(
            reporting(kafka),
            **{
                "transactional.id": transactional_id,
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                "linger.ms": 20,
                "batch.size": 1024 * 1024,
            },
        )
        self._producer = Producer(options | _STEADY | _LISTENING, logger=self._ear)
        self.fresh = FreshPartitions(partial(partition_counts, self._producer))

    @property
    def troubled(self) -> bool:
        """Whether a request may have been cut off, sent twice or be late since the start of this client."""
        with suppress(KafkaException):  # what it failed with is told by the next call too
            self.listen()
        return bool(self._ear.heard)

    def listen(self) -> None:
        """Hear what there is to hear.  Raises KafkaException if the client failed for good."""
        served(self._producer.poll, 0)

    def initialise(self) -> None:
        """Take the place of all earlier producers of this id, whose open transactions end by it."""
        with suppress(KafkaException):  # not yet connected, init_transactions looks again only after 0.5 s
            self._producer.list_topics(LEDGER, timeout=_CALL_TIMEOUT_S)
        self._call("init_transactions", self._producer.init_transactions)
        self.listen()
        self.initialised = True

    def begin(self, packets: Sequence[Packet]) -> Order:
        """Begin a transaction; in which order its records go."""
        order = self.fresh.order(packets)
        self._producer.begin_transaction()
        return order

    def send(self, records: Iterable[Addressed]) -> Reports:
        """Send records and wait for their reports, as long as they may all be good."""
        reports = Reports()
        for number, record in enumerate(records):
            try:
                produce(self._producer, record, reports)
                reports.awaited += 1
            except KafkaException as error:
                reports.errors.setdefault(record[0].topic, error.args[0])
                break
            if number % _POLL_EVERY == 0:
                self.listen()
        deadline = time.monotonic() + _STEP_S
        while served(self._producer.flush, _LOOK_S) and not reports.errors and time.monotonic() < deadline:
            pass
        self._ear.heard += _not_of_topics(reports)
        return reports

    def add_positions(self, offsets: list[TopicPartition], group: Any) -> None:
        """Put the positions of one consumer group into the transaction."""
        self._call("offsets", partial(self._producer.send_offsets_to_transaction, offsets, group))

    def commit(self) -> None:
        """Commit.  If this raises, the outcome is not known."""
        self._end("commit", self._producer.commit_transaction)

    def abort(self) -> None:
        """Abort."""
        self._end("abort", self._producer.abort_transaction)

    def partitions(self) -> dict[str, int]:
        """Number of partitions of each topic."""
        return partition_counts(self._producer)

    def close(self) -> None:
        """Let go of it at once, whatever its state; anything unfinished was never visible."""
        with suppress(KafkaException):
            self._producer.purge()
            served(self._producer.flush, 0)

    def _end(self, what: str, call: Callable[[float], None]) -> None:
        start = time.monotonic()
        self._call(what, call)
        if time.monotonic() - start > _SLOW_END_S:
            self._ear.heard.append(f"{what} was slow")

    def _call(self, what: str, call: Callable[[float], None]) -> None:
        """Repeat a call while the client says that repeating it is right; that is trouble."""
        deadline = time.monotonic() + _STEP_S
        while True:
            try:
                with self._watchdog.expecting(_STUCK_S, what):
                    served(call, _CALL_TIMEOUT_S)
                return
            except KafkaException as error:
                cause = error.args[0]
                if cause.retriable() or cause.code() == KafkaError._TIMED_OUT:
                    self._ear.heard.append(f"{what}: {cause.str()}")
                if not cause.retriable() or time.monotonic() > deadline:
                    raise
                log.warning("%s: %s; trying again", what, cause.str())
                served(self._producer.poll, 0.1)


class KafkaOutput:
    """The transactional output of one worker slot.

    It is settled, when made, before anybody reads the committed positions: no transaction of an earlier
    producer of this slot is open.  Raises BrokerError if Kafka does not let it, WorkerFenced.
    """

    def __init__(self, kafka: KafkaSettings, transactional_id: str) -> None:
        self._kafka, self._id = kafka, transactional_id
        self._watchdog = Watchdog()
        self._delivery, self._used = Delivery(), time.monotonic()
        self._client: TransactionClient | None = None
        self._settle_at_start()

    def transact(self, packets: Sequence[Packet], positions: Positions) -> None:
        """Publish everything and commit the offsets, or neither.

        positions : of each consumer group the offsets, and its metadata

        Raises RetryBatch (nothing is out: `settle`, rewind and do the batch again), its kind DeliveryFailed
        with the topics at fault, or WorkerFenced (leave this process).
        """
        batch = _Batch(packets, positions)
        if time.monotonic() - self._used > _IDLE_S:
            self._delivery = replace(self._delivery, troubled=True)
        end = self._carry_out(started(self._delivery), batch)
        if end is not Step.PUBLISHED:
            self._raise(end, batch)

    def settle(self) -> None:
        """Make sure that no transaction of this slot is open, so that the committed positions hold.

        To be called before they are read after a RetryBatch.  Raises RetryBatch (try later) or WorkerFenced.
        """
        batch = _Batch()
        end = self._carry_out(settled(self._delivery), batch)
        if end is not Step.AGAIN:
            self._raise(end, batch)

    def close(self) -> None:
        """Let go; anything unfinished was never visible.  Never raises, so that it hides no error."""
        self._delivery = Delivery()
        self._drop()

    def _settle_at_start(self) -> None:
        deadline = time.monotonic() + _START_PATIENCE_S
        while True:
            try:
                return self.settle()
            except RetryBatch as trouble:
                if time.monotonic() > deadline:
                    self.close()
                    raise BrokerError(f"{trouble}; is Kafka running?") from trouble

    def _carry_out(self, now: Delivery, batch: _Batch) -> Step:
        """Every step until the batch is left; how it was left."""
        self._delivery = Delivery()  # if a step raises what it should not, all is open
        while not now.ended:
            answer, troubled = self._answer(now.step, batch)
            now = following(now, answer, troubled=troubled)
        self._delivery, self._used = now, time.monotonic()
        return now.step

    def _answer(self, step: Step, batch: _Batch) -> tuple[Answer, bool]:
        """Carry out one step.  Returns how it went, and whether there was trouble."""
        try:
            answer = self._step(step, batch)
        except KafkaException as error:
            cause = error.args[0]
            batch.cause = batch.cause or f"{step.name.lower()}: {cause.str()}"
            answer = Answer.FATAL if is_fatal(cause) else Answer.REFUSED
        return answer, self._client is not None and self._client.troubled

    def _step(self, step: Step, batch: _Batch) -> Answer:
        """Carry out one step.  Raises KafkaException if it is refused or its outcome is not known."""
        if step is Step.RENEW or self._client is None:
            self._renew()
            return Answer.DONE
        client = self._client
        match step:
            case Step.BEGIN:
                batch.order = client.begin(batch.packets)
            case Step.FIRSTS:
                return self._send_firsts(client, batch)
            case Step.REST:
                return self._judge(client, client.send(batch.order.rest), batch)
            case Step.OFFSETS:
                for offsets, group in batch.positions:
                    client.add_positions(offsets, group)
            case Step.COMMIT:
                client.commit()
            case Step.ABORT:
                client.abort()
        return Answer.DONE

    def _renew(self) -> None:
        """A new client in place of the old one; one that did not get to its start goes on with it."""
        if self._client is not None and self._client.initialised:
            self._drop()
        for _ in range(_STARTS):
            if self._client is None:
                self._client = TransactionClient(self._kafka, self._id, self._watchdog)
            try:
                self._client.initialise()
            except KafkaException as error:
                if not error.args[0].retriable():
                    self._drop()
                raise
            if not self._client.troubled:
                return
            self._drop()
        raise KafkaException(KafkaError(KafkaError._TRANSPORT, "connections to Kafka do not last"))

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _send_firsts(self, client: TransactionClient, batch: _Batch) -> Answer:
        if batch.order.unknown:
            batch.cause = f"no topic {', '.join(sorted(batch.order.unknown))}"
            return Answer.REFUSED
        firsts = batch.order.firsts
        answer = self._judge(client, client.send(firsts), batch)
        if answer is Answer.DONE:
            client.fresh.answer((packet.topic, partition) for packet, partition in firsts)
        return answer

    @staticmethod
    def _judge(client: TransactionClient, reports: Reports, batch: _Batch) -> Answer:
        """How the sending of records went, by all of their reports."""
        if reports.complete:
            return Answer.DONE
        client.fresh.forget(reports.nowhere)
        faults = {topic: e.str() for topic, e in reports.errors.items() if e.code() in _TOPIC_FAULTS}
        batch.failures |= faults
        batch.cause = _said(reports)
        if any(is_fatal(error) for error in reports.errors.values()):
            return Answer.FATAL
        return Answer.REFUSED if reports.errors else Answer.LOST

    def _raise(self, end: Step, batch: _Batch) -> None:
        match end:
            case Step.LEAVE:
                raise WorkerFenced(f"the producer failed for good: {batch.cause or 'it was fenced off'}")
            case Step.WAIT:
                raise RetryBatch(f"the producer could not be replaced yet: {batch.cause}")
        failures = batch.failures or self._missing({packet.topic for packet in batch.packets})
        if failures and self._client is not None:
            self._client.fresh.forget(failures)
            raise DeliveryFailed(dict(failures))
        raise RetryBatch(f"the transaction was aborted: {batch.cause or 'an earlier one was open'}")

    def _missing(self, topics: set[str]) -> dict[str, str]:
        """Topics that are gone: the coordinator refuses a transaction with them without saying which.

        Looked at twice: a broker that has just come up may not know all its topics yet.
        """
        missing = topics
        for _ in range(2):
            try:
                present = self._client.partitions() if self._client is not None else topics
            except KafkaException:
                return {}
            missing = {topic for topic in missing if topic not in present}
            if not missing:
                break
            time.sleep(_LOOK_S)
        return dict.fromkeys(missing, "the topic does not exist")


def _not_of_topics(reports: Reports) -> list[str]:
    """What went wrong that may still be under way, which a refusal of a topic is not."""
    found = [error.str() for error in reports.errors.values() if error.code() not in _TOPIC_FAULTS]
    return found if reports.complete or reports.errors else [_said(reports)]


def _said(reports: Reports) -> str:
    """Why some records are not delivered, in words."""
    lost = reports.awaited - reports.delivered
    if reports.errors:
        topic, error = next(iter(reports.errors.items()))
        return f"{lost} of {reports.awaited} records were not delivered, the first to {topic}: {error.str()}"
    if reports.nowhere:
        return f"records to {', '.join(sorted(reports.nowhere))} were reported as delivered, but nowhere"
    return f"{lost} of {reports.awaited} records were not acknowledged within {_STEP_S:g} s"
