"""What every store of histories must do: the one in memory, and a real Valkey's."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import redis
from data import shared_data
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.batch import AlertBatch
from broker.config import HistorySettings
from broker.embedded import owned
from broker.errors import HistoryLost, RetryBatch
from broker.heartbeats import live_workers
from broker.history import pack
from broker.history.base import Addition, Claim, HistoryStore, Kept, Located, Withdrawal
from broker.history.memory import MemoryStore
from broker.history.merge import join_blobs, merge
from broker.history.recall import Recall, recall
from broker.history.redis import RedisStore
from broker.history.soundness import NO_CLAIM, damaged_curves
from broker.ingest.files import FilePacket, find_files, read_packets
from broker.lightcurves import empty_light_curves, empty_points
from broker.message import Message
from broker.simulate import simulate_lsst, simulate_ztf
from broker.surveys.avro import LocalSchemas
from broker.surveys.catalog import decode

LIMITS = HistorySettings()
SAID = b'{"kind":"class","id":"x","t":5,"class":"SN Ia"}\n'


@pytest.fixture(scope="module")
def valkey() -> Iterator[str]:
    with owned(kafka=False, quiet=True) as servers:
        yield servers.addresses.redis_url


@pytest.fixture(params=["memory", "redis"])
def empty_store(request: pytest.FixtureRequest) -> Iterator[HistoryStore]:
    """A store that is new to its cluster."""
    if request.param == "memory":
        yield MemoryStore(rebuilt=False)
        return
    made = RedisStore(request.getfixturevalue("valkey"), LIMITS, uuid.uuid4().hex)
    made.check()
    yield made
    made.close()


@pytest.fixture
def store(empty_store: HistoryStore) -> HistoryStore:
    empty_store.mark_rebuilt()
    return empty_store


def claim_of(bucket: bytes, number: int, offset: int) -> Claim:
    value = pack.claim_value("topic", 0, offset, 0, bytes(32))
    return Claim(bucket, pack.claim_field(number), value)


def withdrawal_of(bucket: bytes, number: int, carrier: Claim) -> Withdrawal:
    return Withdrawal(bucket, pack.claim_field(number), carrier)


@pytest.fixture
def bucket() -> bytes:
    """A bucket nobody used before: the tests share a server."""
    return b"claims:" + uuid.uuid4().hex.encode()


def test_the_first_claim_stays_until_it_is_overwritten(store: HistoryStore, bucket: bytes) -> None:
    first, second = claim_of(bucket, 1, 10), claim_of(bucket, 1, 11)
    other = claim_of(bucket, 2, 12)
    assert store.open([first, other, second], [], []).claims == [first.value, other.value, first.value]
    assert store.open([second], [], []).claims == [first.value]
    marked = Claim(bucket, first.field, first.value + b"mark")
    store.append([], [marked])
    assert store.open([second], [], []).claims == [marked.value]


def point(number: int) -> bytes:
    """The bytes of some point."""
    made = empty_points(1)
    made["source_id"], made["midpoint_mjd_tai"] = number, 60_000.0 + number
    return made.tobytes()


def test_points_are_appended_and_replaced_only_if_nobody_appended(store: HistoryStore, bucket: bytes) -> None:
    key = pack.curve_key(bucket)
    other = pack.curve_key(bucket + b"x")
    store.append([Addition(key, point(1))], [])
    store.append([Addition(key, point(2))], [])
    assert store.open([], [], [key, other]).curves == [point(1) + point(2), b""]
    store.append([Addition(key, point(3), 32)], [])
    assert store.open([], [], [key]).curves == [point(1) + point(2)]
    store.append([Addition(key, point(3), 64)], [])
    assert store.open([], [], [key]).curves == [point(3)]


def test_a_withdrawal_is_noted_once_with_the_claim_as_it_was(store: HistoryStore, bucket: bytes) -> None:
    alert, carrier, later = claim_of(bucket, 1, 10), claim_of(bucket, 2, 11), claim_of(bucket, 3, 12)
    published = Claim(bucket, alert.field, alert.value + b"mark")
    store.open([alert], [], [])
    store.append([], [published])
    note = store.open([carrier], [withdrawal_of(bucket, 1, carrier)], []).noted[0]
    assert note == carrier.value[: pack.POSITION_BYTES] + published.value
    store.append([], [Claim(bucket, alert.field, alert.value + b"another mark")])
    again = store.open([carrier, later], [withdrawal_of(bucket, 1, c) for c in (carrier, later)], [])
    assert again.noted == [note, note]
    assert store.open([alert], [], []).withdrawn == [note]
    assert store.append([], [published, later]).withdrawn == [note, b""]


def test_a_withdrawal_before_its_alert_is_noted_without_a_claim(store: HistoryStore, bucket: bytes) -> None:
    carrier, alert = claim_of(bucket, 2, 11), claim_of(bucket, 1, 12)
    opened = store.open([carrier], [withdrawal_of(bucket, 1, carrier)], [])
    assert opened.noted == [carrier.value[: pack.POSITION_BYTES]]
    assert opened.withdrawn == [b""]
    assert store.open([alert], [], []).withdrawn == opened.noted


def test_a_duplicate_notes_no_withdrawal(store: HistoryStore, bucket: bytes) -> None:
    store.open([claim_of(bucket, 2, 11)], [], [])
    duplicate = claim_of(bucket, 2, 99)
    assert store.open([duplicate], [withdrawal_of(bucket, 1, duplicate)], []).noted == [b""]


def test_a_new_store_says_that_it_must_be_rebuilt(empty_store: HistoryStore) -> None:
    batch = decode(_messages([a.value for a in simulate_ztf(3, seed=1)]), LocalSchemas()).batches[0]
    with pytest.raises(HistoryLost):
        recall(empty_store, batch, LIMITS)
    empty_store.mark_rebuilt()
    assert len(recall(empty_store, batch, LIMITS)[1].batch) == 3


def test_a_server_that_was_emptied_in_between_is_not_taken_for_the_same(valkey: str) -> None:
    store = RedisStore(valkey, LIMITS, uuid.uuid4().hex)
    store.mark_rebuilt()
    before = store.open([], [], []).server
    assert store.append([], []).server == before
    store.mark_rebuilt()
    assert store.append([], []).server != before
    store.close()


def test_one_rebuilds_while_the_others_wait(valkey: str) -> None:
    cluster = uuid.uuid4().hex
    first, second = (RedisStore(valkey, LIMITS, cluster) for _ in range(2))
    assert first.lock()
    assert first.lock()
    assert not second.lock()
    second.unlock()
    assert not second.lock()
    first.unlock()
    assert second.lock()
    first.close()
    second.close()


def _messages(values: list[bytes]) -> list[Message]:
    return [Message("in", 0, n, 1_790_000_000_000 + 1000 * n, value) for n, value in enumerate(values)]


def _packets() -> list[bytes]:
    """Simulated alerts of both surveys, and the real ones where they are."""
    values = [alert.value for maker in (simulate_ztf, simulate_lsst) for alert in maker(150, seed=3)]
    folder = shared_data()
    if folder is not None:
        files = find_files([Path(folder) / "ztf" / "alerts", Path(folder) / "lsst" / "wire"])
        values += [packet.value for packet in read_packets(files) if isinstance(packet, FilePacket)]
    return values


@cache
def batches() -> list[AlertBatch]:
    """One record an id: of two different ones the first to come is the alert, the other a dead letter."""
    found = decode(_messages(_packets()), LocalSchemas()).batches
    return [batch.take(np.unique(batch.dia_source_id, return_index=True)[1]) for batch in found]


def _take(store: HistoryStore, batch: AlertBatch) -> Recall:
    return recall(store, batch, LIMITS)[1]


def _curves(store: HistoryStore, keys: list[bytes]) -> bytes:
    held = join_blobs(store.open([], [], [pack.curve_key(key) for key in keys]).curves)
    return merge(held, empty_light_curves(len(held))).curves.points.tobytes()


def _run(store: HistoryStore, seed: int, parts: int) -> None:
    """Everything in a random order, some twice, by two workers that do not see each other's last batch."""
    rng = np.random.default_rng(seed)
    for batch in batches():
        rows = rng.permutation(np.concatenate([np.arange(len(batch)), rng.integers(0, len(batch), 20)]))
        pieces = [batch.take(part) for part in np.array_split(rows, 2 * parts) if len(part)]
        for pair in zip(pieces[::2], pieces[1::2], strict=False):
            for known in [_take(store, piece) for piece in pair]:
                store.append(known.additions, [])
        if len(pieces) % 2:
            store.append(_take(store, pieces[-1]).additions, [])


