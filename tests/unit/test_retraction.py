"""A detection that the survey takes back is taken back by us: once, and from everyone who got its alert."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import fastavro
import pytest

from broker.config import load
from broker.errors import RetryBatch
from broker.filter import Filter
from broker.filters.live import FilterSet, compile_set
from broker.history.base import Stored
from broker.history.memory import MemoryStore
from broker.message import Message, Packet
from broker.pipeline import Pipeline, shipped_or_chosen_scorer
from broker.scores.catalog import Scorer
from broker.surveys.avro import LocalSchemas
from tests.withdrawals import closed, one_object, taking_back

SETTINGS = load(env={}, path=None)
PASSING = Filter("local", "all", 1, "psf_flux_err > 0", payload="full")
FAILING = Filter("local", "none", 1, "psf_flux_err < 0")
ALERTS, HITS = "alerts.lsst", "filters.local.all"
EVERY_HIT = {"name": "local.all", "version": 1, "sampling": 1.0, "selected": []}


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return shipped_or_chosen_scorer(SETTINGS)


class Broker:
    """A pipeline on a store in memory, which may be told to do a batch again."""

    def __init__(self, scorer: Scorer) -> None:
        self.store = MemoryStore()
        self.pipeline = Pipeline(self.store, scorer, LocalSchemas(), SETTINGS)
        self.use(PASSING, FAILING)

    def use(self, *filters: Filter) -> None:
        active = [item for item in filters if item.state == "active"]
        addresses = {item.mark: item for item in filters if item.state != "paused"}
        self.filters: FilterSet = compile_set(7, active, addresses, self.pipeline.columns)

    def __call__(self, *numbered: tuple[int, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
        """What a batch of packets, each with its offset, makes go out: (topic, record)."""
        messages = [
            Message("lsst_replay", 0, offset, 1_790_000_000_000, closed(record))
            for offset, record in numbered
        ]
        outcome = self.pipeline.process(messages, self.filters)
        return [(packet.topic, self.read(packet)) for packet in outcome.packets]

    def read(self, packet: Packet) -> dict[str, Any]:
        identifier = struct.unpack(">bI", packet.value[:5])[1]
        schema = fastavro.parse_schema(json.loads(self.pipeline.writer.schemas[identifier]))
        record: Any = fastavro.schemaless_reader(io.BytesIO(packet.value[5:]), schema, None)
        return dict(record)


@pytest.fixture
def broker(scorer: Scorer) -> Broker:
    return Broker(scorer)


def retracted(out: Sequence[tuple[str, dict[str, Any]]]) -> list[tuple[str, int]]:
    """(topic, diaSourceId) of the retractions."""
    found = [
        (topic, record["diaSourceId"]) for topic, record in out if record.get("kind", "") == "retraction"
    ]
    return sorted(found)


def noticed(out: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    return [record["text"] for topic, record in out if topic == "notices"]


FIRST, SECOND, THIRD = one_object(3)
GONE = FIRST["diaSource"]["diaSourceId"]
NEWS, REPEATED = taking_back(SECOND, [GONE]), taking_back(THIRD, [GONE])
EVERYWHERE = [(ALERTS, GONE), (HITS, GONE)]


def test_it_goes_to_the_alert_topic_and_to_the_filters_that_published_the_alert(broker: Broker) -> None:
    assert retracted(broker((1, FIRST))) == []
    out = broker((2, NEWS))
    assert retracted(out) == EVERYWHERE
    assert noticed(out) == []
    assert retracted(broker((3, REPEATED))) == []


def test_it_says_what_is_gone_and_why(broker: Broker) -> None:
    alert = next(record for topic, record in broker((1, FIRST)) if topic == ALERTS)
    out = broker((2, NEWS))
    found = next(record for topic, record in out if (topic, record["kind"]) == (ALERTS, "retraction"))
    same = ("diaSourceId", "diaObjectId", "objectName", "survey", "midpointMjdTai", "band", "psfFlux", "mag")
    assert {name: found[name] for name in same} == {name: alert[name] for name in same}
    assert found["flags"] & 8
    assert str(SECOND["diaSource"]["diaSourceId"]) in found["cause"]
    assert found["filtersPassed"] == ["local.all@1"]
    assert found["source"]["offset"] == 2
    assert set(found["scores"].values()) == {None}
    hit = next(record for topic, record in out if (topic, record["kind"]) == (HITS, "retraction"))
    assert hit == found | {"filter": EVERY_HIT}


def test_features_are_those_of_the_light_curve_without_it(broker: Broker, scorer: Scorer) -> None:
    broker((1, FIRST))
    out = broker((2, NEWS))
    features = next(r for topic, r in out if (topic, r["kind"]) == (ALERTS, "alert"))["features"]
    never = [s for s in SECOND["prvDiaSources"] if s["diaSourceId"] != GONE]
    other = Broker(scorer)((2, SECOND | {"prvDiaSources": never}))
    assert features == next(record for topic, record in other if topic == ALERTS)["features"]
    kept = Broker(scorer)((2, SECOND))
    assert features != next(record for topic, record in kept if topic == ALERTS)["features"]


def test_a_batch_that_is_done_again_says_the_same(broker: Broker) -> None:
    broker((1, FIRST))
    first = retracted(broker((2, NEWS)))
    assert first == retracted(broker((2, NEWS))) == retracted(broker((2, NEWS), (3, REPEATED))) == EVERYWHERE
    assert retracted(broker((3, REPEATED))) == []


def test_a_duplicate_of_the_news_is_not_the_news(broker: Broker) -> None:
    broker((1, FIRST))
    assert retracted(broker((2, NEWS), (4, NEWS))) == EVERYWHERE
    assert retracted(broker((5, NEWS))) == []


def test_alert_and_withdrawal_in_one_batch_and_that_batch_split_when_it_is_done_again(broker: Broker) -> None:
    assert retracted(broker((1, FIRST), (2, NEWS))) == EVERYWHERE
    assert sorted(retracted(broker((1, FIRST))) + retracted(broker((2, NEWS)))) == EVERYWHERE


def test_a_withdrawal_that_comes_before_its_alert(broker: Broker) -> None:
    early = broker((2, NEWS))
    assert retracted(early) == []
    assert [str(GONE) in text for text in noticed(early)] == [True]
    assert noticed(broker((3, REPEATED))) == []
    late = broker((1, FIRST))
    assert [record["kind"] for topic, record in late if topic == ALERTS] == ["alert", "retraction"]
    assert retracted(late) == EVERYWHERE


def test_a_removed_filter_is_told_a_paused_one_is_not_and_a_notice_says_so(scorer: Scorer) -> None:
    for state, topics, notices in (("removed", [ALERTS, HITS], 0), ("paused", [ALERTS], 1)):
        broker = Broker(scorer)
        broker((1, FIRST))
        broker.use(replace(PASSING, state=state))
        out = broker((2, NEWS))
        assert [topic for topic, _ in retracted(out)] == topics
        assert len(noticed(out)) == notices


def test_a_filter_of_many_versions_is_told_under_the_version_that_published(broker: Broker) -> None:
    broker((1, FIRST))
    broker.use(PASSING, replace(PASSING, version=2))
    hit = next(r for topic, r in broker((2, NEWS)) if (topic, r["kind"]) == (HITS, "retraction"))
    assert hit["filter"]["version"] == 1


def test_an_alert_withdrawn_by_another_worker_while_its_batch_is_in_flight(scorer: Scorer) -> None:
    broker, other = Broker(scorer), Broker(scorer)
    other.store = broker.store
    other.pipeline = Pipeline(broker.store, scorer, LocalSchemas(), SETTINGS)
    told: list[tuple[str, dict[str, Any]]] = []
    append = broker.store.append

    def after_the_news(*args: Any) -> Stored:
        broker.store.append = append  # type: ignore[method-assign]
        told.extend(other((2, NEWS)))
        return append(*args)

    broker.store.append = after_the_news  # type: ignore[method-assign]
    with pytest.raises(RetryBatch):
        broker((1, FIRST))
    assert sorted(retracted(told) + retracted(broker((1, FIRST)))) == EVERYWHERE
