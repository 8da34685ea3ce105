"""Measuring this machine: every figure comes with the bare library doing the same in the same run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import redis
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from broker.assemble import prepare
from broker.client.send import Sender
from broker.config import Settings
from broker.errors import BrokerError
from broker.history.redis import RedisStore
from broker.kafka.clients import (
    admin,
    cluster_id,
    consumer_options,
    create_topics,
    producer_options,
    topic_partitions,
)
from broker.kafka.delivery import Reports
from broker.kafka.reading import committed_values
from broker.kafka.topics import ALERTS, TopicSpec
from broker.ledger import ledger_records
from broker.message import Packet
from broker.supervisor import Supervisor

_BATCH = 500


@dataclass(frozen=True)
class EndToEnd:
    """Alerts a second through the whole pipeline and through bare Kafka, medians over the repeats.

    pipeline : from the first commit to the last, the first transaction's alerts left out
    bare : one process that consumes the same input and produces as many bytes as the pipeline published, in
           transactions of 500
    """

    alerts: int
    workers: int
    repeats: int
    input_mib: float
    output_mib: float
    pipeline_per_s: float
    bare_per_s: float

    @property
    def ratio(self) -> float:
        """Pipeline over bare Kafka."""
        return self.pipeline_per_s / self.bare_per_s

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self) | {"ratio": self.ratio}


def end_to_end(
    settings: Settings,
    packets: Sequence[bytes],
    slots: Path,
    *,
    workers: int,
    repeats: int,
    say: Callable[[str], None],
) -> EndToEnd:
    """Measure on servers that are this process's own: the cache is emptied before each repeat."""
    topic = "bench_input"
    fill(settings, topic, packets)
    say(f"{len(packets):,} alerts of {sum(map(len, packets)) / len(packets) / 1024:.0f} kB are in Kafka")
    prepare(settings)
    pipeline, bare, published = [], [], 0
    for repeat in range(repeats):
        pipeline.append(pipeline_rate(settings, topic, f"bench-{repeat}", workers, slots))
        published = published or _published_bytes(settings)
        bare.append(_bare_rate(settings, topic, repeat, published // len(packets), len(packets)))
        say(f"repeat {repeat + 1}: pipeline {pipeline[-1]:,.0f}/s, bare Kafka {bare[-1]:,.0f}/s")
    mib = 1024 * 1024
    return EndToEnd(
        len(packets), workers, repeats, sum(map(len, packets)) / mib, published / mib,
        statistics.median(pipeline), statistics.median(bare),
    )  # fmt: skip


def fill(settings: Settings, topic: str, packets: Sequence[bytes]) -> None:
    """Every packet into the topic, acknowledged.  Raises BrokerError if one is not."""
    sender = Sender(settings)
    for packet in packets:
        sender.send(Packet(topic, None, packet))
    sender.finish().check()


def pipeline_rate(settings: Settings, topic: str, group: str, workers: int, slots: Path) -> float:
    """Alerts a second, by the ledger's own times."""
    _empty(settings)
    run = replace(settings.run, group=group, workers=workers, topics=(topic,))
    changed = replace(settings, run=run, metrics=replace(settings.metrics, port=0))
    before = len(list(ledger_records(settings.kafka)))
    Supervisor(changed, slots, until_idle_s=1.0).run()
    records = list(ledger_records(settings.kafka))[before:]
    times = [record["committedAt"] / 1000 for record in records]
    alerts = [sum(c["count"] for c in record["counts"] if c["outcome"] == "in") for record in records]
    first = times.index(min(times))
    if max(times) == min(times):
        raise BrokerError("everything fitted into one transaction: measure with more --alerts")
    return float((sum(alerts) - alerts[first]) / (max(times) - min(times)))


def _empty(settings: Settings) -> None:
    """Forget all claims, and keep the workers from fetching them back from what was published before."""
    redis.Redis.from_url(settings.redis.url).flushdb()
    store = RedisStore(settings.redis.url, settings.history, cluster_id(admin(settings.kafka)))
    store.mark_rebuilt()
    store.close()


def _bare_rate(settings: Settings, topic: str, repeat: int, out_bytes: int, count: int) -> float:
    """Consume the input and produce `out_bytes` for each message, in transactions, nothing in between."""
    out = TopicSpec("bench_output", settings.topics.partitions, 1, (("retention.ms", "600000"),))
    create_topics(admin(settings.kafka), [out])
    consumer = Consumer(consumer_options(settings.kafka, **{"group.id": f"bare-{repeat}"}))
    producer = Producer(producer_options(settings.kafka, **{"transactional.id": "bare", "linger.ms": 20}))
    producer.init_transactions(30)
    _settle(producer, out)
    partitions = range(topic_partitions(consumer)[topic])
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
    value = bytes(out_bytes)
    done = first = 0
    start = time.perf_counter()
    while done < count:
        messages = [m for m in consumer.consume(_BATCH, 0.5) if m.error() is None]
        if not messages:
            continue
        reports = Reports()
        producer.begin_transaction()
        for _ in messages:
            producer.produce(out.name, value, on_delivery=reports)
        producer.send_offsets_to_transaction(
            consumer.position(consumer.assignment()), consumer.consumer_group_metadata()
        )
        producer.flush(30)
        producer.commit_transaction()
        if reports.delivered < len(messages):
            raise BrokerError(f"{len(messages) - reports.delivered} records were acknowledged but not stored")
        done += len(messages)
        if not first:
            first, start = done, time.perf_counter()
    seconds = time.perf_counter() - start
    consumer.close()
    return (done - first) / seconds


def _settle(producer: Producer, topic: TopicSpec) -> None:
    """One record to each partition, awaited, so that none is without state of the producer."""
    producer.begin_transaction()
    for number in range(topic.partitions):
        producer.produce(topic.name, b"", partition=number)
    producer.flush(30)
    producer.commit_transaction()


def _published_bytes(settings: Settings) -> int:
    """Bytes the first repeat put into the alert topics."""
    topics = topic_partitions(admin(settings.kafka))
    names = [name for name in topics if name.startswith(ALERTS)]
    partitions = [(name, part) for name in names for part in range(topics[name])]
    return sum(len(value) for value in committed_values(settings.kafka, partitions))
