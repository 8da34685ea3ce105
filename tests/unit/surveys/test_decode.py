"""Messages to batches: every record ends in exactly one place, and bad ones harm nobody."""

from __future__ import annotations

import io
import json
from collections import Counter
from typing import Any

import fastavro
import numpy as np
import pytest

from broker.batch import AlertBatch
from broker.message import REASONS, Message, Reject
from broker.surveys import catalog
from broker.surveys.avro import LocalSchemas
from broker.surveys.catalog import Decoded, decode
from tests.unit.surveys.samples import (
    changed,
    container,
    elasticc_values,
    few_lsst,
    few_ztf,
    files,
    hand_made,
    header_of,
    long,
    messages,
    mutate,
    read_packet,
    unreadable_values,
    with_type,
    ztf_values,
)


def _decode(values: list[bytes]) -> Decoded:
    return decode(messages(values), LocalSchemas())


def _places(decoded: Decoded) -> Counter[tuple[int, int]]:
    """How often each (message, record) was accounted for."""
    alerts = [
        (int(m), int(i)) for batch in decoded.batches for m, i in zip(batch.message, batch.index, strict=True)
    ]
    return Counter(alerts + [(reject.message, reject.index) for reject in decoded.rejects])


def _only_reject(value: bytes) -> Reject:
    decoded = _decode([value])
    assert decoded.batches == []
    (reject,) = decoded.rejects
    assert reject.reason in REASONS
    assert reject.stage == "surveys"
    return reject


def _equal(one: AlertBatch, other: AlertBatch) -> bool:
    columns = ("dia_source_id", "midpoint_mjd_tai", "psf_flux", "ra", "flags", "object_name")
    same = all(np.array_equal(getattr(one, c), getattr(other, c), equal_nan=c == "psf_flux") for c in columns)
    return same and one.points.points.tobytes() == other.points.points.tobytes()


def test_one_batch_a_survey_in_the_order_of_the_messages() -> None:
    ztf, lsst = few_ztf(), few_lsst()
    mixed = [value for pair in zip(ztf, lsst, strict=False) for value in pair]
    decoded = _decode(mixed)
    assert decoded.rejects == []
    assert [batch.survey for batch in decoded.batches] == ["ztf", "lsst"]
    assert decoded.batches[0].message.tolist() == list(range(0, len(mixed), 2))
    assert decoded.batches[1].message.tolist() == list(range(1, len(mixed), 2))


def test_nothing_in_nothing_out() -> None:
    assert _decode([]) == Decoded([], [])


def test_several_records_in_one_message() -> None:
    value = ztf_values()[0]
    schema, (record,) = header_of(value), read_packet(value)
    records = [{**record, "candid": record["candid"] + k} for k in range(10)]
    decoded = _decode([container(schema, records, "deflate", sync_interval=1)])
    (batch,) = decoded.batches
    assert batch.index.tolist() == list(range(10))
    assert batch.dia_source_id.tolist() == [r["candid"] for r in records]
    assert batch.message.tolist() == [0] * 10


def test_a_bad_alert_in_a_container_is_one_reject_with_its_bytes() -> None:
    value = ztf_values()[0]
    schema, (record,) = header_of(value), read_packet(value)
    bad = {**record, "candidate": {**record["candidate"], "ra": float("nan")}}
    decoded = _decode([container(schema, [record, bad, record])])
    assert decoded.batches[0].index.tolist() == [0, 2]
    (reject,) = decoded.rejects
    assert (reject.message, reject.index, reject.reason) == (0, 1, "invalid_alert")
    assert reject.record is not None
    parsed = fastavro.parse_schema(schema)
    again: Any = fastavro.schemaless_reader(io.BytesIO(reject.record), parsed, None)
    assert again["objectId"] == record["objectId"]


@pytest.mark.parametrize(
    ("path", "new", "text"),
    [
        ("candid", 0, "no id"),
        ("candidate.jd", float("nan"), "no time"),
        ("candidate.jd", 1e300, "later than that of its Kafka record"),
        ("candidate.jd", 0.0, "no time"),
        ("candidate.ra", float("inf"), "right ascension"),
        ("candidate.ra", 360.5, "right ascension"),
        ("candidate.dec", -90.5, "declination"),
        ("objectId", "ZTF18", "object name"),
        ("objectId", "", "object name"),
        ("objectId", "ZTF18aaaaaaaa", "object name"),
    ],
)
def test_an_alert_without_identity_time_or_place_is_invalid(path: str, new: Any, text: str) -> None:
    reject = _only_reject(changed(few_ztf()[0], path, new))
    assert reject.reason == "invalid_alert"
    assert text in reject.detail
    assert reject.record is None


def test_a_value_of_the_wrong_type_harms_only_its_alert() -> None:
    good = few_ztf()
    bad = with_type(good[0], "magpsf", "string", "bright")
    listed = with_type(good[0], "ra", {"type": "array", "items": "double"}, [1.0])
    decoded = _decode([good[0], bad, good[1], listed])
    assert decoded.batches[0].message.tolist() == [0, 2]
    assert _equal(decoded.batches[0], _decode(good[:2]).batches[0])
    assert [(r.message, r.reason) for r in decoded.rejects] == [(1, "invalid_alert"), (3, "invalid_alert")]


