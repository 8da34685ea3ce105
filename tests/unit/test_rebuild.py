"""What comes back from published alerts is what was stored of them."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import numpy as np
import pytest

from broker.batch import SS_ASSOCIATED
from broker.config import load
from broker.filter import Filter
from broker.filters.live import compile_set
from broker.history import pack
from broker.history.memory import MemoryStore
from broker.history.merge import join_blobs, merge
from broker.lightcurves import DETECTION, FLAG_OWN, empty_light_curves
from broker.message import Message
from broker.pipeline import Pipeline, shipped_or_chosen_scorer
from broker.rebuild import Record, keep
from broker.simulate import simulate_lsst, simulate_ztf
from broker.surveys.avro import LocalSchemas
from broker.surveys.catalog import decode
from tests.withdrawals import closed, one_object, taking_back

SETTINGS = load(env={}, path=None)
FIRST, SECOND, _ = one_object(3)
GONE = FIRST["diaSource"]["diaSourceId"]


def inputs() -> list[Message]:
    """Both surveys' alerts, solar-system objects among them, and a withdrawal."""
    values = [alert.value for maker in (simulate_ztf, simulate_lsst) for alert in maker(150, seed=9)]
    values += [closed(FIRST), closed(taking_back(SECOND, [GONE]))]
    return [Message("in", n % 3, n, 1_790_000_000_000 + 1111 * n, value) for n, value in enumerate(values)]


@pytest.fixture(scope="module")
def before() -> tuple[MemoryStore, list[Record]]:
    """A store that has seen everything, and what was published."""
    store = MemoryStore()
    pipeline = Pipeline(store, shipped_or_chosen_scorer(SETTINGS), LocalSchemas(), SETTINGS)
    bright = Filter("local", "bright", 1, "mag < 19")
    filters = compile_set(3, [bright], {bright.mark: bright}, pipeline.columns)
    packets = pipeline.process(inputs(), filters).packets
    schemas = {key: fastavro.parse_schema(json.loads(text)) for key, text in pipeline.writer.schemas.items()}
    published: list[Record] = []
    for packet in packets:
        if packet.topic.startswith("alerts."):
            schema = schemas[int.from_bytes(packet.value[1:5], "big")]
            value: Any = fastavro.schemaless_reader(io.BytesIO(packet.value[5:]), schema, None)
            published.append((packet.key or b"", value))
    return store, published


def rebuilt(published: list[Record], chunk: int) -> MemoryStore:
    store = MemoryStore()
    for first in range(0, len(published), chunk):
        keep(store, published[first : first + chunk], SETTINGS.history.max_points)
    return store


def own_points(store: MemoryStore) -> dict[bytes, bytes]:
    """The alerts' own points of each light curve as it reads."""
    keys = sorted(store.curves)
    curves = merge(join_blobs([store.curves[key] for key in keys]), empty_light_curves(len(keys))).curves
    rows = {key: curves.row(number) for number, key in enumerate(keys)}
    own = {key: row[(row["kind"] == DETECTION) & (row["flags"] & FLAG_OWN != 0)] for key, row in rows.items()}
    return {key: points.tobytes() for key, points in own.items() if len(points)}


def claims(store: MemoryStore) -> dict[tuple[bytes, bytes], bytes]:
    """Every claim; of a withdrawal's note who told of it."""
    return {
        at: value[: pack.POSITION_BYTES] if at[0].startswith(b"told") else value
        for at, value in store.claims.items()
    }


@pytest.mark.parametrize("chunk", [1, 70, 1000])
def test_points_and_claims_come_back_to_the_byte(
    before: tuple[MemoryStore, list[Record]], chunk: int
) -> None:
    store, published = before
    again = rebuilt(published, chunk)
    assert own_points(again) == own_points(store)
    assert claims(again) == claims(store)
    assert any(len(value) > pack.CLAIM_BYTES for value in store.claims.values())
    assert sum(at[0].startswith(b"told") for at in again.claims) == 1


def test_doing_it_again_or_in_another_order_changes_nothing(
    before: tuple[MemoryStore, list[Record]],
) -> None:
    _, published = before
    once = rebuilt(published, 100)
    shuffled = [published[number] for number in np.random.default_rng(1).permutation(len(published))]
    other = rebuilt(shuffled, 100)
    curves = dict(once.curves)
    keep(once, published, SETTINGS.history.max_points)
    assert once.curves == curves
    assert own_points(other) == own_points(once)
    assert claims(other) == claims(once)


def test_a_mover_is_put_back_under_both_its_keys(before: tuple[MemoryStore, list[Record]]) -> None:
    _, published = before
    movers = [
        b"ss:%d" % number
        for batch in decode(inputs(), LocalSchemas()).batches
        for number in batch.ss_object_id[batch.solar_system_status == SS_ASSOCIATED].tolist()
    ]
    assert movers
    assert {pack.curve_key(key) for key in movers} <= rebuilt(published, 100).curves.keys()
