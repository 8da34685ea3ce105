"""The broker's own filters fit the table's columns and let through what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from broker.filters import compile_filter, evaluate
from broker.filters.builtin import BUILTIN_FILTERS
from tests.unit.filters.rows import SPECS, table_of

NAMES = [item.name for item in BUILTIN_FILTERS]
LIMITS = {"last_limit_mag", "last_limit_age_days", "limiting_mag"}

SUPERNOVA = {
    "prob_SNIa": 0.7, "n_nights": 3, "n_detections": 5, "is_negative": 0, "reliability": 0.99, "anomaly": 0.4,
    "mag": 18.0, "age_days": 5.0, "frac_negative": 0.0, "rise_rate_g": 0.4, "rise_rate_g_err": 0.02,
    "psf_flux": 1e5, "psf_flux_err": 1e3,
}  # fmt: skip


def hits(**values: Any) -> set[str]:
    """Names of the built-in filters that pass a row."""
    compiled = [compile_filter(item.where, SPECS) for item in BUILTIN_FILTERS]
    evaluation = evaluate(compiled, table_of([values]))
    assert evaluation.failures == {}
    return {name for name, passed in zip(NAMES, evaluation.masks[:, 0], strict=True) if passed}


def test_the_names_that_users_listen_to_stay() -> None:
    first = ["probable-supernovae", "anomalies", "fast-risers"]
    assert {*first, "solar-system-objects", "bright-new-transients", "likely-bogus"} <= set(NAMES)


def test_each_has_a_name_of_its_own_and_says_what_null_does() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for item in BUILTIN_FILTERS:
        assert item.owner == "broker"
        assert "NULL" in item.description


def test_a_young_bright_supernova() -> None:
    young = {"probable-supernovae", "fast-risers", "bright-new-transients"}
    assert hits(**SUPERNOVA) == young
    assert hits(**SUPERNOVA, star_score=0.99) == {"fast-risers"}
    assert hits(**SUPERNOVA | {"reliability": 0.1}) == {"likely-bogus"}
    assert hits(**SUPERNOVA | {"anomaly": 0.8}) == young | {"anomalies"}


def test_a_moving_object_is_nothing_else() -> None:
    moving = {"solar_system.associated": 1.0}
    assert hits(**SUPERNOVA, **moving) == {"solar-system-objects"}
    assert hits(**SUPERNOVA | {"reliability": 0.1}, **moving) == {"solar-system-objects"}


@pytest.mark.parametrize(
    "column", ["last_limit_age_days", "star_score", "reliability", "solar_system.associated"]
)
def test_what_a_survey_does_not_have_keeps_nothing_out(column: str) -> None:
    known = {
        "last_limit_age_days": 3.0,
        "star_score": 0.1,
        "reliability": 0.9,
        "solar_system.associated": 0.0,
    }
    assert hits(**SUPERNOVA | known) == hits(**SUPERNOVA | known | {column: np.nan})


def test_an_alert_of_which_nothing_is_known_passes_nothing() -> None:
    assert hits() == set()


def test_no_filter_requires_a_limit() -> None:
    for item in BUILTIN_FILTERS:
        for column in LIMITS & compile_filter(item.where, SPECS).columns:
            assert f"{column} is null" in item.where
