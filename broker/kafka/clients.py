"""How every Kafka client of this package is configured, and the admin calls they share."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType

from broker.config import KafkaSettings
from broker.errors import BrokerError
from broker.kafka.topics import TopicSpec

MAX_OUTPUT_BYTES = 17 * 1024 * 1024
"""Larger than the input: a full packet carries the original record and our fields."""
METADATA_REFRESH_MS = 5000
"""The default finds a new night's topic after five minutes."""
MARKED_S = 5.0
"""How long a committed transaction may take to be marked in every partition it wrote to."""

PartitionKey = tuple[str, int]


def client_options(kafka: KafkaSettings, **options: Any) -> dict[str, Any]:
    """Settings of one librdkafka client: ours, then the caller's, then the operator's pass-through."""
    base: dict[str, Any] = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "topic.metadata.refresh.interval.ms": METADATA_REFRESH_MS,
        "socket.keepalive.enable": True,
        "reconnect.backoff.max.ms": 1000,
        "log_level": 2,
    }
    return base | options | dict(kafka.options)


def consumer_options(kafka: KafkaSettings, **options: Any) -> dict[str, Any]:
    """Settings of a consumer that sees only committed records, of any size we accept."""
    base = {
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "fetch.message.max.bytes": MAX_OUTPUT_BYTES,
        "fetch.max.bytes": 64 * 1024 * 1024,
        "receive.message.max.bytes": 80 * 1024 * 1024,
        "queued.max.messages.kbytes": 128 * 1024,
        "allow.auto.create.topics": False,
    }
    return client_options(kafka, **(base | options))


def producer_options(kafka: KafkaSettings, **options: Any) -> dict[str, Any]:
    """Settings of an idempotent producer that partitions as Java clients do."""
    base = {
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "message.max.bytes": MAX_OUTPUT_BYTES,
        "queue.buffering.max.messages": 500_000,
        "queue.buffering.max.kbytes": 1024 * 1024,
        "topic.metadata.propagation.max.ms": 8000,
    }
    return client_options(kafka, **(base | options))


def reader(kafka: KafkaSettings, **options: Any) -> Consumer:
    """A consumer outside any group: it is told what to read and commits nothing."""
    return Consumer(consumer_options(kafka, **({"group.id": "broker-reader"} | options)))


def writer(kafka: KafkaSettings, **options: Any) -> Producer:
    """An idempotent producer outside transactions."""
    return Producer(producer_options(kafka, **options))


def admin(kafka: KafkaSettings) -> AdminClient:
    """An admin client."""
    return AdminClient(client_options(kafka))


