"""Keys, claims and the history stage on the store's twin in memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from broker.batch import SS_ASSOCIATED, AlertBatch
from broker.config import HistorySettings
from broker.history import pack
from broker.history.memory import MemoryStore
from broker.history.recall import Recall, history_keys, newest_gated, outcome_counts, recall
from broker.message import Message
from broker.simulate import simulate_ztf
from broker.surveys.avro import LocalSchemas
from broker.surveys.catalog import decode


def messages(count: int, first_offset: int = 0, topic: str = "ztf_replay") -> list[Message]:
    alerts = simulate_ztf(count, seed=3)
    return [
        Message(topic, 0, first_offset + number, 1_790_000_000_000, alert.value)
        for number, alert in enumerate(alerts)
    ]


@pytest.fixture(scope="module")
def batch() -> AlertBatch:
    return decode(messages(120), LocalSchemas()).batches[0]


def run(store: MemoryStore, batch: AlertBatch, **limits: float) -> tuple[dict[str, int], Recall]:
    dedupe, known = recall(store, batch, replace(HistorySettings(), **limits))
    store.append(known.additions, [])
    return dict(outcome_counts(dedupe)), known


def test_id_zero_is_never_a_key(batch: AlertBatch) -> None:
    count = len(batch)
    orphans = replace(batch, dia_object_id=np.zeros(count, np.int64), ss_object_id=np.zeros(count, np.int64))
    assert history_keys(orphans) == [b"src:%d" % source for source in batch.dia_source_id]
    movers = replace(orphans, ss_object_id=np.arange(1, count + 1))
    assert history_keys(movers)[:2] == [b"ss:1", b"ss:2"]
    assert history_keys(batch)[0] == b"ztf:%d" % batch.dia_object_id[0]


def test_the_same_position_again_is_our_retry_another_position_a_duplicate(batch: AlertBatch) -> None:
    store = MemoryStore()
    first, _ = run(store, batch)
    before = dict(store.curves)
    retry, again = run(store, batch)
    assert first == retry == {"fresh": len(batch), "changed": 0, "duplicate": 0}
    assert again.additions == []
    elsewhere = decode(messages(120, first_offset=5000), LocalSchemas()).batches[0]
    counts, known = run(store, elsewhere)
    assert counts == {"fresh": 0, "changed": 0, "duplicate": len(batch)}
    assert len(known.batch) == 0
    assert store.curves == before


def test_other_content_under_a_known_id_is_told_apart(batch: AlertBatch) -> None:
    store = MemoryStore()
    run(store, batch)
    moved = decode(messages(120, first_offset=5000), LocalSchemas()).batches[0]
    altered = replace(moved, records=[moved.records[0] + b"x", *moved.records[1:]])
    counts, _ = run(store, altered)
    assert counts == {"fresh": 0, "changed": 1, "duplicate": len(batch) - 1}


def test_an_id_twice_in_one_batch_counts_once(batch: AlertBatch) -> None:
    twice = batch.take(np.array([0, 1, 0]))
    twice = replace(twice, index=np.array([0, 0, 1]))
    counts, _ = run(MemoryStore(), twice)
    assert counts == {"fresh": 2, "changed": 0, "duplicate": 1}


def test_each_alert_ends_its_own_light_curve(batch: AlertBatch) -> None:
    _, known = run(MemoryStore(), batch)
    for row in range(len(known.batch)):
        points = known.curves.row(row)
        assert (points["midpoint_mjd_tai"] <= known.batch.midpoint_mjd_tai[row]).all()
        assert known.batch.dia_source_id[row] in points["source_id"]


def test_a_mover_is_kept_under_its_own_key_without_the_past_of_the_place(batch: AlertBatch) -> None:
    moving = batch.take(np.array([0]))
    moving = replace(
        moving, solar_system_status=np.array([SS_ASSOCIATED], np.uint8), ss_object_id=np.array([8467])
    )
    store = MemoryStore()
    run(store, moving)
    own = pack.unpack_points(store.curves[pack.curve_key(b"ss:8467")])
    assert own["source_id"].tolist() == [moving.dia_source_id[0]]
    place = pack.unpack_points(store.curves[pack.curve_key(history_keys(moving)[0])])
    assert len(place) == len(moving.points.points)


def test_the_cap_keeps_the_newest_points_and_counts_the_rest(batch: AlertBatch) -> None:
    row = int(np.argmax(np.diff(batch.points.starts)))
    rich = batch.take(np.array([row]))
    total = len(rich.points.points)
    assert total > 5
    store = MemoryStore()
    _, known = run(store, rich, max_points=5)
    assert known.dropped_points == total - 5
    kept = pack.unpack_points(store.curves[pack.curve_key(known.keys[0])])
    newest = np.sort(rich.points.points["midpoint_mjd_tai"])[-5:]
    assert np.sort(kept["midpoint_mjd_tai"]).tolist() == newest.tolist()


def test_expensive_features_come_back_with_their_objects(batch: AlertBatch) -> None:
    store = MemoryStore()
    _, known = run(store, batch)
    assert set(known.gated) == {b""}
    values = [b"%d" % row for row in range(len(known.batch))]
    store.append([], [], newest_gated(known, values))
    _, again = run(store, batch)
    for row, key in enumerate(again.keys):
        mine = [other for other in range(len(again.keys)) if again.keys[other] == key]
        latest = max(mine, key=lambda other: float(again.batch.midpoint_mjd_tai[other]))
        assert again.gated[row] == b"%d" % latest


def test_what_was_not_computed_is_not_stored(batch: AlertBatch) -> None:
    _, known = run(MemoryStore(), batch)
    assert newest_gated(known, [b""] * len(known.batch)) == []


def test_claim_layout_is_as_documented() -> None:
    value = pack.claim_value("ztf_replay", 3, 2**40 + 5, 7, bytes(range(32)))
    assert len(value) == pack.CLAIM_BYTES
    assert value[4:6] == b"\x00\x03"
    assert value[6:14] == (2**40 + 5).to_bytes(8, "big")
    assert value[14:16] == b"\x00\x07"
    assert value[16:] == bytes(range(8))
    assert pack.same_position(value, value[:16] + b"other content, and filters")
    assert not pack.same_position(value, pack.claim_value("ztf_replay", 3, 2**40 + 6, 7, bytes(32)))
