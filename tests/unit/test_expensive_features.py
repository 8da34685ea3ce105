"""The pipeline computes expensive features for a part of each batch and keeps them with their objects."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import replace

import fastavro
import numpy as np
import pytest

from broker.config import load
from broker.features.gated import GATED_NAMES, extract_gated
from broker.filters.live import FilterSet
from broker.history.memory import MemoryStore
from broker.history.recall import recall
from broker.message import Message
from broker.pipeline import GATED_ROWS_MIN, Pipeline, shipped_or_chosen_scorer
from broker.simulate import simulate_ztf
from broker.surveys.avro import LocalSchemas
from broker.surveys.catalog import decode

SETTINGS = load(env={}, path=None)


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    alerts = simulate_ztf(400, seed=11)
    return [Message("ztf_replay", 0, n, 1_790_000_000_000, alert.value) for n, alert in enumerate(alerts)]


def pipeline(store: MemoryStore, share: float) -> Pipeline:
    settings = replace(SETTINGS, run=replace(SETTINGS.run, gated_share=share))
    return Pipeline(store, shipped_or_chosen_scorer(settings), LocalSchemas(), settings)


def published(made: Pipeline, messages: list[Message]) -> dict[int, dict[str, float | None]]:
    """Features as published, by diaSourceId."""
    found = {}
    for packet in made.process(messages, FilterSet(0)).packets:
        if packet.topic.startswith("alerts."):
            identifier = struct.unpack(">bI", packet.value[:5])[1]
            schema = fastavro.parse_schema(json.loads(made.writer.schemas[identifier]))
            record = fastavro.schemaless_reader(io.BytesIO(packet.value[5:]), schema, None)
            found[record["diaSourceId"]] = record["features"]
    return found


def test_what_is_published_is_what_is_computed_from_the_same_light_curve(messages: list[Message]) -> None:
    store = MemoryStore()
    batch = decode(messages, LocalSchemas()).batches[0]
    _, known = recall(MemoryStore(), batch, SETTINGS.history)
    expected = extract_gated(known.curves, known.batch.midpoint_mjd_tai)
    out = published(pipeline(store, 1.0), messages)
    at = GATED_NAMES.index("fit_chi2")
    names = [name for name in next(iter(out.values())) if name.lower().replace("_", "") == "fitchi2"]
    assert len(names) == 1
    assert np.isfinite(expected.values[:, at]).sum() > 20
    for row, source in enumerate(known.batch.dia_source_id.tolist()):
        ours, value = expected.values[row, at], out[source][names[0]]
        assert value == pytest.approx(ours, rel=1e-6) if np.isfinite(ours) else value is None
    assert len(store.gated) == len(
        {key for key, blob in zip(known.keys, expected.blobs, strict=True) if blob}
    )


def test_a_batch_computes_no_more_than_its_share(messages: list[Message]) -> None:
    store = MemoryStore()
    published(pipeline(store, 0.0), messages)
    assert 0 < len(store.gated) <= GATED_ROWS_MIN


def test_the_next_batch_finds_what_the_last_one_kept(messages: list[Message]) -> None:
    store = MemoryStore()
    half = len(messages) // 2
    made = pipeline(store, 1.0)
    published(made, messages[:half])
    before = dict(store.gated)
    published(made, messages[half:])
    grown = {key for key, blob in store.gated.items() if before.get(key, blob) != blob}
    assert before.keys() < store.gated.keys()
    assert grown, "some objects have more points now"
