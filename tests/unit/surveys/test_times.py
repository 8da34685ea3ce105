"""A time that cannot be: refused in an alert, left out of a history, by the clock of the Kafka record."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from broker.astro.times import mjd_tai_to_unix_s, unix_s_to_mjd_tai
from broker.message import Message
from broker.simulate import simulate_lsst
from broker.surveys.avro import LocalSchemas
from broker.surveys.catalog import Decoded, decode
from tests.unit.surveys.samples import changed, elasticc_values, few_ztf, made, read_packet

DAY_MS = 86_400_000


def _decode(value: bytes, timestamp_ms: int) -> Decoded:
    return decode([Message("t", 0, 0, timestamp_ms, value)], LocalSchemas())


def _times(decoded: Decoded) -> Any:
    return [batch.midpoint_mjd_tai.tolist() for batch in decoded.batches]


def _values() -> list[bytes]:
    return [few_ztf()[0], next(iter(simulate_lsst(1, seed=5))).value, elasticc_values()[0], _winter()]


def _winter() -> bytes:
    point = {"jd": 2460381.03, "magpsf": 14.5, "sigmapsf": 0.1, "isdiffpos": True, "candid": 1, "fid": 1}
    return made("winter", objectid="WNTR24awati", candid=1, candidate={**point, "exptime": 120.0})


@pytest.mark.parametrize("number", range(4))
def test_an_alert_a_day_later_than_its_record_is_refused(number: int) -> None:
    value = _values()[number]
    (batch,) = _decode(value, 0).batches
    at_ms = int(mjd_tai_to_unix_s(batch.midpoint_mjd_tai.max()) * 1000)
    assert len(_decode(value, at_ms).rejects) == 0
    assert len(_decode(value, at_ms - DAY_MS + 60_000).rejects) == 0
    assert len(_decode(value, at_ms + 10_000 * DAY_MS).rejects) == 0, "an old alert, replayed"
    late = _decode(value, at_ms - DAY_MS - 60_000)
    assert len(late.rejects) >= 1
    assert late.rejects[0].reason == "invalid_alert"
    assert "later than that of its Kafka record" in late.rejects[0].detail


@pytest.mark.parametrize("timestamp_ms", [0, -1, 1, 1_700_000_000, -(2**63)])
def test_a_record_without_a_timestamp_is_compared_with_now(timestamp_ms: int) -> None:
    now = float(unix_s_to_mjd_tai(time.time()))
    good, bad = (changed(few_ztf()[0], "candidate.jd", now + days + 2400000.5) for days in (0.5, 1.5))
    assert len(_decode(good, timestamp_ms).batches) == 1
    assert [letter.reason for letter in _decode(bad, timestamp_ms).rejects] == ["invalid_alert"]


@pytest.mark.parametrize("jd", [np.nan, np.inf, -np.inf, 0.0, -1.0, 1e300, -1e300, 1e9, 5e6, 2**63])
def test_what_is_no_date_is_refused(jd: float) -> None:
    decoded = _decode(changed(few_ztf()[0], "candidate.jd", float(jd)), 0)
    assert [letter.reason for letter in decoded.rejects] == ["invalid_alert"]
    assert not decoded.batches


def test_later_points_of_a_history_are_left_out_and_counted() -> None:
    value = few_ztf()[0]
    (record,) = read_packet(value)
    assert record["prv_candidates"]
    (whole,) = _decode(value, 0).batches
    history = [dict(record["prv_candidates"][0]) for _ in range(3)]
    for days, point in zip((0.5, 3.0, 4000.0), history, strict=True):
        point["jd"] = record["candidate"]["jd"] + days
    value = changed(value, "prv_candidates", [*record["prv_candidates"], *history])
    at_ms = int(mjd_tai_to_unix_s(whole.midpoint_mjd_tai[0]) * 1000)
    decoded = _decode(value, at_ms)
    (batch,) = decoded.batches
    assert decoded.future_points == 2
    assert len(batch.points.points) == len(whole.points.points) + 1
    assert np.array_equal(batch.points.starts, [0, len(batch.points.points)])


def test_one_late_alert_harms_no_neighbour() -> None:
    good = few_ztf()[0]
    late = changed(good, "candidate.jd", 2500000.5)
    values = [Message("t", 0, n, 0, v) for n, v in enumerate((good, late, good))]
    decoded = decode(values, LocalSchemas())
    assert [letter.message for letter in decoded.rejects] == [1]
    assert decoded.batches[0].message.tolist() == [0, 2]
