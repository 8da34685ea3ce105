"""What follows from an annotation: the object's newest alert judged again, once, with all that is known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from broker.annotations.originals import Position
from broker.config import load
from broker.errors import RetryBatch
from broker.filter import Filter
from broker.filters.live import compile_set
from broker.history.base import Stored
from broker.history.memory import MemoryStore
from broker.history.pack import claim_marks, topic_hash
from broker.message import Message
from broker.pipeline import Outcome, Pipeline, shipped_or_chosen_scorer
from broker.rebuild import keep
from broker.reevaluate import take_in
from broker.scores.catalog import Scorer
from broker.surveys.avro import LocalSchemas
from tests.unit.published import opened_packet
from tests.withdrawals import closed, one_object, taking_back

SETTINGS = load(env={}, path=None)
ALL = Filter("local", "all", 1, "psf_flux_err > 0", payload="standard")
SUPERNOVAE = Filter("local", "sn", 1, "annotation_class = 'SN Ia'", payload="full")
FORCED = Filter("local", "forced", 1, "n_forced >= 2")
ALERTS = "alerts.lsst"
FIRST, SECOND, THIRD = one_object(3)
OBJECT = str(FIRST["diaSource"]["diaObjectId"])
BORN_MS = 1_790_000_000_000
DAY_MS = 86_400_000
NOT_OURS = ("dead-letters", "annotations")
"""Topics whose records are not framed."""


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return shipped_or_chosen_scorer(SETTINGS)


class Broker:
    """A pipeline on a store in memory; it keeps every record it was given, until told not to."""

    def __init__(self, scorer: Scorer) -> None:
        self.store = MemoryStore()
        self.kept: dict[Position, Message] = {}
        self.fetched: list[Position] = []
        self.pipeline = Pipeline(self.store, scorer, LocalSchemas(), SETTINGS, self.fetch)
        self.filters = compile_set(7, [ALL, SUPERNOVAE, FORCED], {}, self.pipeline.columns)
        self.outcome = Outcome()

    def fetch(self, positions: Sequence[Position]) -> Mapping[Position, Message]:
        self.fetched += positions
        return {position: self.kept[position] for position in positions if position in self.kept}

    def __call__(self, *messages: Message) -> list[tuple[str, dict[str, Any]]]:
        self.outcome = self.pipeline.process(messages, self.filters)
        for message in messages:
            self.kept[topic_hash(message.topic), message.partition, message.offset] = message
        packets = [packet for packet in self.outcome.packets if packet.topic not in NOT_OURS]
        return [(packet.topic, opened_packet(packet, self.pipeline.writer.schemas)) for packet in packets]


def alert(offset: int, record: dict[str, Any]) -> Message:
    return Message("lsst_replay", 0, offset, BORN_MS, closed(record))


def said(offset: int, **content: Any) -> Message:
    whole = {"survey": "lsst", "object": OBJECT, "kind": "class", "by": "alice", "id": "one"} | content
    value = json.dumps(whole).encode()
    return Message("annotations", 0, offset, BORN_MS + DAY_MS, value, f"lsst:{OBJECT}".encode())


@pytest.fixture
def broker(scorer: Scorer) -> Broker:
    return Broker(scorer)


def updates(out: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, int]]:
    return sorted((topic, item["diaSourceId"]) for topic, item in out if item.get("kind") == "update")


def id_of(record: dict[str, Any]) -> int:
    return int(record["diaSource"]["diaSourceId"])


def test_the_newest_alert_is_judged_again_with_what_was_said(broker: Broker) -> None:
    alerts = broker(alert(1, FIRST), alert(2, SECOND))
    assert all(topic != SUPERNOVAE.topic for topic, _ in alerts)
    out = broker(said(1, **{"class": "SN Ia", "probability": 0.75}))
    newest = id_of(SECOND)
    assert updates(out) == [(topic, newest) for topic in (ALERTS, ALL.topic, SUPERNOVAE.topic)]
    before = next(item for topic, item in alerts if topic == ALERTS and item["diaSourceId"] == newest)
    after = next(item for topic, item in out if topic == ALERTS)
    assert after["cause"] == "annotation one: class SN Ia by alice"
    assert after["annotations"] == {
        "class": "SN Ia", "probability": 0.75, "spectrumType": None, "redshift": None, "note": None,
        "by": "alice", "ageDays": 0.0,
    }  # fmt: skip
    changed = {name for name in before if before[name] != after[name]} - {"provenance"}
    assert changed == {"kind", "cause", "annotations", "filtersPassed"}
    assert {**after["provenance"], "publishedAt": 0} == {**before["provenance"], "publishedAt": 0}
    hit = next(item for topic, item in out if topic == SUPERNOVAE.topic)
    assert hit["original"]["diaSource"]["diaSourceId"] == newest
    assert hit["lightCurve"] == next(item for topic, item in out if topic == ALL.topic)["lightCurve"]


def test_later_alerts_have_it_too(broker: Broker) -> None:
    broker(alert(1, FIRST), said(1, **{"class": "SN Ia"}))
    out = broker(alert(2, SECOND))
    assert [item["kind"] for topic, item in out if topic == SUPERNOVAE.topic] == ["alert"]


def test_an_annotation_that_comes_first_waits_for_the_first_alert(broker: Broker) -> None:
    out = broker(said(1, **{"class": "SN Ia"}))
    assert [(topic, item["owner"], item["kind"]) for topic, item in out] == [
        ("notices", "alice", "annotation_waits")
    ]
    assert "no alert of the object is known" in out[0][1]["text"]
    assert SUPERNOVAE.topic in [topic for topic, _ in broker(alert(1, FIRST))]


def test_a_record_that_is_gone_is_told_and_the_annotation_is_kept(broker: Broker) -> None:
    broker(alert(1, FIRST))
    broker.kept.clear()
    out = broker(said(1, **{"class": "SN Ia"}))
    assert [topic for topic, _ in out] == ["notices"]
    assert "not kept any more" in out[0][1]["text"]
    assert SUPERNOVAE.topic in [topic for topic, _ in broker(alert(2, SECOND))]


def test_once_however_often_it_is_said_or_done_again(broker: Broker) -> None:
    broker(alert(1, FIRST))
    news = said(1, **{"class": "SN Ia"})
    assert updates(broker(news)) == updates(broker(news)) != []
    assert broker(replace(news, offset=2)) == []
    assert broker.outcome.annotations["duplicate"] == 1
    assert broker(said(3, **{"class": "SN II"})) == []
    assert broker.outcome.counts[("annotations", "rejected", "duplicate_changed")] == 1
    assert updates(broker(said(4, id="two", **{"class": "SN II"}))) == [
        (ALERTS, id_of(FIRST)),
        (ALL.topic, id_of(FIRST)),
    ]


def test_the_newest_of_each_kind_counts(broker: Broker) -> None:
    first = said(1, id="a", **{"class": "SN Ia"})
    broker(
        first,
        replace(said(2, id="b", **{"class": "SN II"}), timestamp_ms=first.timestamp_ms + 1),
        said(3, id="c", kind="redshift", redshift=0.03, by="bob"),
        said(4, id="d", kind="spectrum-type", by="bob", **{"class": "SN IIn"}),
        said(5, id="e", kind="note", text="look at this", by="carol"),
    )
    found = next(item for topic, item in broker(alert(1, FIRST)) if topic == ALERTS)["annotations"]
    assert found.pop("redshift") == pytest.approx(0.03)
    assert found == {
        "class": "SN II", "probability": None, "spectrumType": "SN IIn", "note": "look at this",
        "by": "alice", "ageDays": 0.0,
    }  # fmt: skip


def forced(offset: int, id: str, *points: tuple[float, float]) -> Message:
    content = [
        {"midpointMjdTai": mjd, "band": "r", "psfFlux": flux, "psfFluxErr": 10.0} for mjd, flux in points
    ]
    return said(offset, id=id, kind="forced", points=content)


def test_forced_photometry_changes_the_light_curve_and_what_it_refers_to(broker: Broker) -> None:
    alerts = broker(alert(1, FIRST))
    mjd = FIRST["diaSource"]["midpointMjdTai"]
    out = broker(forced(1, "f1", (mjd - 9.5, 20.0), (mjd + 3.0, 30.0)))
    assert (FORCED.topic, id_of(FIRST)) in updates(out)
    before, after = (
        next(item for topic, item in found if topic == ALERTS)["features"] for found in (alerts, out)
    )
    assert after["n_forced"] == before["n_forced"] + 2
    assert after["age_days"] == pytest.approx(before["age_days"] + 3.0, abs=1e-3)
    curve = next(item for topic, item in out if topic == ALL.topic)["lightCurve"]
    mine = [point for point in curve if point["knownAt"] == (BORN_MS + DAY_MS) // 1000]
    assert [(point["kind"], point["psfFlux"]) for point in mine] == [("forced", 20.0), ("forced", 30.0)]
    again = broker(forced(2, "f2", (mjd - 9.5, 20.0)))
    found = next(item for topic, item in again if topic == ALERTS)["features"]
    assert found["n_forced"] == after["n_forced"]


def test_an_alert_that_was_withdrawn_is_not_judged_again(broker: Broker) -> None:
    broker(alert(1, FIRST), alert(2, SECOND))
    broker(alert(3, taking_back(THIRD, [id_of(SECOND)])))
    out = broker(said(1, **{"class": "SN Ia"}))
    assert {source for _, source in updates(out)} == {id_of(THIRD)}


def test_a_retraction_goes_to_who_was_told_by_an_update(broker: Broker) -> None:
    broker(alert(1, FIRST), alert(2, SECOND))
    broker(said(1, **{"class": "SN Ia"}))
    broker.filters = replace(
        broker.filters, addresses={item.mark: item for item in (ALL, SUPERNOVAE, FORCED)}
    )
    out = broker(alert(3, taking_back(THIRD, [id_of(SECOND)])))
    told = sorted(topic for topic, item in out if item.get("kind") == "retraction")
    assert told == [ALERTS, ALL.topic, SUPERNOVAE.topic]


@pytest.mark.parametrize(
    "value", [b"", b"\x00\x00", b"[]", b"{}", b"[" * 100_000, b'{"survey":"lsst","object":"x","kind":"note"}']
)
def test_what_is_no_annotation_is_a_dead_letter(broker: Broker, value: bytes) -> None:
    assert broker(Message("annotations", 0, 1, BORN_MS, value)) == []
    assert broker.outcome.counts == {
        ("annotations", "in", ""): 1,
        ("annotations", "rejected", "invalid_annotation"): 1,
    }
    assert [packet.topic for packet in broker.outcome.packets] == ["dead-letters"]


def test_updates_are_no_alerts_of_the_account(broker: Broker) -> None:
    broker(alert(1, FIRST))
    broker(said(1, **{"class": "SN Ia"}))
    assert broker.outcome.counts == {}
    assert broker.outcome.scored == []
    assert broker.outcome.updates == len(broker.outcome.packets) == 3


def test_only_filters_on_scores_hear_of_a_new_model(broker: Broker) -> None:
    scoring = Filter("local", "scoring", 1, "anomaly >= 0 or anomaly is null")
    broker.filters = compile_set(8, [ALL, scoring], {}, broker.pipeline.columns)
    broker(alert(1, FIRST))
    out = broker(said(1, kind="reevaluate", text="model x:2", scores_only=True, by="broker"))
    assert updates(out) == [(ALERTS, id_of(FIRST)), (scoring.topic, id_of(FIRST))]
    assert out[0][1]["filtersPassed"] == ["local.scoring@1"]
    broker.filters = compile_set(9, [ALL], {}, broker.pipeline.columns)
    assert broker(said(2, id="x", kind="reevaluate", text="model x:3", scores_only=True, by="broker")) == []


def late(message: Message, seconds: int = 120) -> Message:
    return replace(message, timestamp_ms=message.timestamp_ms + 1000 * seconds)


def without_history(record: dict[str, Any]) -> dict[str, Any]:
    return record | {"prvDiaSources": [], "prvDiaForcedSources": []}


def asked(broker: Broker) -> list[dict[str, Any]]:
    return [json.loads(p.value) for p in broker.outcome.packets if p.topic == "annotations"]


def test_a_late_detection_has_the_newest_alert_judged_again(broker: Broker) -> None:
    first = broker(alert(2, without_history(SECOND)))
    broker(late(alert(1, FIRST)))
    requests = asked(broker)
    assert [item["kind"] for item in requests] == ["reevaluate"]
    assert f"late detection {id_of(FIRST)}" in requests[0]["text"]
    request = next(p for p in broker.outcome.packets if p.topic == "annotations")
    out = broker(Message("annotations", 0, 1, BORN_MS + 130_000, request.value, request.key))
    assert updates(out)[0] == (ALERTS, id_of(SECOND))
    before, after = (next(i for t, i in found if t == ALERTS)["features"] for found in (first, out))
    assert after["n_detections"] > before["n_detections"] == 1


def test_a_batch_that_is_done_again_asks_again_and_the_same(broker: Broker) -> None:
    broker(alert(2, without_history(SECOND)))
    broker(late(alert(1, FIRST)))
    before = asked(broker)
    broker(late(alert(1, FIRST)))
    assert asked(broker) == before != []
    broker(replace(late(alert(1, FIRST)), offset=9))
    assert asked(broker) == []


def test_what_a_packet_had_before_is_no_news(broker: Broker) -> None:
    broker(alert(2, SECOND))
    broker(late(alert(1, FIRST)))
    assert {source["diaSourceId"] for source in SECOND["prvDiaSources"]} >= {id_of(FIRST)}
    assert asked(broker) == []


@pytest.mark.parametrize("seconds", [-500, 0, 59])
def test_what_was_written_together_is_not_late(broker: Broker, seconds: int) -> None:
    broker(alert(2, without_history(SECOND)))
    broker(late(alert(1, FIRST), seconds))
    assert asked(broker) == []


def test_the_newest_alert_judges_itself(broker: Broker) -> None:
    broker(alert(1, without_history(FIRST)))
    broker(late(alert(2, SECOND), 90_000))
    assert asked(broker) == []
    broker(late(alert(1, FIRST), 90_000), late(alert(3, THIRD), 90_000))
    assert asked(broker) == []


def test_a_withdrawal_told_by_a_late_packet(broker: Broker) -> None:
    broker(alert(1, FIRST), alert(3, THIRD))
    broker(late(alert(2, taking_back(SECOND, [id_of(FIRST)]))))
    assert [item["text"] for item in asked(broker)] == [f"withdrawal of {id_of(FIRST)}"]
    broker(late(alert(2, taking_back(SECOND, [id_of(FIRST)]))))
    assert [item["text"] for item in asked(broker)] == [f"withdrawal of {id_of(FIRST)}"]


def test_something_said_while_an_alert_is_in_flight(broker: Broker) -> None:
    """Its worker has not seen it, and who said it saw no alert: the batch is done again."""
    broker(alert(1, FIRST))
    append, heard = broker.store.append, list[list[tuple[str, dict[str, Any]]]]()

    def after_the_news(*args: Any) -> Stored:
        broker.store.append = append  # type: ignore[method-assign]
        heard.append(broker(said(1, **{"class": "SN Ia"})))
        return append(*args)

    broker.store.append = after_the_news  # type: ignore[method-assign]
    with pytest.raises(RetryBatch, match="something was said of an object"):
        broker(alert(2, SECOND))
    assert {source for _, source in updates(heard[0])} == {id_of(FIRST)}
    out = broker(alert(2, SECOND))
    assert [item["diaSourceId"] for topic, item in out if topic == SUPERNOVAE.topic] == [id_of(SECOND)]


def test_something_said_of_another_object_disturbs_nobody(broker: Broker) -> None:
    append = broker.store.append

    def after_the_news(*args: Any) -> Stored:
        broker.store.append = append  # type: ignore[method-assign]
        broker(said(1, object="12", **{"class": "SN Ia"}))
        return append(*args)

    broker.store.append = after_the_news  # type: ignore[method-assign]
    assert broker(alert(2, SECOND))


def test_a_rebuilt_store_knows_who_heard_by_an_update(broker: Broker, scorer: Scorer) -> None:
    out = [*broker(alert(1, FIRST)), *broker(said(1, **{"class": "SN Ia"}))]
    records = [(f"lsst:{OBJECT}".encode(), item) for topic, item in out if topic == ALERTS]
    assert [item["kind"] for _, item in records] == ["alert", "update"]
    claims = {at: value for at, value in broker.store.claims.items() if b"annotation" not in at[0]}
    for parts in ([records], [records[:1], records[1:]], [records, records]):
        again = MemoryStore()
        for part in parts:
            keep(again, part, SETTINGS.history.max_points)
        assert {place: claim_marks(value) for place, value in again.claims.items()} == {
            place: claim_marks(value) for place, value in claims.items()
        }
    assert len(claim_marks(next(iter(claims.values())))) == 2


def test_a_rebuilt_store_knows_what_was_said_and_which_record_counts(broker: Broker) -> None:
    news, copy = said(1, **{"class": "SN Ia"}), said(7, **{"class": "SN Ia"})
    again = MemoryStore(rebuilt=False)
    taken = take_in(again, [news, copy], 100, rebuilding=True)
    assert (len(taken.fresh), taken.duplicates) == (1, 1)
    broker(news)
    assert again.curves == broker.store.curves
    again.mark_rebuilt()
    assert take_in(again, [copy], 100).fresh == []
    assert len(take_in(again, [news], 100).fresh) == 1
