"""A topic as a stream of decoded records: committed ones only, none hidden, no consumer group."""

from __future__ import annotations

import difflib
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from broker.client.decode import ControlSchemas, Received, Undecodable, decode, is_notice
from broker.config import KafkaSettings
from broker.errors import BrokerError
from broker.ingest.kafka import as_message
from broker.kafka.clients import PartitionKey, admin, end_offsets, reader, topic_partitions, watermarks
from broker.kafka.topics import FILTERS

log = logging.getLogger(__name__)

Start = Literal["latest", "beginning"] | datetime
_POLL_S = 0.2
_CHUNK = 500
_LOOK_FOR_TOPICS_S = 5.0
_CALL_TIMEOUT_S = 10.0


def warn(bad: Undecodable) -> None:
    """What is done with an undecodable record unless the user says otherwise: a line in the log."""
    message = bad.message
    log.warning("%s[%d]@%d: %s", message.topic, message.partition, message.offset, bad.why)


def warn_of_notice(notice: Received) -> None:
    """What is done with a notice in a filter's topic unless the user says otherwise: a line in the log."""
    log.warning("%s: %s", notice.message.topic, notice.value["text"])


class Stream:
    """Decoded records of some topics, as they are committed.

    topics : names, or patterns that start with ^ (topics that appear later are found within seconds)
    kafka  : host:port,... or the settings of a cluster that needs more than that
    start  : latest = what is committed from now on; beginning; or a time, in UTC if it names no zone
    on_undecodable : told of every record that cannot be read; the stream goes on
    on_notice : told of every notice in a filter's topic: that it is sampled, paused or restored. This is no
    hit, and the stream goes on

    Records of aborted transactions never appear, those of open ones once they are committed. Within a
    partition the order is kept. Iterating never ends by itself. Raises BrokerError when Kafka does not answer
    or a named topic does not exist. One thread at a time.

        with Stream("filters.broker.bright-young-transients", "127.0.0.1:9092", start="beginning") as stream:
            for received in stream:
                print(received.value["objectName"])
    """

    def __init__(
        self,
        topics: str | Sequence[str],
        kafka: str | KafkaSettings,
        *,
        start: Start = "latest",
        on_undecodable: Callable[[Undecodable], None] = warn,
        on_notice: Callable[[Received], None] = warn_of_notice,
    ) -> None:
        self._topics = (topics,) if isinstance(topics, str) else tuple(topics)
        self._kafka = KafkaSettings(bootstrap_servers=kafka) if isinstance(kafka, str) else kafka
        self._on_undecodable = on_undecodable
        self._on_notice = on_notice
        self._patterns = _patterns(self._topics)
        self._consumer: Consumer = reader(self._kafka, **{"enable.partition.eof": True})
        self._admin = admin(self._kafka)
        self._schemas = ControlSchemas(self._kafka)
        self._next: dict[PartitionKey, int] = {}
        self._ends: dict[PartitionKey, int] = {}
        self._failure: BrokerError | None = None
        self.expired = 0
        """Records that retention removed before this stream came to them."""
        present = topic_partitions(self._consumer, _CALL_TIMEOUT_S)
        _require(self._topics, present)
        self._follow(self._matching(present), start)
        self._looked = self._quiet_since = time.monotonic()

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics followed now."""
        return tuple(sorted({topic for topic, _ in self._next}))

    def __iter__(self) -> Iterator[Received]:
        while True:
            yield from self.poll(_POLL_S)

    def until_idle(self, quiet_s: float) -> Iterator[Received]:
        """Every record up to the moment at which `idle(quiet_s)` holds."""
        while not self.idle(quiet_s):
            yield from self.poll(_POLL_S)

    def past(self) -> Iterator[Received]:
        """Every record that is there now; ends even where new ones never cease.

        Waits for the end of a transaction that is open now. Raises BrokerError if Kafka does not answer.
        """
        ends = self._high_watermarks()
        while any(
            max(self._next[key], self._ends.get(key, 0)) < end
            for key, end in ends.items()
            if key in self._next
        ):
            received = self.poll(_POLL_S)
            yield from received
            if not received:
                self._high_watermarks()  # or a Kafka that has gone would be waited for without end

    def poll(self, timeout_s: float = _POLL_S) -> list[Received]:
        """The records that are here; waits up to timeout_s for the first one.

        Raises BrokerError when no more can come: a topic was deleted, or may not be read.
        """
        if self._failure is not None:
            raise self._failure
        if self._patterns and time.monotonic() - self._looked > _LOOK_FOR_TOPICS_S:
            self._look_for_topics()
        first = self._consumer.poll(timeout_s)
        raw = [] if first is None else [first, *self._consumer.consume(_CHUNK, 0.0)]
        return [received for one in raw if (received := self._take(one)) is not None]

    def idle(self, quiet_s: float) -> bool:
        """Whether all there is has been read, nothing came for quiet_s, and no transaction is open.

        Reading ends at the last stable offset. A record of an open transaction lies between it and the high
        watermark, so the two must be the same. Raises BrokerError if Kafka does not answer.
        """
        if self._ends.keys() != self._next.keys() or self._ends != self._high_watermarks():
            self._quiet_since = time.monotonic()
            return False
        return time.monotonic() - self._quiet_since >= quiet_s

    def close(self) -> None:
        """Let go of the connections."""
        self._consumer.close()
        self._schemas.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, raw: KafkaMessage) -> Received | None:
        """One record decoded; None for an event, and for a record that went to a callback."""
        trouble = raw.error()
        if trouble is not None:
            self._note(trouble, raw)
            return None
        self._quiet_since = time.monotonic()
        self._account((raw.topic(), raw.partition()), raw.offset())
        decoded = decode(as_message(raw), self._schemas)
        if isinstance(decoded, Undecodable):
            self._on_undecodable(decoded)
        elif decoded.message.topic.startswith(FILTERS) and is_notice(decoded.value):
            self._on_notice(decoded)
        else:
            return decoded
        return None

    def _account(self, key: PartitionKey, offset: int) -> None:
        """Note where we are, and what retention took away in between."""
        if key not in self._next:
            return  # its topic was deleted meanwhile
        expected, self._next[key] = self._next[key], offset + 1
        self._ends.pop(key, None)
        if 0 <= expected < offset:  # transaction markers leave holes too: only the low watermark tells
            low, _ = self._consumer.get_watermark_offsets(TopicPartition(*key), cached=True)
            lost = min(int(low), offset) - expected
            if lost > 0:
                self.expired += lost
                log.warning("%s[%d]: %d records expired before they were read", *key, lost)

    def _note(self, trouble: KafkaError, raw: KafkaMessage) -> None:
        key = (raw.topic(), raw.partition())
        if trouble.code() == KafkaError._PARTITION_EOF:
            if key in self._next:
                self._ends[key] = raw.offset()
        elif trouble.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
            self._gone(raw.topic())
        elif trouble.fatal() or trouble.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            self._failure = BrokerError(f"cannot read {raw.topic()!r}: {trouble.str()}")
        else:
            log.warning("%s", trouble.str())

    def _gone(self, topic: str) -> None:
        """A topic was deleted: an end for one asked for by name, normal for one of many."""
        if topic in self._topics:
            self._failure = BrokerError(f"topic {topic!r} was deleted")
        gone = [key for key in self._next if key[0] == topic]
        self._consumer.incremental_unassign([TopicPartition(*key) for key in gone])
        for key in gone:
            del self._next[key]
            self._ends.pop(key, None)

    def _high_watermarks(self) -> dict[PartitionKey, int]:
        try:
            return end_offsets(self._admin, self._next)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return {}  # deleted a moment ago; the consumer will be told, too
            raise BrokerError(f"cannot tell where topics end: {error.args[0].str()}") from error

    def _look_for_topics(self) -> None:
        self._looked = time.monotonic()
        try:
            present = topic_partitions(self._consumer, _CALL_TIMEOUT_S)
        except BrokerError as error:
            log.warning("%s", error)
            return
        new = [key for key in self._matching(present) if key not in self._next]
        self._follow(new, "beginning")

    def _matching(self, present: dict[str, int]) -> list[PartitionKey]:
        return [
            (topic, partition)
            for topic, count in present.items()
            if topic in self._topics or any(pattern.match(topic) for pattern in self._patterns)
            for partition in range(count)
        ]

    def _follow(self, keys: Sequence[PartitionKey], start: Start) -> None:
        if keys:
            first = self._first_offsets(keys, start)
            self._consumer.incremental_assign([TopicPartition(*key, first[key]) for key in keys])
            self._next.update(first)

    def _first_offsets(self, keys: Sequence[PartitionKey], start: Start) -> dict[PartitionKey, int]:
        """Where each partition starts; latest is fixed here and now, not at the first fetch."""
        if start == "beginning":
            return dict.fromkeys(keys, OFFSET_BEGINNING)
        since = self._since(keys, start) if isinstance(start, datetime) else {}
        return {key: since[key] if since.get(key, -1) >= 0 else self._end(key) for key in keys}

    def _since(self, keys: Sequence[PartitionKey], moment: datetime) -> dict[PartitionKey, int]:
        """First offset of each partition at or after a time; below 0 where there is none."""
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        wanted = [TopicPartition(*key, int(aware.timestamp() * 1000)) for key in keys]
        try:
            found = self._consumer.offsets_for_times(wanted, timeout=_CALL_TIMEOUT_S)
        except KafkaException as error:
            raise BrokerError(f"cannot find {moment.isoformat()}: {error.args[0].str()}") from error
        return {(part.topic, part.partition): part.offset for part in found}

    def _end(self, key: PartitionKey) -> int:
        """Last stable offset of a partition: what is committed later lies beyond it."""
        try:
            return watermarks(self._consumer, *key, _CALL_TIMEOUT_S)[1]
        except KafkaException as error:
            raise BrokerError(f"cannot find the end of {key[0]!r}: {error.args[0].str()}") from error


def _patterns(topics: Sequence[str]) -> list[re.Pattern[str]]:
    try:
        return [re.compile(topic) for topic in topics if topic.startswith("^")]
    except re.error as error:
        raise BrokerError(f"{error.pattern!r} is not a pattern: {error}") from error


def _require(topics: Sequence[str], present: dict[str, int]) -> None:
    """Raise BrokerError unless every topic asked for by name exists."""
    for topic in topics:
        if not topic.startswith("^") and topic not in present:
            ours = [name for name in present if not name.startswith("__")]
            near = difflib.get_close_matches(topic, ours, 3) or sorted(ours)[:10]
            there = (
                f"did you mean {' or '.join(near)}?"
                if near
                else "this Kafka has none; `broker run` creates them"
            )
            raise BrokerError(f"no topic {topic!r}; {there}")