@cache
def expected() -> tuple[list[bytes], bytes]:
    """Every key, and the light curves when each survey's alerts come at once."""
    store = MemoryStore()
    keys: dict[bytes, None] = {}
    for batch in batches():
        known = _take(store, batch)
        store.append(known.additions, [])
        keys |= dict.fromkeys(known.keys)
    return list(keys), _curves(store, list(keys))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), parts=st.integers(1, 8))
def test_order_repetition_and_two_workers_make_no_difference(seed: int, parts: int) -> None:
    store = MemoryStore()
    _run(store, seed, parts)
    keys, curves = expected()
    assert _curves(store, keys) == curves


@pytest.mark.parametrize("seed", [1, 2])
def test_valkey_holds_the_same_light_curves(valkey: str, seed: int) -> None:
    with_own_database = valkey.rsplit("/", 1)[0] + f"/{seed}"
    store = RedisStore(with_own_database, LIMITS, "here")
    store.mark_rebuilt()
    _run(store, seed, 4)
    keys, curves = expected()
    assert _curves(store, keys) == curves
    store.close()


def test_expensive_features_are_kept_and_replaced(store: HistoryStore, bucket: bytes) -> None:
    first, second, none = (pack.gated_key(bucket + name) for name in (b"1", b"2", b"3"))
    store.append([], [], [Kept(first, b"old"), Kept(second, b"two")])
    store.append([], [], [Kept(first, b"new\x00")])
    curve = pack.curve_key(bucket)
    store.append([Addition(curve, point(1))], [])
    opened = store.open([], [], [curve], [second, none, first])
    assert (opened.curves, opened.gated) == ([point(1)], [b"two", b"", b"new\x00"])
    assert store.open([], [], [], [first]).gated == [b"new\x00"]
    assert store.open([], [], [curve]).gated == []


