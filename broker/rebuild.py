"""Redis is a cache of Kafka: points, claims and annotations from its topics, for a new or emptied server.

Every alert in `alerts.<survey>` carries its own point and where it came from; a retraction carries the point
that is gone, an update the filters that heard of its alert only then. Annotations come back from their own
topic, with their claims and forced photometry. What retention dropped, and the points that are not alerts
(limits, forced photometry of packets), come back with the objects' next packets; until then
`history_incomplete` says that earlier points may be missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from broker import reevaluate
from broker.astro.bands import band_index
from broker.batch import SOLAR_SYSTEM_STATUS, SS_ASSOCIATED
from broker.config import Settings
from broker.control.topic import ControlTail
from broker.errors import BrokerError, RetryBatch
from broker.filter import filter_mark
from broker.history import pack
from broker.history.base import Claim, HistoryStore, Located
from broker.history.merge import group, join_blobs, merge
from broker.history.places import locate
from broker.history.recall import additions_of
from broker.history.redis import RedisStore
from broker.ingest.kafka import as_message
from broker.kafka.clients import (
    PartitionKey,
    admin,
    end_offsets,
    reader,
    start_offsets,
    topic_partitions,
)
from broker.kafka.lag import committed_positions
from broker.kafka.topics import ALERTS, ANNOTATIONS
from broker.lightcurves import DETECTION, POINT, LightCurves
from broker.published import RecordDecoder

_CHUNK = 5000
_PAUSE_S = 0.2
_ASSOCIATED = SOLAR_SYSTEM_STATUS[SS_ASSOCIATED]
_WANTED = (
    "kind", "diaSourceId", "diaObjectId", "ssObjectId", "survey", "ra", "dec", "midpointMjdTai", "band",
    "psfFlux", "psfFluxErr", "flags", "solarSystem", "filtersPassed", "source", "provenance",
)  # fmt: skip

_Found = TypeVar("_Found")

Record = tuple[bytes, dict[str, Any]]
"""A message's key and what it says."""


@dataclass(frozen=True)
class Scope:
    """The part of the alert topics that a rebuild reads: [start, end) of each partition."""

    starts: Mapping[PartitionKey, int]
    ends: Mapping[PartitionKey, int]

    @property
    def records(self) -> int:
        """Offsets in it; some hold no record."""
        return sum(self.ends[key] - start for key, start in self.starts.items())


def scope_of(settings: Settings) -> Scope:
    """What the alert topics hold now, transactions that are still open included.  Raises BrokerError."""
    client = admin(settings.kafka)
    topics = topic_partitions(client)
    keys = [(name, part) for name in topics if name.startswith(ALERTS) for part in range(topics[name])]
    ends = end_offsets(client, keys)
    starts = {key: low for key, low in start_offsets(client, keys).items() if low < ends[key]}
    return Scope(starts, ends)


def ensure(settings: Settings, store: RedisStore, stopping: Callable[[], bool]) -> None:
    """Return once the store holds what Kafka remembers: one process rebuilds it, the others wait.

    Raises BrokerError.
    """
    while not store.rebuilt() and not stopping():
        if store.lock():
            try:
                rebuild(settings, store, scope_of(settings))
            finally:
                store.unlock()
        else:
            time.sleep(_PAUSE_S)


def rebuild(
    settings: Settings,
    store: RedisStore,
    scope: Scope,
    advance: Callable[[int, int], None] = lambda records, offsets: None,
) -> None:
    """Put every point and claim of the alert topics into the store, and note that they are there.

    The caller holds the store's lock. What is there already stays; doing it again changes nothing.
    advance : told how many records were stored and how many offsets were read
    Raises BrokerError.
    """
    decoder = _Decoder(settings)
    for records, offsets in _chunks(settings, scope, decoder.decode):
        if not store.lock():
            raise RetryBatch("another process began to rebuild Redis meanwhile")
        if records:
            keep(store, records, settings.history.max_points)
        advance(len(records), offsets)
    for part in annotation_scopes(settings):
        for messages, _ in _chunks(settings, part, lambda raw: [as_message(raw)]):
            if not store.lock():
                raise RetryBatch("another process began to rebuild Redis meanwhile")
            reevaluate.take_in(store, messages, settings.history.max_points, rebuilding=True)
    store.mark_rebuilt()


def annotation_scopes(settings: Settings) -> list[Scope]:
    """What the topic of annotations holds: the part that the pipeline is done with, then the rest.

    In this order each claim goes to the record that was processed, not to a repetition that is still to come.
    Raises BrokerError.
    """
    client = admin(settings.kafka)
    keys = [(ANNOTATIONS, part) for part in range(topic_partitions(client).get(ANNOTATIONS, 0))]
    ends, starts = end_offsets(client, keys), start_offsets(client, keys)
    committed = committed_positions(settings.kafka, settings.run.group, keys)
    done = {key: min(max(committed.get(key, 0), low), ends[key]) for key, low in starts.items()}
    return [_scope(starts, done), _scope(done, ends)]


def _scope(starts: Mapping[PartitionKey, int], ends: Mapping[PartitionKey, int]) -> Scope:
    return Scope({key: low for key, low in starts.items() if low < ends[key]}, ends)


