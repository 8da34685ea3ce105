"""How every Kafka client of this package is configured, and the admin calls they share."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import (
    Consumer,
    IsolationLevel,
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
_POSITIONS_S = 10.0

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
    """High watermark of each partition, records of open transactions included.  Raises KafkaException."""
    return _offsets(client, partitions, OffsetSpec.latest())


def stable_offsets(client: AdminClient, partitions: Iterable[PartitionKey]) -> dict[PartitionKey, int]:
    """Last stable offset of each partition: where its first open transaction begins, or its end.

    Raises KafkaException.
    """
    return _offsets(client, partitions, OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)


def start_offsets(client: AdminClient, partitions: Iterable[PartitionKey]) -> dict[PartitionKey, int]:
    """Low watermark of each partition.  Raises KafkaException."""
    return _offsets(client, partitions, OffsetSpec.earliest())


def first_times(client: AdminClient, partitions: Iterable[PartitionKey]) -> dict[PartitionKey, int]:
    """Timestamp of each partition's first record [Unix ms]; those that hold none are left out.

    Raises KafkaException.
    """
    found = _listed(client, partitions, OffsetSpec.for_timestamp(0), IsolationLevel.READ_UNCOMMITTED)
    return {key: int(info.timestamp) for key, info in found.items() if info.offset >= 0}


def bystander(kafka: KafkaSettings, group: str) -> Consumer:
    """A consumer that may ask for a group's committed positions; it never subscribes, so it never joins.

    The admin client's calls about groups are not used anywhere: librdkafka dies in them when the group's
    coordinator moves. What is committed inside a transaction that is still open does not count yet.
    """
    return Consumer(consumer_options(kafka, **{"group.id": group, "isolation.level": "read_uncommitted"}))


def committed_offsets(
    kafka: KafkaSettings, group: str, partitions: Iterable[PartitionKey]
) -> dict[PartitionKey, int]:
    """Committed positions of a consumer group in some partitions; those without one are left out.

    Raises BrokerError.
    """
    consumer = bystander(kafka, group)
    try:
        return positions_of(consumer, partitions)
    finally:
        consumer.close()


def positions_of(consumer: Consumer, partitions: Iterable[PartitionKey]) -> dict[PartitionKey, int]:
    """What committed_offsets tells, by a consumer that is there already.  Raises BrokerError."""
    wanted = [TopicPartition(*key) for key in partitions]
    try:
        parts = consumer.committed(wanted, timeout=_POSITIONS_S) if wanted else []
    except KafkaException as error:
        raise BrokerError(f"cannot tell what a group has committed: {error.args[0].str()}") from error
    return {(part.topic, part.partition): part.offset for part in parts if _has_offset(part)}


def _has_offset(part: TopicPartition) -> bool:
    """Whether a group has a position in a partition; one that is not there any more has none."""
    if part.error is not None and part.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise BrokerError(f"cannot tell what is committed of {part.topic}: {part.error.str()}")
    return bool(part.error is None and part.offset >= 0)


def _offsets(
    client: AdminClient,
    partitions: Iterable[PartitionKey],
    spec: OffsetSpec,
    isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED,
) -> dict[PartitionKey, int]:
    return {key: int(info.offset) for key, info in _listed(client, partitions, spec, isolation).items()}


def _listed(
    client: AdminClient, partitions: Iterable[PartitionKey], spec: OffsetSpec, isolation: IsolationLevel
) -> dict[PartitionKey, Any]:
    wanted = {TopicPartition(topic, partition): spec for topic, partition in partitions}
    if not wanted:
        return {}
    futures = client.list_offsets(wanted, isolation_level=isolation, request_timeout=10)
    return {(part.topic, part.partition): future.result() for part, future in futures.items()}


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


def _await_topics(client: AdminClient, names: Sequence[str], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not set(names) <= set(topic_partitions(client)):
        if time.monotonic() > deadline:
            raise BrokerError(f"topics {', '.join(names)} were created but do not appear")
        time.sleep(0.05)