def test_objects_are_found_at_their_places(store: HistoryStore) -> None:
    survey = uuid.uuid4().hex[:8]
    here, there, nowhere = (pack.place_key(survey, cell) for cell in (1, 2, 3))
    first, second = pack.place_object(7), pack.place_object(2**62)
    x, y, z = (pack.place_position(number, -number) for number in (1.0, 2.0, 3.0))
    store.append([], [], [], [Located(here, first, z), Located(there, first, x)])
    store.append([], [], [], [Located(here, first, y), Located(here, second, y)])
    assert store.near([here, nowhere, there]) == [{first: y, second: y}, {}, {first: x}]
    assert survey in store.open([], [], []).surveys
    assert store.near([]) == []


def test_it_tells_a_claim_that_was_there_from_a_new_one(store: HistoryStore, bucket: bytes) -> None:
    first, second = claim_of(bucket, 1, 10), claim_of(bucket, 2, 11)
    assert store.open([first], [], []).retried == [False]
    assert store.open([second, first], [], []).retried == [False, True]
    places = [(bucket, first.field), (bucket, b"nothing "), (bucket + b"x", first.field)]
    assert store.claims_in(places) == [first.value, b"", b""]
    assert store.claims_in([]) == []


def test_it_tells_when_something_was_said_of_an_object(store: HistoryStore, bucket: bytes) -> None:
    key = pack.annotation_key(bucket)
    before = store.open([], [], []).annotated
    assert store.append([Addition(pack.curve_key(bucket), bytes(32))], []).annotated == before
    after = store.append([Addition(key, SAID)], []).annotated
    assert after != before
    opened = store.open([], [], [], [key])
    assert (opened.gated, opened.annotated) == ([SAID], after)