def test_numbers_without_end_become_missing_not_warnings() -> None:
    value = changed(few_ztf()[0], "candidate.magpsf", -3.0e38)
    value = changed(value, "candidate.fwhm", float("inf"))
    (batch,) = _decode([value]).batches
    assert np.isnan(batch.psf_flux[0])
    assert np.isnan(batch.packet["fwhm_arcsec"][0])
    assert batch.flags[0] & 16


def test_an_unknown_survey_is_said_by_name() -> None:
    schema = {
        "type": "record",
        "name": "alert",
        "namespace": "other",
        "fields": [{"name": "x", "type": "int"}],
    }
    reject = _only_reject(container(schema, [{"x": 1}]))
    assert reject.reason == "unsupported_schema"
    assert "other.alert" in reject.detail


def test_other_surveys_are_not_taken_for_ours() -> None:
    """TURBO's placeholder packets have ZTF's words, and defaults that their types do not allow."""
    values = [path.read_bytes() for path in files("other_surveys/turbo")]
    decoded = _decode(values)
    assert decoded.batches == []
    assert [reject.reason for reject in decoded.rejects] == ["unsupported_schema"] * len(values)
    assert all("has the required fields of no survey" in reject.detail for reject in decoded.rejects)


def test_a_default_that_its_type_does_not_allow_is_no_matter() -> None:
    field = {"name": "x", "type": "int", "default": None}
    schema = {"type": "record", "name": "odd", "fields": [field]}
    reject = _only_reject(hand_made(json.dumps(schema), [(1, long(7))]))
    assert "has the required fields of no survey" in reject.detail


def test_the_topic_does_not_decide_the_survey() -> None:
    lost = Message("lsst-alerts-v11", 0, 0, 0, few_ztf()[0])
    assert decode([lost], LocalSchemas()).batches[0].survey == "ztf"


@pytest.mark.parametrize(
    ("timestamp_ms", "known_at"), [(1_700_000_000_999, 1_700_000_000), (-1, 0), (2**60, 2**32 - 1)]
)
def test_known_at_is_the_message_timestamp_in_seconds(timestamp_ms: int, known_at: int) -> None:
    (batch,) = decode([Message("t", 0, 0, timestamp_ms, few_ztf()[0])], LocalSchemas()).batches
    assert set(batch.points.points["known_at"].tolist()) == {known_at}


def test_an_unknown_schema_id_is_in_the_reject() -> None:
    reject = _only_reject(b"\x00\x00\x00\x04\x4d" + few_lsst()[0][5:])
    assert (reject.reason, reject.schema_id) == ("unknown_schema", 1101)


def test_our_own_faults_are_not_blamed_on_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = catalog._apply

    def fails_on_many(survey: Any, given: Any, rows: Any) -> AlertBatch:
        if len(rows) > 1:
            raise ValueError("our fault")
        return whole(survey, given, rows)

    monkeypatch.setattr(catalog, "_apply", fails_on_many)
    with pytest.raises(ValueError, match="our fault"):
        _decode(few_ztf()[:2])


def test_every_packet_is_accounted_for_and_only_bad_ones_are_refused() -> None:
    bad = [*unreadable_values(), b"\x00\x00\x00\x04\x4d" + few_lsst()[0][5:]]
    good = [*ztf_values(), *few_lsst(), *elasticc_values()]
    decoded = _decode(good + bad)
    places = _places(decoded)
    assert set(places.values()) == {1}
    assert {number for number, _ in places} == set(range(len(good + bad)))
    assert {reject.message for reject in decoded.rejects} == set(range(len(good), len(good + bad)))
    reasons = Counter(reject.reason for reject in decoded.rejects)
    assert reasons["unknown_schema"] == 1
    if files("ztf/unreadable"):
        assert reasons == {"bad_container": 8, "unsupported_schema": 5, "unknown_schema": 1}


@pytest.mark.parametrize("seed", range(10))
def test_damage_is_contained(seed: int) -> None:
    """200 damaged messages a seed among healthy ones: all accounted for, the healthy ones unchanged."""
    rng = np.random.default_rng(seed)
    healthy, sick = few_ztf()[:2] + few_lsst()[:2], few_ztf() + few_lsst()
    expected = _decode(healthy).batches
    for _ in range(4):
        damaged = [mutate(sick[int(rng.integers(len(sick)))], rng) for _ in range(50)]
        decoded = _decode([*healthy[:2], *damaged, *healthy[2:]])
        places = _places(decoded)
        assert set(places.values()) == {1}
        assert {number for number, _ in places} == set(range(54))
        assert {reject.reason for reject in decoded.rejects} <= set(REASONS)
        ours = {0, 1, 52, 53}
        for batch, want in zip(decoded.batches, expected, strict=True):
            rows = np.isin(batch.message, list(ours))
            assert _equal(batch.take(rows), want)


@pytest.mark.parametrize("make", [few_ztf, few_lsst])
def test_every_truncation_is_a_reject(make: Any) -> None:
    value = make()[0]
    for end in np.linspace(0, len(value) - 1, 150).astype(int):
        _only_reject(value[:end])
