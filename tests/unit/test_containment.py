"""One record must not stop the stream: the search for what is at fault, and batches with and without it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.batch import AlertBatch, plain_alert
from broker.config import load
from broker.containment import WIDESPREAD, WINDOW, Contained, FaultAccount, contain
from broker.errors import RetryBatch, WidespreadFault
from broker.features.gated import GATED_NAMES
from broker.filter import Filter
from broker.filters.live import FilterSet, compile_set
from broker.history.memory import MemoryStore
from broker.history.pack import topic_hash
from broker.message import Message
from broker.pipeline import Outcome, Pipeline, shipped_or_chosen_scorer
from broker.scores.catalog import Scorer
from broker.simulate import simulate_ztf
from broker.surveys.avro import LocalSchemas
from tests.unit.published import opened_packet

SETTINGS = load(env={}, path=None)
VALUES = [alert.value for alert in simulate_ztf(120, seed=5)]
FILTERS = [Filter("local", "all", 1, "psf_flux_err > 0", payload="full")]


def account(works: bool = True) -> FaultAccount:
    return FaultAccount(lambda: works)


def failing_on(bad: set[int]) -> Any:
    calls: list[list[int]] = []

    def judge(rows: Any) -> list[int]:
        calls.append(rows.tolist())
        if bad & set(rows.tolist()):
            raise ZeroDivisionError("no")
        return list(rows.tolist())

    judge.calls = calls  # type: ignore[attr-defined]
    return judge


@given(count=st.integers(0, 60), bad=st.sets(st.integers(0, 59), max_size=15))
def test_what_is_at_fault_is_found_and_the_rest_judged_at_once(count: int, bad: set[int]) -> None:
    bad &= set(range(count))
    found: Contained[list[int]] = contain(count, failing_on(bad), account())
    assert set(found.faults) == bad
    good = [number for number in range(count) if number not in bad]
    assert found.results == ([good] if good else [])


def test_one_of_thousands_is_found_in_few_calls() -> None:
    judge = failing_on({1234})
    contain(4000, judge, account())
    assert len(judge.calls) < 30


def test_what_fails_only_together_is_judged_in_parts() -> None:
    def judge(rows: Any) -> list[int]:
        if len(rows) > 3:
            raise MemoryError
        return list(rows.tolist())

    found: Contained[list[int]] = contain(10, judge, account())
    assert found.faults == {}
    assert [row for part in found.results for row in part] == list(range(10))


@pytest.mark.parametrize("kind", [MemoryError, RecursionError, SystemError, UnicodeError, KeyError, OSError])
def test_any_exception_is_contained(kind: type[Exception]) -> None:
    def judge(rows: Any) -> int:
        if 1 in rows:
            raise kind("so it is \ud83d")
        return len(rows)

    found = contain(3, judge, account())
    assert found.results == [2]
    assert found.faults[1].reason == "internal_error"
    assert kind.__name__ in found.faults[1].detail
    assert "test_containment.py" in found.faults[1].detail


def test_a_server_that_is_away_is_no_records_fault() -> None:
    def judge(_: Any) -> int:
        raise RetryBatch("Redis is away")

    with pytest.raises(RetryBatch, match="away"):
        contain(3, judge, account())


def test_an_exception_that_cannot_say_why() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    def judge(_: Any) -> int:
        raise Mute

    assert "cannot say why" in contain(1, judge, account()).faults[0].detail


def test_a_fault_of_ours_makes_no_dead_letters() -> None:
    with pytest.raises(WidespreadFault, match="ZeroDivisionError"):
        contain(500, failing_on(set(range(500))), account(works=False))


def test_a_flood_of_bad_data_does_not_stop_the_stream() -> None:
    assert len(contain(500, failing_on(set(range(500))), account(works=True)).faults) == 500


def test_single_records_of_a_fault_of_ours_are_added_up() -> None:
    ours, letters = account(works=False), 0
    for _ in range(WIDESPREAD - 1):
        letters += len(contain(1, failing_on({0}), ours).faults)
    with pytest.raises(WidespreadFault):
        contain(1, failing_on({0}), ours)
    assert letters == WIDESPREAD - 1


def test_a_few_bad_records_always_get_through() -> None:
    ours = account(works=False)
    for _ in range(WIDESPREAD - 1):
        assert len(contain(1, failing_on({0}), ours).faults) == 1
    contain(WINDOW, failing_on(set()), ours)
    for _ in range(100):
        assert len(contain(30, failing_on(set(range(10))), ours).faults) == 10


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return shipped_or_chosen_scorer(SETTINGS)


class Poisoned(Pipeline):
    """A pipeline that fails on some alerts: before they are judged, or when all but storing is done."""

    bad: Sequence[int] = ()
    late = False

    def _judge(self, known: Any, *args: Any) -> Any:
        if not self.late:
            self._fail_on(known.batch)
        return super()._judge(known, *args)

    def _keep(self, known: Any, *args: Any) -> None:
        super()._keep(known, *args)
        if self.late:
            self._fail_on(known.batch)

    def _fail_on(self, batch: AlertBatch) -> None:
        if set(batch.dia_source_id.tolist()) & set(self.bad):
            raise SystemError("something nobody foresaw \ud83d")


def messages(values: Sequence[bytes], first: int = 0) -> list[Message]:
    return [Message("t", 0, first + at, 1_790_000_000_000, value) for at, value in enumerate(values)]


def made(scorer: Scorer, bad: Sequence[int] = (), *, late: bool = False) -> tuple[Poisoned, FilterSet]:
    pipeline = Poisoned(MemoryStore(), scorer, LocalSchemas(), SETTINGS)
    pipeline.bad, pipeline.late = bad, late
    return pipeline, compile_set(3, FILTERS, {}, pipeline.columns)


def published(pipeline: Pipeline, outcome: Outcome) -> list[tuple[str, Any]]:
    """Every packet of a topic of ours, without when it was made and what is computed for some of a batch.

    Expensive features, and so scores, depend on how often a batch was tried: see features/gated.py.
    """
    found = []
    for packet in outcome.packets:
        if packet.topic.startswith(("alerts.", "filters.")):
            record = opened_packet(packet, pipeline.writer.schemas)
            record["provenance"].pop("publishedAt")
            del record["scores"]
            record["features"] = {k: v for k, v in record["features"].items() if k not in GATED_NAMES}
            found.append((packet.topic, json.dumps(record, default=str, sort_keys=True)))
    return found


def ids(values: Sequence[bytes]) -> list[int]:
    from broker.surveys.catalog import decode  # noqa: PLC0415

    (batch,) = decode(messages(values), LocalSchemas()).batches
    return [int(number) for number in batch.dia_source_id]


@pytest.mark.parametrize("late", [False, True])
def test_a_batch_comes_out_as_if_it_had_come_without_what_is_at_fault(scorer: Scorer, late: bool) -> None:
    names = ids(VALUES)
    bad = {3, 40, 41, 119}
    pipeline, filters = made(scorer, [names[at] for at in bad], late=late)
    outcome = pipeline.process(messages(VALUES), filters)
    good = [value for at, value in enumerate(VALUES) if at not in bad]
    plain, same = made(scorer)
    numbered = [m for at, m in enumerate(messages(VALUES)) if at not in bad]
    expected = plain.process(numbered, same)
    assert len(expected.packets) >= len(good)
    if not late:
        assert published(pipeline, outcome) == published(plain, expected)
        assert pipeline._store.curves.keys() >= plain._store.curves.keys()  # type: ignore[attr-defined]
        assert pipeline._store.claims == plain._store.claims  # type: ignore[attr-defined]
    letters = [packet for packet in outcome.packets if packet.topic == "dead-letters"]
    assert {dict(p.headers)["reason"] for p in letters} == {b"internal_error"}
    assert {p.value for p in letters} == {VALUES[at] for at in bad}
    assert all(b"SystemError" in dict(p.headers)["detail"] for p in letters)
    assert outcome.counts["ztf", "in", ""] == len(VALUES)
    assert outcome.counts["ztf", "published", ""] == len(good)
    assert outcome.counts["ztf", "rejected", "internal_error"] == len(bad)
    assert {fault.kind.split(" at ")[0] for fault in outcome.faults} == {"SystemError"}


def test_a_dead_letter_that_is_sent_again_is_judged(scorer: Scorer) -> None:
    names = ids(VALUES[:20])
    pipeline, filters = made(scorer, names[7:8])
    pipeline.process(messages(VALUES[:20]), filters)
    pipeline.bad = ()
    again = pipeline.process(messages(VALUES[7:8], first=50), filters)
    assert again.counts["ztf", "published", ""] == 1


def test_a_pipeline_that_judges_nothing_says_so_and_stores_nothing_beside(scorer: Scorer) -> None:
    names = ids(VALUES)
    pipeline, filters = made(scorer, [*names, 1])
    with pytest.raises(WidespreadFault):
        pipeline.process(messages(VALUES), filters)
    pipeline.bad = names
    letters = pipeline.process(messages(VALUES), filters)
    assert letters.counts["ztf", "rejected", "internal_error"] == len(VALUES)


def test_the_made_up_alert_can_be_judged(scorer: Scorer) -> None:
    pipeline, _ = made(scorer)
    assert pipeline._works()
    assert pipeline._store.claims == {}  # type: ignore[attr-defined]
    pipeline.bad = [1]
    assert not pipeline._works()
    assert len(plain_alert()) == 1


def test_a_message_that_cannot_be_decoded_in_a_way_nobody_foresaw(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from broker import pipeline as module  # noqa: PLC0415

    real = module.decode

    def decode(part: Sequence[Message], schemas: Any) -> Any:
        if any(message.offset == 5 for message in part):
            raise RecursionError("too deep")
        return real(part, schemas)

    monkeypatch.setattr(module, "decode", decode)
    pipeline, filters = made(scorer)
    outcome = pipeline.process(messages(VALUES[:30]), filters)
    assert outcome.counts["ztf", "published", ""] == 29
    assert outcome.counts["unknown", "rejected", "internal_error"] == 1
    assert outcome.counts["unknown", "in", ""] == 1


def test_alerts_of_one_object_in_parts_of_a_batch(scorer: Scorer) -> None:
    """Features look at points up to the alert's own time, so parts in time order change nothing."""
    pipeline, filters = made(scorer)
    whole = pipeline.process(messages(VALUES), filters)
    parts, same = made(scorer)
    halves = [parts.process(part, same) for part in (messages(VALUES)[:60], messages(VALUES)[60:])]
    together = [item for half in halves for item in published(parts, half)]
    assert sorted(together) == sorted(published(pipeline, whole))