def test_the_claims_of_what_becomes_a_dead_letter_are_taken_back(store: HistoryStore, bucket: bytes) -> None:
    mine, other, carrier = claim_of(bucket, 1, 10), claim_of(bucket, 2, 11), claim_of(bucket, 3, 12)
    withdrawal = withdrawal_of(bucket, 9, carrier)
    store.open([mine, other, carrier], [withdrawal], [])
    store.release([mine, claim_of(bucket, 2, 99), carrier], [withdrawal])
    later = [claim_of(bucket, 1, 20), claim_of(bucket, 2, 21)]
    assert store.open(later, [], []).claims == [later[0].value, other.value]
    again = claim_of(bucket, 3, 22)
    assert store.open([again], [withdrawal_of(bucket, 9, again)], []).noted == [again.value[:16]]
    store.release([], [])


def test_every_light_curve_we_keep_is_sound(store: HistoryStore) -> None:
    for batch in batches():
        known = _take(store, batch)
        store.append(known.additions, [])
        blobs = store.open([], [], [pack.curve_key(key) for key in dict.fromkeys(known.keys)]).curves
        assert damaged_curves(blobs) == []
        assert any(blobs)
    assert store.damage.met == {}  # type: ignore[attr-defined]


class Vandal:
    """Writes what it likes into a store, past its contract."""

    def __init__(self, store: HistoryStore, url: str) -> None:
        self.store = store
        self.redis = None if isinstance(store, MemoryStore) else redis.Redis.from_url(url)

    def string(self, key: bytes, value: bytes) -> None:
        if self.redis is not None:
            self.redis.set(key, value)
        else:
            self.store.curves[key] = value  # type: ignore[attr-defined]

    def field(self, key: bytes, field: bytes, value: bytes) -> None:
        if self.redis is not None:
            self.redis.hset(key, field, value)
        elif key.startswith(b"at:"):
            self.store.places.setdefault(key, {})[field] = value  # type: ignore[attr-defined]
        else:
            self.store.claims[key, field] = value  # type: ignore[attr-defined]

    def aside(self, key: bytes) -> bytes | None:
        if self.redis is None:
            return self.store.aside.get(key)  # type: ignore[attr-defined,no-any-return]
        assert self.redis.ttl(key) > 0
        return self.redis.get(key)  # type: ignore[return-value]


@pytest.fixture
def vandal(store: HistoryStore, request: pytest.FixtureRequest) -> Vandal:
    memory = isinstance(store, MemoryStore)
    return Vandal(store, "" if memory else request.getfixturevalue("valkey"))


NOT_A_CURVE = [
    b"x", bytes(31), point(1) + b"torn", point(1)[:-4] + b"\xff" * 4 + point(2)[:-3] + b"\x09\x00\x00",
    np.array([np.nan]).tobytes() + point(1)[8:], os.urandom(320), b"\xff" * 64,
]  # fmt: skip


@pytest.mark.parametrize("value", NOT_A_CURVE, ids=range(len(NOT_A_CURVE)))
def test_a_damaged_light_curve_is_set_aside(
    store: HistoryStore, vandal: Vandal, bucket: bytes, value: bytes
) -> None:
    key, other = pack.curve_key(bucket), pack.curve_key(bucket + b"o")
    store.append([Addition(other, point(1))], [])
    vandal.string(key, value)
    assert store.open([], [], [other, key, other]).curves == [point(1), b"", point(1)]
    assert vandal.aside(b"corrupt:" + key) == value
    assert store.damage.met == {"curve": 1}  # type: ignore[attr-defined]
    store.append([Addition(key, point(2))], [])
    assert store.open([], [], [key]).curves == [point(2)]


