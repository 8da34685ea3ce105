"""The score by images in the stream: asked for by a setting, NULL without it."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Sequence
from typing import Any

import fastavro
import numpy as np
import pytest

from broker.config import load
from broker.errors import BundleError
from broker.filter import Filter
from broker.filters.live import FilterSet, compile_set
from broker.history.memory import MemoryStore
from broker.message import Message
from broker.pipeline import Outcome, Pipeline, shipped_or_chosen_scorer
from broker.scores.catalog import SHIPPED, STAMPS_BUNDLE, Scorer
from broker.scores.stamps import load_stamps
from broker.simulate import simulate_lsst, simulate_ztf
from broker.surveys.avro import LocalSchemas
from broker.surveys.catalog import decode

ZTF = [alert.value for alert in simulate_ztf(30, 4)]
GZIP = b"\x1f\x8b"


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return shipped_or_chosen_scorer(load(env={}))


def processed(scorer: Scorer, stamps: str, values: Sequence[bytes]) -> tuple[Outcome, dict[str, list[Any]]]:
    """What a batch comes to, and the records that go out by topic."""
    pipeline = Pipeline(MemoryStore(), scorer, LocalSchemas(), load({"run.stamps": stamps}, env={}))
    chosen = Filter("local", "real", 1, "stamp_score > 0.5")
    filters: FilterSet = compile_set(1, [chosen], {chosen.mark: chosen}, pipeline.columns)
    messages = [Message("t", 0, offset, 0, value) for offset, value in enumerate(values)]
    outcome = pipeline.process(messages, filters)
    out: dict[str, list[Any]] = {}
    for packet in outcome.packets:
        schema = fastavro.parse_schema(
            json.loads(pipeline.writer.schemas[struct.unpack(">bI", packet.value[:5])[1]])
        )
        record = fastavro.schemaless_reader(io.BytesIO(packet.value[5:]), schema, None)
        out.setdefault(packet.topic, []).append(record)
    return outcome, out


def scores(records: Sequence[Any]) -> list[float | None]:
    return [record["scores"]["stamp_score"] for record in records]


def test_nothing_is_looked_at_unless_asked(scorer: Scorer) -> None:
    outcome, out = processed(scorer, "", ZTF)
    assert scores(out["alerts.ztf"]) == [None] * len(ZTF)
    assert "stamps" not in outcome.stage_s
    assert "filters.local.real" not in out


def test_the_score_is_in_messages_and_filters_and_moves_no_other(scorer: Scorer) -> None:
    (batch,) = decode([Message("t", 0, n, 0, value) for n, value in enumerate(ZTF)], LocalSchemas()).batches
    expected = load_stamps(STAMPS_BUNDLE).score("ztf", batch.records, batch.cutouts)
    outcome, out = processed(scorer, SHIPPED, ZTF)
    found = scores(out["alerts.ztf"])
    np.testing.assert_allclose(np.array(found, dtype=float), expected, rtol=1e-6)
    assert outcome.stage_s["stamps"] > 0.0
    passed = {record["diaSourceId"] for record in out["filters.local.real"]}
    assert passed == {int(batch.dia_source_id[row]) for row in np.flatnonzero(expected > 0.5)}
    _, plain = processed(scorer, "", ZTF)
    for one, other in zip(out["alerts.ztf"], plain["alerts.ztf"], strict=True):
        assert {**one["scores"], "stamp_score": None} == other["scores"]


def test_a_broken_image_is_null_and_harms_nothing_else(scorer: Scorer) -> None:
    broken = bytearray(ZTF[3])
    place = broken.index(GZIP)
    broken[place + 20 : place + 60] = bytes(40)
    _, whole = processed(scorer, SHIPPED, ZTF)
    outcome, out = processed(scorer, SHIPPED, [*ZTF[:3], bytes(broken), *ZTF[4:]])
    assert outcome.counts[("ztf", "published", "")] == len(ZTF)
    expected = scores(whole["alerts.ztf"])
    assert scores(out["alerts.ztf"]) == [*expected[:3], None, *expected[4:]]


def test_other_surveys_have_none(scorer: Scorer) -> None:
    values = [alert.value for alert in simulate_lsst(10, 4)]
    _, out = processed(scorer, SHIPPED, values)
    assert scores(out["alerts.lsst"]) == [None] * len(values)


def test_a_folder_without_a_network_is_refused_at_the_start(scorer: Scorer) -> None:
    with pytest.raises(BundleError, match="nowhere"):
        processed(scorer, "/nowhere", ZTF)