def test_what_is_too_large_for_kafka_is_a_dead_letter(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, filters = made(scorer)
    sizes = [len(packet.value) for packet in pipeline.process(messages(VALUES[:10]), filters).packets]
    monkeypatch.setattr("broker.pipeline._MAX_PACKET_BYTES", max(sizes) - 1)
    pipeline, filters = made(scorer)
    outcome = pipeline.process(messages(VALUES[:10]), filters)
    assert outcome.counts["ztf", "rejected", "too_large"] >= 1
    assert outcome.counts["ztf", "in", ""] == 10
    assert replace(outcome.faults[0], kind="").detail.startswith("PacketTooLarge")
    assert np.all([len(packet.value) < max(sizes) for packet in outcome.packets if "filters" in packet.topic])


def test_an_annotation_from_which_nothing_can_follow_harms_no_other(scorer: Scorer) -> None:
    values = dict(zip(ids(VALUES), VALUES, strict=True))
    kept = {(topic_hash("t"), 0, m.offset): m for m in messages(list(values.values()))}
    pipeline = Poisoned(
        MemoryStore(), scorer, LocalSchemas(), SETTINGS, lambda asked: {at: kept[at] for at in asked}
    )
    filters = compile_set(3, FILTERS, {}, pipeline.columns)
    out = pipeline.process(messages(list(values.values())), filters)
    newest = {
        record["diaObjectId"]: record["diaSourceId"]
        for packet in out.packets
        if packet.topic == "alerts.ztf"
        for record in [opened_packet(packet, pipeline.writer.schemas)]
    }
    said = [
        Message("annotations", 0, at, 1_790_000_000_000, json.dumps(
            {"survey": "ztf", "object": str(name), "kind": "note", "by": "a", "text": "b"}).encode())
        for at, name in enumerate(newest)
    ]  # fmt: skip
    pipeline.bad = [list(newest.values())[2]]
    outcome = pipeline.process(said, filters)
    assert outcome.counts["annotations", "rejected", "internal_error"] == 1
    assert outcome.counts["annotations", "in", ""] == 1
    assert outcome.annotations["judged"] == len(said) - 1
    assert outcome.annotations["rejected"] == 1
    letters = [packet for packet in outcome.packets if packet.topic == "dead-letters"]
    assert [packet.value for packet in letters] == [said[2].value]


def test_what_must_not_be_judged_is_a_dead_letter(scorer: Scorer) -> None:
    pipeline, _ = made(scorer)
    given = [*messages(VALUES[:1]), Message("annotations", 3, 9, 0, b"[")]
    outcome = pipeline.quarantine(given)
    assert [packet.value for packet in outcome.packets] == [item.value for item in given]
    assert outcome.counts["unknown", "rejected", "quarantined"] == 1
    assert outcome.counts["annotations", "rejected", "quarantined"] == 1
    assert "annotations[3] 9" in outcome.faults[1].detail