def watermarks(consumer: Consumer, topic: str, partition: int, patience_s: float = 30.0) -> tuple[int, int]:
    """First and next offset of a partition; a partition without a leader for a moment is waited for.

    Raises KafkaException when it stays away.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=5.0)
            return int(low), int(high)
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def topic_partitions(client: AdminClient | Consumer, timeout_s: float = 10.0) -> dict[str, int]:
    """Number of partitions of every topic of the cluster.  Raises BrokerError if it does not answer."""
    try:
        metadata = client.list_topics(timeout=timeout_s)
    except KafkaException as error:
        raise BrokerError(f"Kafka does not answer: {error.args[0].str()}; is it running?") from error
    return {name: len(topic.partitions) for name, topic in metadata.topics.items() if topic.error is None}


def cluster_id(client: AdminClient) -> str:
    """The id a cluster was given when its storage was first made.  Raises BrokerError."""
    try:
        return str(client.list_topics(timeout=10.0).cluster_id)
    except KafkaException as error:
        raise BrokerError(f"Kafka does not answer: {error.args[0].str()}; is it running?") from error


def end_offsets(client: AdminClient, partitions: Iterable[PartitionKey]) -> dict[PartitionKey, int]:
    """High watermark of each partition."""
    return _offsets(client, partitions, OffsetSpec.latest())


def start_offsets(client: AdminClient, partitions: Iterable[PartitionKey]) -> dict[PartitionKey, int]:
    """Low watermark of each partition."""
    return _offsets(client, partitions, OffsetSpec.earliest())


def committed_offsets(client: AdminClient, group: str) -> dict[PartitionKey, int]:
    """Committed positions of a consumer group; empty if it has none."""
    request = [ConsumerGroupTopicPartitions(group)]
    result = client.list_consumer_group_offsets(request)[group].result(timeout=10)
    return {(part.topic, part.partition): part.offset for part in result.topic_partitions if part.offset >= 0}


def _offsets(
    client: AdminClient, partitions: Iterable[PartitionKey], spec: OffsetSpec
) -> dict[PartitionKey, int]:
    wanted = {TopicPartition(topic, partition): spec for topic, partition in partitions}
    if not wanted:
        return {}
    futures = client.list_offsets(wanted, request_timeout=10)
    return {(part.topic, part.partition): future.result().offset for part, future in futures.items()}


def create_topics(client: AdminClient, specs: Sequence[TopicSpec], timeout_s: float = 20.0) -> list[str]:
    """Create the topics that are missing and wait until every broker's clients can see them.

    Returns the names created. Raises BrokerError when the cluster refuses.
    """
    present = topic_partitions(client)
    missing = [spec for spec in specs if spec.name not in present]
    if not missing:
        return []
    new = [NewTopic(s.name, s.partitions, s.replication, config=dict(s.config)) for s in missing]
    for name, future in client.create_topics(new, operation_timeout=timeout_s).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise BrokerError(f"cannot create topic {name!r}: {error.args[0].str()}") from error
    names = [spec.name for spec in missing]
    _await_topics(client, names, timeout_s)
    return names


def topic_drift(client: AdminClient, specs: Sequence[TopicSpec]) -> list[str]:
    """One line for each setting of an existing topic that differs from our table."""
    present = topic_partitions(client)
    known = {spec.name: spec for spec in specs if spec.name in present}
    lines = [
        f"{name} has {present[name]} partitions, the table says {spec.partitions}"
        for name, spec in known.items()
        if present[name] != spec.partitions
    ]
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in known]
    for resource, future in client.describe_configs(resources).items() if resources else ():
        actual: Mapping[str, Any] = future.result()
        lines += [
            f"{resource.name}: {option} is {actual[option].value}, the table says {value}"
            for option, value in known[resource.name].config
            if actual[option].value != value
        ]
    return lines


def committed_values(kafka: KafkaSettings, partitions: Iterable[PartitionKey]) -> Iterator[bytes]:
    """Value of every committed record of some partitions, up to their ends as they are now.

    A commit returns before each partition has the transaction's mark, and until then its records are not
    shown: they are waited for, but not for longer than MARKED_S, as those of a transaction that is still
    open.
    All are read at once: an empty topic costs as long a wait as a full one.  Raises BrokerError.
    """
    ends = _ends(kafka, partitions)
    consumer = reader(kafka, **{"enable.partition.eof": True})
    try:
        left, deadline = set(ends), time.monotonic() + MARKED_S
        unmarked: set[PartitionKey] = set()
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for topic, number in left])
        while left - unmarked or (left and time.monotonic() < deadline):
            for message in consumer.consume(1000, 0.1):
                error, key = message.error(), (message.topic(), message.partition())
                if error is None:
                    if message.offset() < ends[key]:
                        yield message.value() or b""
                    if message.offset() + 1 >= ends[key]:
                        left.discard(key)
                elif error.code() == KafkaError._PARTITION_EOF:
                    # the last offset may be a transaction's mark, which is no message
                    (left.discard if message.offset() >= ends[key] else unmarked.add)(key)
                elif not error.retriable():
                    raise BrokerError(f"cannot read {message.topic()}: {error.str()}")
    finally:
        consumer.close()


def _ends(kafka: KafkaSettings, partitions: Iterable[PartitionKey]) -> dict[PartitionKey, int]:
    """Where some partitions end, records of open transactions included."""
    consumer = reader(kafka, **{"isolation.level": "read_uncommitted"})
    try:
        return {key: watermarks(consumer, *key)[1] for key in partitions}
    finally:
        consumer.close()


def _await_topics(client: AdminClient, names: Sequence[str], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not set(names) <= set(topic_partitions(client)):
        if time.monotonic() > deadline:
            raise BrokerError(f"topics {', '.join(names)} were created but do not appear")
        time.sleep(0.05)
