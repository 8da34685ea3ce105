"""Alerts in from Kafka: a member of the consumer group that knows which offsets each batch covers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka import Message as KafkaMessage

from broker.config import KafkaSettings, RunSettings
from broker.errors import WorkerFenced
from broker.kafka.clients import PartitionKey, consumer_options, watermarks
from broker.kafka.faults import GROUP, ClientFaults, failure, is_fatal
from broker.message import Headers, Message
from broker.metrics import CLIENT_FAULTS
from broker.text import utf8

SESSION_TIMEOUT_MS = 6000
_CHUNK = 250
_CALL_TIMEOUT_S = 10.0
_COMMIT_PATIENCE_S = 60.0
UNREADABLE_HEADERS = "unreadable-headers"
"""The one header of a message whose own cannot be read; its value is why."""
_LISTEN_S = 0.1


@dataclass(frozen=True)
class Range:
    """The offsets of one partition that a batch covers: [before, after), `expired` of them never seen."""

    topic: str
    partition: int
    before: int
    after: int
    expired: int


@dataclass(frozen=True)
class Polled:
    """A batch of messages and exactly the offsets that it accounts for (some may hold no message)."""

    messages: list[Message] = field(default_factory=list)
    ranges: list[Range] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def before(self, ends: Mapping[PartitionKey, int]) -> Polled:
        """What it holds of some partitions before an offset, and all of the others."""
        messages = [m for m in self.messages if m.offset < ends.get((m.topic, m.partition), m.offset + 1)]
        cut = [
            replace(item, after=min(item.after, ends.get((item.topic, item.partition), item.after)))
            for item in self.ranges
        ]
        return Polled(messages, [item for item in cut if item.after > item.before])


class KafkaInput:
    """One static member of the pipeline's consumer group.

    Offsets are never committed here: the producer's transaction does it with `offsets` and `metadata`.
    A partition that is taken away between two polls takes its unprocessed messages with it; one that
    is given starts at its committed offset. A partition that is held brings nothing until it is released;
    a rewind releases all.

    assigned : whether the group has told this member its share, and has not put it out since
    faults : what keeps it from its work; `tell` is given a text about those that lasted, once they are over
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        run: RunSettings,
        instance_id: str,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._run = run
        client = f"the reader of group {run.group}"
        self.faults = ClientFaults(client, lambda name: CLIENT_FAULTS.labels("input", name).inc(), tell)
        self._fatal: KafkaError | None = None
        self._positions: dict[PartitionKey, int] = {}
        self._resume: dict[PartitionKey, int] = {}
        self._disturbed: set[PartitionKey] = set()
        self._held: set[PartitionKey] = set()
        self.assigned = self._rejoined = False
        self._consumer = Consumer(
            consumer_options(
                kafka,
                **{
                    "group.id": run.group,
                    "group.instance.id": instance_id,
                    "partition.assignment.strategy": "cooperative-sticky",
                    "session.timeout.ms": SESSION_TIMEOUT_MS,
                    "heartbeat.interval.ms": 1500,
                    "enable.partition.eof": True,
                    "error_cb": self._on_error,
                },
            )
        )
        self._consumer.subscribe(
            list(run.topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def poll(self) -> Polled:
        """The next batch: what is here within run.poll_ms, more if there is a backlog.

        Raises WorkerFenced when another process took this member's place, or its client failed for good.
        """
        self._disturbed.clear()
        self.faults.look_for_life(self._consumer)
        messages: list[KafkaMessage] = []
        size, deadline = 0, time.monotonic() + self._run.poll_ms / 1000
        while len(messages) < self._run.batch_max and size < self._run.batch_max_mib << 20:
            patience = deadline - time.monotonic() if len(messages) < self._run.batch_min else 0.0
            chunk = self._consume(min(_CHUNK, self._run.batch_max - len(messages)), max(0.0, patience))
            messages += chunk
            size += sum(len(message) for message in chunk)
            if not chunk and patience <= 0.0:
                break
        return self._account(messages)

    def rewind(self) -> None:
        """Go back to the committed offsets; what was polled since comes again.

        Raises RetryBatch, or WorkerFenced.
        """
        try:
            self._start_at_committed(list(self._positions), self._consumer.seek)
            self._consumer.resume([TopicPartition(*key) for key in self._held])
        except KafkaException as error:
            self._listen()
            raise failure("cannot go back to the committed offsets", error) from error
        self._held.clear()

    def _listen(self) -> None:
        """Hear what keeps this member from going back: what the group has decided is told only to who polls.

        Messages that come are dropped; the rewind that is tried next goes back behind them.
        """
        self._consume(_CHUNK, _LISTEN_S)

    def hold(self, polled: Polled, offsets: Mapping[PartitionKey, int]) -> Polled:
        """Leave the last batch's messages of some partitions, each from an offset on, for later.

        Returns what is left of the batch. What was left comes again, and more, after `release`.
        Raises RetryBatch, or WorkerFenced.
        """
        try:
            self._consumer.pause([TopicPartition(*key) for key in offsets])
        except KafkaException as error:
            raise failure("cannot pause a partition", error) from error
        self._held |= offsets.keys()
        self._positions.update(offsets)
        return polled.before(offsets)

    def release(self, key: PartitionKey) -> None:
        """Let a held partition go on where it was held.  Raises RetryBatch, or WorkerFenced."""
        if key not in self._held:
            return
        part = TopicPartition(*key, self._positions[key])
        try:
            self._consumer.seek(part)
            self._consumer.resume([part])
        except KafkaException as error:
            raise failure("cannot go on with a paused partition", error) from error
        self._held.discard(key)

    def owns(self, key: PartitionKey) -> bool:
        """Whether a partition is this member's, held or not."""
        return key in self._positions

    def owned(self) -> list[PartitionKey]:
        """Every partition that is this member's, held or not; may be asked from another thread."""
        return sorted(self._positions.copy())

    @staticmethod
    def offsets(polled: Polled) -> list[TopicPartition]:
        """The positions to commit with a batch."""
        return [TopicPartition(item.topic, item.partition, item.after) for item in polled.ranges]

    def metadata(self) -> Any:
        """The group's metadata, for the producer's transaction."""
        return self._consumer.consumer_group_metadata()

    def close(self) -> None:
        """Leave; as a static member its partitions stay its own until the session times out."""
        self._consumer.close()

    def _consume(self, count: int, timeout_s: float) -> list[KafkaMessage]:
        self._rejoined = False
        try:
            raw = self._consumer.consume(count, timeout_s)
        except KafkaException as error:
            raise WorkerFenced(f"{self.faults.client} failed for good: {error.args[0].str()}") from error
        messages = [message for message in raw if self._is_record(message)]
        if self._fatal is not None:
            raise WorkerFenced(f"{self.faults.client} failed for good: {self._fatal.str()}")
        if messages:
            self.faults.over(*{message.topic() for message in messages})
        if self._rejoined:  # only now: what put it out is told as a message, after the callbacks of both
            self.faults.over(GROUP)
        return messages

    def _is_record(self, message: KafkaMessage) -> bool:
        error = message.error()
        if error is None:
            return True
        if error.code() == KafkaError._PARTITION_EOF:
            self.faults.over(message.topic())
            self._at_end(message)
        else:
            self._on_error(error, message.topic() or "")
        return False

    def _on_error(self, error: KafkaError, topic: str = "") -> None:
        """What librdkafka says of its own accord, or in the place of a message."""
        if is_fatal(error):
            self._fatal = error
            return
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART and topic.startswith("^"):
            return  # a pattern without a topic so far
        self.faults.begin(error, topic)

    def _at_end(self, message: KafkaMessage) -> None:
        """The end may lie past records we never see (transaction markers): it counts as read up to there."""
        key = (message.topic(), message.partition())
        if self._ours(key):
            self._resume[key] = message.offset()

    def _account(self, raw: Sequence[KafkaMessage]) -> Polled:
        """Messages of partitions that stayed ours throughout, and the ranges they and the ends cover."""
        messages = [m for m in raw if self._ours((m.topic(), m.partition()))]
        first: dict[PartitionKey, int] = {}
        after = {key: end for key, end in self._resume.items() if self._ours(key)}
        self._resume.clear()
        for message in messages:
            key = (message.topic(), message.partition())
            first.setdefault(key, message.offset())
            after[key] = max(message.offset() + 1, after.get(key, 0))
        ranges = [
            Range(*key, before, after[key], self._expired(key, before, first.get(key, after[key])))
            for key, before in self._positions.items()
            if after.get(key, before) > before
        ]
        self._positions.update({(item.topic, item.partition): item.after for item in ranges})
        self._restart(set(self._disturbed))
        return Polled([as_message(message) for message in messages], ranges)

    def _ours(self, key: PartitionKey) -> bool:
        return key in self._positions and key not in self._disturbed and key not in self._held

    def _restart(self, disturbed: set[PartitionKey]) -> None:
        """A partition that was taken and given back within one poll is read again from its commit."""
        again = [key for key in disturbed if key in self._positions]
        if again:
            self._start_at_committed(again, self._consumer.seek)

    def _expired(self, key: PartitionKey, expected: int, found: int) -> int:
        """Records between two positions that are gone because retention outran us."""
        if found <= expected:
            return 0
        return max(0, min(self._low(key), found) - expected)

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self.assigned = self._rejoined = True
        keys = [(part.topic, part.partition) for part in partitions]
        starts = self._committed(keys)
        self._positions.update(starts)
        self._consumer.incremental_assign([TopicPartition(*key, offset) for key, offset in starts.items()])

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        held = [part for part in partitions if (part.topic, part.partition) in self._held]
        if held:  # else it would still be paused when it is given back
            self._consumer.resume(held)
        for part in partitions:
            key = (part.topic, part.partition)
            self._disturbed.add(key)
            self._held.discard(key)
            self._positions.pop(key, None)
            self._resume.pop(key, None)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """The group gave them away without asking: what was read of them since the commit is another's."""
        self.assigned = False
        self._on_revoke(consumer, partitions)

    def _start_at_committed(self, keys: Sequence[PartitionKey], move: Any) -> None:
        for key, offset in self._committed(keys).items():
            move(TopicPartition(*key, offset))
            self._positions[key] = offset
            self._resume.pop(key, None)

    def _committed(self, keys: Sequence[PartitionKey]) -> dict[PartitionKey, int]:
        """Where each partition goes on: its committed offset, else its first record."""
        if not keys:
            return {}
        starts = {}
        for part in self._stable_commits([TopicPartition(*key) for key in keys]):
            key = (part.topic, part.partition)
            starts[key] = part.offset if part.offset >= 0 else self._low(key)
        return starts

    def _stable_commits(self, wanted: list[TopicPartition]) -> list[TopicPartition]:
        """Committed offsets; those in a dead worker's open transaction are waited for until it is aborted."""
        deadline = time.monotonic() + _COMMIT_PATIENCE_S
        while True:
            try:
                parts = self._consumer.committed(wanted, timeout=_CALL_TIMEOUT_S)
                unsettled = [part.error for part in parts if part.error is not None]
                if not unsettled:
                    return list(parts)
                trouble = unsettled[0]
            except KafkaException as error:
                trouble = error.args[0]
            if is_fatal(trouble) or time.monotonic() > deadline:
                raise KafkaException(trouble)
            time.sleep(0.1)

    def _low(self, key: PartitionKey) -> int:
        return watermarks(self._consumer, *key, _COMMIT_PATIENCE_S)[0]


def as_message(raw: KafkaMessage) -> Message:
    """A record as librdkafka gives it, as ours; a missing value counts as empty, a missing time as 0.

    Headers of which one cannot be read (its name is not UTF-8) are replaced by one that says so: an alert is
    judged by its value.
    """
    kind, timestamp = raw.timestamp()
    return Message(
        raw.topic(),
        raw.partition(),
        raw.offset(),
        0 if kind == TIMESTAMP_NOT_AVAILABLE else timestamp,
        raw.value() or b"",
        raw.key(),
        _headers(raw),
    )


def _headers(raw: KafkaMessage) -> Headers:
    try:
        return tuple((name, value or b"") for name, value in raw.headers() or ())
    except (SystemError, UnicodeError) as error:  # the client decodes names, and fails by SystemError
        why = utf8(str(error.__cause__ or error.__context__ or error))
        return ((UNREADABLE_HEADERS, why),)