def test_the_lines_of_annotations_that_can_be_read_stay(
    store: HistoryStore, vandal: Vandal, bucket: bytes
) -> None:
    key = pack.annotation_key(bucket)
    vandal.string(key, SAID + b"\xff{" + SAID[:10])
    assert store.open([], [], [], [pack.gated_key(bucket), key]).gated == [b"", SAID]
    assert vandal.aside(b"corrupt:" + key) == SAID + b"\xff{" + SAID[:10]
    assert store.open([], [], [], [key]).gated == [SAID]
    assert store.damage.met == {"annotations": 1}  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [b"", b"x", bytes(23), bytes(25), b"y" * 16, os.urandom(5000) + b"z"])
def test_a_damaged_claim_is_neither_fresh_nor_a_duplicate(
    store: HistoryStore, vandal: Vandal, bucket: bytes, value: bytes
) -> None:
    claim, other = claim_of(bucket, 1, 10), claim_of(bucket, 2, 11)
    vandal.field(bucket, claim.field, value)
    for _ in range(2):
        assert store.open([claim, other], [], []).claims == [value or NO_CLAIM, other.value]
    assert not pack.sound_claim(value)
    assert store.claims_in([(bucket, claim.field), (bucket, other.field)]) == [b"", other.value]
    assert vandal.aside(b"corrupt:" + bucket + b":" + claim.field.hex().encode()) == value


def test_a_damaged_claim_of_the_alerts_own_position_is_its_own(
    store: HistoryStore, vandal: Vandal, bucket: bytes
) -> None:
    claim = claim_of(bucket, 1, 10)
    vandal.field(bucket, claim.field, claim.value[:17])
    assert store.open([claim], [], []).claims == [claim.value]
    assert store.open([claim_of(bucket, 1, 11)], [], []).claims == [claim.value]


@pytest.mark.parametrize("value", [b"x", bytes(15), bytes(17), os.urandom(77)])
def test_a_damaged_note_of_a_withdrawal_is_told_once_more(
    store: HistoryStore, vandal: Vandal, bucket: bytes, value: bytes
) -> None:
    alert, carrier = claim_of(bucket, 1, 10), claim_of(bucket, 2, 11)
    told, unknown = pack.told_bucket(bucket), bytes(16)
    store.open([alert], [], [])
    vandal.field(told, alert.field, value)
    opened = store.open([carrier], [withdrawal_of(bucket, 1, carrier)], [])
    assert opened.noted == [carrier.value[: pack.POSITION_BYTES] + alert.value]
    vandal.field(told, alert.field, value)
    assert store.open([alert], [], []).withdrawn == [unknown]
    assert store.claims_in([(told, alert.field)]) == [unknown]
    assert vandal.aside(b"corrupt:" + told + b":" + alert.field.hex().encode()) == value


def test_damaged_places_are_nobodys(store: HistoryStore, vandal: Vandal) -> None:
    survey = uuid.uuid4().hex[:8]
    place, name, at = pack.place_key(survey, 5), pack.place_object(7), pack.place_position(1.0, 2.0)
    store.append([], [], [], [Located(place, name, at)])
    vandal.field(place, b"short", at)
    vandal.field(place, pack.place_object(8), b"long" * 10)
    for _ in range(2):
        assert store.near([place]) == [{name: at}]
    assert store.damage.met == {"place": 2}  # type: ignore[attr-defined]


