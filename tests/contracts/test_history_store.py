"""What every store of histories must do: the one in memory, and a real Valkey's."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from data import shared_data
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.batch import AlertBatch
from broker.config import HistorySettings
from broker.embedded import owned
from broker.errors import HistoryLost
from broker.history import pack
from broker.history.base import Addition, Claim, HistoryStore, Kept, Located, Withdrawal
from broker.history.memory import MemoryStore
from broker.history.merge import join_blobs, merge
from broker.history.recall import Recall, recall
from broker.history.redis import RedisStore
from broker.ingest.files import FilePacket, find_files, read_packets
from broker.lightcurves import empty_light_curves
from broker.message import Message
from broker.simulate import simulate_lsst, simulate_ztf
from broker.surveys.avro import LocalSchemas
from broker.surveys.catalog import decode

LIMITS = HistorySettings()


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


def test_points_are_appended_and_replaced_only_if_nobody_appended(store: HistoryStore, bucket: bytes) -> None:
    key = pack.curve_key(bucket)
    other = pack.curve_key(bucket + b"x")
    store.append([Addition(key, b"a" * 32)], [])
    store.append([Addition(key, b"b" * 32)], [])
    assert store.open([], [], [key, other]).curves == [b"a" * 32 + b"b" * 32, b""]
    store.append([Addition(key, b"c" * 32, 32)], [])
    assert store.open([], [], [key]).curves == [b"a" * 32 + b"b" * 32]
    store.append([Addition(key, b"c" * 32, 64)], [])
    assert store.open([], [], [key]).curves == [b"c" * 32]


def test_a_withdrawal_is_noted_once_with_the_claim_as_it_was(store: HistoryStore, bucket: bytes) -> None:
    alert, carrier, later = claim_of(bucket, 1, 10), claim_of(bucket, 2, 11), claim_of(bucket, 3, 12)
    published = Claim(bucket, alert.field, alert.value + b"mark")
    store.open([alert], [], [])
    store.append([], [published])
    note = store.open([carrier], [withdrawal_of(bucket, 1, carrier)], []).noted[0]
    assert note == carrier.value[: pack.POSITION_BYTES] + published.value
    store.append([], [Claim(bucket, alert.field, alert.value + b"another mark....")])
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
    store.append([Addition(curve, b"points")], [])
    opened = store.open([], [], [curve], [second, none, first])
    assert (opened.curves, opened.gated) == ([b"points"], [b"two", b"", b"new\x00"])
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
    after = store.append([Addition(key, b"{}\n")], []).annotated
    assert after != before
    opened = store.open([], [], [], [key])
    assert (opened.gated, opened.annotated) == ([b"{}\n"], after)
