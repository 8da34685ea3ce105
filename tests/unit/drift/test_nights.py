"""Counting by night, and what a reader makes of what several workers have written."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from broker.drift import nights
from broker.drift.look import HIGH_NULLS, HIGH_PSI, gauges, look, rows, steady
from broker.drift.nights import LEAST_ALERTS, NightCounts, every_survey, read_night
from broker.late_writes import Fields
from tests.damage import damaged

NAMES = ("mag", "color_gr")


class Hashes:
    """What Redis keeps, in a dictionary."""

    def __init__(self) -> None:
        self.hashes: dict[str, dict[bytes, bytes]] = {}

    def write(self, fields: Fields) -> None:
        for (key, name), value in fields.items():
            self.hashes.setdefault(key, {})[name.encode()] = value

    def hkeys(self, key: str) -> list[bytes]:
        return list(self.hgetall(key))

    def hgetall(self, key: str) -> dict[bytes, bytes]:
        return self.hashes.get(key, {})


def alerts(rng: np.random.Generator, count: int, mag: float = 19.0, nulls: float = 0.2) -> Any:
    values = np.column_stack([rng.normal(mag, 1.0, count), rng.normal(0.2, 0.3, count)])
    values[rng.random(count) < nulls, 1] = np.nan
    return values


def filled(store: Hashes, *samples: tuple[float, Any], survey: str = "ztf", group: str = "g") -> None:
    worker = NightCounts(group)
    for mjd, values in samples:
        worker.add(survey, np.full(len(values), mjd), NAMES, values)
    store.write(worker.changed())


def test_workers_add_up_and_writing_again_changes_nothing() -> None:
    rng, store = np.random.default_rng(1), Hashes()
    first, second = alerts(rng, 300), alerts(rng, 200)
    worker = NightCounts("g")
    worker.add("ztf", np.full(300, 61000.2), NAMES, first)
    fields = worker.changed()
    store.write(fields)
    store.write(fields)
    assert worker.changed() == {}
    filled(store, (61000.3, second))
    worker.add("ztf", np.array([61000.7, 61000.8]), NAMES, alerts(rng, 2))  # noon lies between the two
    store.write(worker.changed())
    found = read_night(store, "g", "ztf", 61000)
    assert {name: counts.sum() for name, counts in found.items()} == {"mag": 501, "color_gr": 501}
    assert read_night(store, "g", "ztf", 61001)["mag"].sum() == 1
    assert read_night(store, "other", "ztf", 61000) == {}


def test_a_model_with_other_inputs_counts_beside(caplog: pytest.LogCaptureFixture) -> None:
    rng, store = np.random.default_rng(2), Hashes()
    filled(store, (61000.2, alerts(rng, 100)))
    worker = NightCounts("g")
    worker.add("ztf", np.full(50, 61000.2), ("mag",), alerts(rng, 50)[:, :1])
    store.write(worker.changed())
    store.hashes["drift:g:ztf:61000"][b"damaged"] = b"damaged"
    found = read_night(store, "g", "ztf", 61000)
    assert (found["mag"].sum(), found["color_gr"].sum()) == (150, 100)
    assert "damaged" in caplog.text


def test_a_night_let_go_of_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nights, "_TABLES", 2)
    rng, store, worker = np.random.default_rng(3), Hashes(), NightCounts("g")
    for mjd in (61000.2, 61001.2, 61002.2, 61000.2, 61003.2):
        worker.add("ztf", np.full(10, mjd), NAMES, alerts(rng, 10))
        store.write(worker.changed())
    counts = [read_night(store, "g", "ztf", night)["mag"].sum() for night in (61000, 61001, 61002, 61003)]
    assert counts == [20, 10, 10, 10]


def test_tonight_is_the_newest_night_that_has_enough_and_the_week_before_is_its_reference() -> None:
    rng, store = np.random.default_rng(4), Hashes()
    week = [(61000.2 + day, alerts(rng, 600)) for day in range(7)]
    filled(store, (60999.2, alerts(rng, 9000, mag=15.0)), *week, (61007.2, alerts(rng, LEAST_ALERTS)))
    filled(store, (61008.2, alerts(rng, 20)))
    filled(store, (61000.2, alerts(rng, 30)), survey="lsst")
    (found,) = every_survey(store, "g")
    assert (found.survey, found.night, found.alerts, found.alerts_before) == ("ztf", 61007, 500, 4200)
    shown = gauges([found])
    assert {item.column for item in shown} == set(NAMES)
    assert all(item.psi < HIGH_PSI and item.more_nulls < HIGH_NULLS for item in shown)


@pytest.mark.parametrize(
    ("mag", "nulls", "high", "words"),
    [
        (18.0, 0.2, "mag", "tonight's values"),
        (19.0, 0.7, "color_gr", "missing more often"),
        (19.0, 0.2, "", ""),
    ],
)
def test_what_moved_is_named_first_with_what_to_do(mag: float, nulls: float, high: str, words: str) -> None:
    rng, store = np.random.default_rng(5), Hashes()
    week = [(61000.2 + day, alerts(rng, 600)) for day in range(3)]
    filled(store, *week, (61003.2, alerts(rng, 600, mag, nulls)))
    (found,) = every_survey(store, "g")
    shown = rows(look(found, "made:1", {}))
    assert [row["column"] for row in shown if row["high"]] == ([high] if high else [])
    assert words in shown[0]["advice"]
    assert all(row["psi_training"] is None and not row["high_training"] for row in shown)


def test_a_survey_that_has_just_begun_has_a_night_and_no_reference() -> None:
    rng, store = np.random.default_rng(6), Hashes()
    filled(store, (61000.2, alerts(rng, 600)), (60999.2, alerts(rng, LEAST_ALERTS - 1)))
    (found,) = every_survey(store, "g")
    assert gauges([found]) == []
    one = look(found, "made:1", {"mag": found.now["mag"]})
    assert (one.to_json()["has_nights"], one.to_json()["has_training"]) == (False, True)
    assert [(row["column"], row["psi_training"]) for row in rows(one)] == [("mag", 0.0)]


def test_columns_that_count_days_are_not_compared_with_the_week_before() -> None:
    empty = np.zeros(1, dtype=np.int64)
    names = ("age_days", "days_since_peak_g", "fit_days_since_peak", "width_days", "mag")
    assert list(steady(dict.fromkeys(names, empty))) == ["width_days", "mag"]


@pytest.mark.parametrize("seed", range(5))
def test_damaged_counts_are_left_out_whatever_they_are(seed: int) -> None:
    rng, store = random.Random(seed), Hashes()
    many = alerts(np.random.default_rng(seed), LEAST_ALERTS)
    filled(store, *[(mjd + 0.2, many) for mjd in range(61000, 61030)])
    for fields in store.hashes.values():
        for name in list(fields):
            if rng.random() < 0.5:
                fields[damaged(name, rng)] = damaged(fields.pop(name), rng)
    assert all(item.alerts >= LEAST_ALERTS for item in every_survey(store, "g"))