def test_keys_of_another_type_are_set_aside(valkey: str, bucket: bytes) -> None:
    store, client = RedisStore(valkey, LIMITS, uuid.uuid4().hex), redis.Redis.from_url(valkey)
    store.mark_rebuilt()
    curve, said, place = pack.curve_key(bucket), pack.annotation_key(bucket), pack.place_key("x", 9)
    name, at = pack.place_object(1), pack.place_position(1.0, 1.0)
    claim, carrier = claim_of(bucket, 1, 1), claim_of(bucket, 2, 2)
    for key in (curve, said, place, pack.told_bucket(bucket), b"surveys", pack.ANNOTATED):
        client.delete(key)
        client.rpush(key, "not ours")
    before = store.open([claim, carrier], [withdrawal_of(bucket, 1, carrier)], [curve], [said])
    assert (before.claims, before.curves, before.gated) == ([claim.value, carrier.value], [b""], [b""])
    assert before.surveys == frozenset()
    store.append([Addition(curve, point(1)), Addition(said, SAID)], [claim], [], [Located(place, name, at)])
    assert store.near([place]) == [{name: at}]
    after = store.open([claim], [], [curve], [said])
    assert (after.curves[0][-32:], after.gated[0].endswith(SAID)) == (point(1), True)
    client.set(pack.ANNOTATED, "no number")
    store.append([Addition(said, SAID)], [])
    client.delete(bucket)
    client.rpush(bucket, "not ours")
    opened = store.open([claim], [withdrawal_of(bucket, 1, carrier)], [curve])
    assert not pack.sound_claim(opened.claims[0])
    assert store.claims_in([(bucket, claim.field)]) == [b""]
    store.release([claim], [])
    assert client.type(bucket) == b"list"
    assert client.ttl(bucket) > 0
    store.append([], [claim])
    assert store.open([claim], [], []).claims == [claim.value]
    client.delete(b"layout")
    client.rpush(b"layout", "not ours")
    store.check()
    client.set(b"layout", b"\xff?")
    store.check()
    assert client.get(b"layout") == pack.LAYOUT_VERSION
    store.close()


def test_a_lock_and_a_hash_of_another_type(valkey: str) -> None:
    cluster, name = uuid.uuid4().hex, uuid.uuid4().hex.encode()
    store, client = RedisStore(valkey, LIMITS, cluster), redis.Redis.from_url(valkey)
    client.rpush(f"rebuilding:{cluster}", "not ours")
    assert store.lock()
    store.unlock()
    client.set(name, "not ours")
    assert store.exchange_on_hash(name, [(b"HSET", name, b"a", b"b"), (b"HGET", name, b"a")]) == [1, b"b"]
    store.close()


def test_damaged_heartbeats_are_nobodys(valkey: str) -> None:
    client = redis.Redis.from_url(valkey)
    seconds, _ = client.time()
    good = {"slot": "a", "epoch": 3, "ready": True, "pid": 5, "at": float(seconds)}
    beats = [b"", b"\xff", b"[", b"5", b"{}", b"[" * 99_999, json.dumps(good | {"at": "x"}).encode(),
             json.dumps(good | {"slot": 7}).encode(), json.dumps(good).encode()]  # fmt: skip
    for number, beat in enumerate(beats):
        client.hset("workers:damaged", str(number), beat)
    assert [beat.pid for beat in live_workers(client, "damaged")] == [5]


def test_a_marker_of_another_type_means_a_rebuild(valkey: str) -> None:
    cluster = uuid.uuid4().hex
    store, client = RedisStore(valkey, LIMITS, cluster), redis.Redis.from_url(valkey)
    client.set(f"rebuilt:{cluster}", b"\xff\xfe")
    assert store.rebuilt()
    assert store.open([], [], []).server.endswith("fffe")
    client.delete(f"rebuilt:{cluster}")
    client.rpush(f"rebuilt:{cluster}", "not ours")
    assert not store.rebuilt()
    store.close()


@pytest.mark.parametrize(
    ("trouble", "cure", "why"),
    [
        (("maxmemory", "1"), ("maxmemory", "0"), "it is full"),
        (("min-replicas-to-write", "3"), ("min-replicas-to-write", "0"), "too few of its replicas"),
    ],
)
def test_a_server_that_refuses_is_waited_for(
    valkey: str, trouble: tuple[str, str], cure: tuple[str, str], why: str
) -> None:
    store, client = RedisStore(valkey, LIMITS, uuid.uuid4().hex), redis.Redis.from_url(valkey)
    client.config_set(*trouble)
    try:
        with pytest.raises(RetryBatch, match=why):
            store.mark_rebuilt()
    finally:
        client.config_set(*cure)
    store.mark_rebuilt()
    store.close()


def test_a_replica_refuses_too(valkey: str) -> None:
    store, client = RedisStore(valkey, LIMITS, uuid.uuid4().hex), redis.Redis.from_url(valkey)
    client.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(RetryBatch, match="it is a replica"):
            store.mark_rebuilt()
    finally:
        client.replicaof("NO", "ONE")
    store.mark_rebuilt()
    store.close()