def keep(store: HistoryStore, records: Sequence[Record], max_points: int) -> None:
    """Merge the points of alerts and retractions into the store, and set their claims."""
    pairs = [(key, row) for row, (first, value) in enumerate(records) for key in _keys(first, value)]
    keys = list(dict.fromkeys(key for key, _ in pairs))
    number = {key: index for index, key in enumerate(keys)}
    points = np.array([_point(value) for _, value in records], dtype=POINT)
    rows = np.array([row for _, row in pairs], dtype=np.int64)
    single = LightCurves(points[rows], np.arange(len(rows) + 1))
    fresh = group(single, np.array([number[key] for key, _ in pairs], dtype=np.int64), len(keys))
    held = store.open([], [], [pack.curve_key(key) for key in keys]).curves
    stored = join_blobs(held)
    additions, _ = additions_of(keys, held, stored, merge(stored, fresh), max_points)
    store.append(additions, _claims(store, records), (), _located(records))


def _keys(key: bytes, value: Mapping[str, Any]) -> list[bytes]:
    """An alert's light curves: its key's, and its solar-system object's where that is another."""
    mover = value["ssObjectId"]
    if mover and value["solarSystem"]["status"] == _ASSOCIATED:
        return list(dict.fromkeys([key, b"ss:%d" % mover]))
    return [key]


def _located(records: Sequence[Record]) -> list[Located]:
    """Where the objects of alerts are, as their latest alert says; known solar-system objects left out."""
    latest: dict[tuple[str, int], tuple[float, float]] = {}
    for _, value in records:
        if (
            value["kind"] == "alert"
            and value["diaObjectId"]
            and value["solarSystem"]["status"] != _ASSOCIATED
        ):
            latest[(value["survey"], value["diaObjectId"])] = (value["ra"], value["dec"])
    return [
        item
        for (survey, name), (ra, dec) in latest.items()
        for item in locate(survey, [name], np.array([ra]), np.array([dec]))
    ]


def _point(value: Mapping[str, Any]) -> tuple[Any, ...]:
    """The detection, in the order of POINT."""
    flux, flux_err = value["psfFlux"], value["psfFluxErr"]
    return (
        value["midpointMjdTai"],
        value["diaSourceId"],
        np.nan if flux is None else flux,
        np.nan if flux_err is None else flux_err,
        max(0, value["provenance"]["ingestedAt"]) // 1000,
        band_index(value["band"]),
        DETECTION,
        value["flags"],
    )


def _claims(store: HistoryStore, records: Sequence[Record]) -> list[Claim]:
    """The claims that records come to; an update only adds filters to what its alert's claim says."""
    claims = [_claim(value) for _, value in records]
    later = [row for row, (_, value) in enumerate(records) if value["kind"] == "update"]
    if not later:
        return claims
    held = store.claims_in([(claims[row].bucket, claims[row].field) for row in later])
    known = {(claims[row].bucket, claims[row].field): value for row, value in zip(later, held, strict=True)}
    for row, claim in enumerate(claims):
        place = (claim.bucket, claim.field)
        if records[row][1]["kind"] == "update":
            known[place] = _with_marks(known[place] or claim.value, claim.value)
            claims[row] = replace(claim, value=known[place])
        elif place in known:
            known[place] = claims[row].value
    return claims


def _with_marks(claim: bytes, other: bytes) -> bytes:
    mine = pack.claim_marks(claim)
    return claim + b"".join(mark for mark in pack.claim_marks(other) if mark not in mine)


def _claim(value: Mapping[str, Any]) -> Claim:
    """An alert's claim; of a retraction the note that it was told."""
    source, digest = value["source"], bytes.fromhex(value["provenance"]["recordSha256"])
    claim = pack.claim_value(
        source["topic"], source["partition"], source["offset"], source["index"], digest
    ) + b"".join(map(filter_mark, value["filtersPassed"]))
    bucket = pack.claim_bucket(value["survey"], value["diaSourceId"])
    field = pack.claim_field(value["diaSourceId"])
    if value["kind"] != "retraction":
        return Claim(bucket, field, claim)
    return Claim(pack.told_bucket(bucket), field, claim[: pack.POSITION_BYTES] + claim)


def _chunks(
    settings: Settings, scope: Scope, decode: Callable[[Message], list[_Found]]
) -> Iterator[tuple[list[_Found], int]]:
    """The committed records of a scope, some thousands at a time, and how many offsets they took."""
    if not scope.starts:
        return
    consumer = reader(settings.kafka, **{"enable.partition.eof": True})
    at = dict(scope.starts)
    consumer.assign([TopicPartition(*key, offset) for key, offset in at.items()])
    try:
        while any(at[key] < scope.ends[key] for key in at):
            before = sum(at.values())
            records = _read(consumer, at, scope.ends, decode)
            yield records, sum(at.values()) - before
    finally:
        consumer.close()


def _read(
    consumer: Consumer,
    at: dict[PartitionKey, int],
    ends: Mapping[PartitionKey, int],
    decode: Callable[[Message], list[_Found]],
) -> list[_Found]:
    """The next records before the ends; `at` moves on, past transaction markers too."""
    records: list[_Found] = []
    for message in consumer.consume(_CHUNK, _PAUSE_S):
        key, error = (message.topic(), message.partition()), message.error()
        if error is None:
            if message.offset() < ends[key]:
                records += decode(message)
            at[key] = min(message.offset() + 1, ends[key])
        elif error.code() == KafkaError._PARTITION_EOF:
            at[key] = max(at[key], min(message.offset(), ends[key]))
        elif not error.retriable():
            raise BrokerError(f"cannot read {key[0]}: {error.str()}")
    return records


class _Decoder:
    """Our records by the schemas announced in the control topic; only the fields of use here."""

    def __init__(self, settings: Settings) -> None:
        with ControlTail(settings.kafka) as tail:
            self._records = RecordDecoder(tail.catch_up().schemas, _WANTED)

    def decode(self, message: Message) -> list[Record]:
        """An alert, a retraction or an update: the last repeats the point of its alert."""
        return [(message.key() or b"", self._records.record(message.value() or b""))]
