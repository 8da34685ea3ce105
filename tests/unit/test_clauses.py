"""Why a filter passes an alert: each clause's truth, and words for it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from made_archive import rows_of

from broker.clauses import Clause, explain_filter
from broker.errors import FilterError
from broker.filters.compile import compile_filter
from broker.filters.evaluate import evaluate
from broker.filters.functions import FOREST
from broker.lightcurves import empty_light_curves
from broker.table import Column, ColumnSpec, Table, string_column

NUMBERS = {"mag": 19.31, "n_nights": 3.0, "rise_rate_g": math.nan, "gal_b": -20.0, "ra": 10.0, "dec": 5.0}
COLUMNS = [
    *(Column(ColumnSpec(name, "", f"doc of {name}"), np.array([value])) for name, value in NUMBERS.items()),
    Column(ColumnSpec("midpoint_mjd_tai", "", "time"), np.array([60000.0])),
    Column(ColumnSpec("is_dipole", "", "dipole", "bool"), np.array([0.0])),
    Column(ColumnSpec("dia_source_id", "", "id", "int"), np.array([2**60 + 1])),
    string_column(ColumnSpec("band", "", "passband", "string"), ["g"]),
]
TABLE = Table(COLUMNS, 1, empty_light_curves(1))
SPECS = {column.spec.name: column.spec for column in COLUMNS}


def explained(text: str, named: Any = None) -> Clause:
    return explain_filter(text, TABLE, SPECS, named)


@pytest.mark.parametrize(
    ("text", "outcome", "why"),
    [
        ("mag < 19", "false", "mag = 19.31 is not below 19"),
        ("19 <= mag", "true", "19 is at most mag (19.31)"),
        ("n_nights <> 3", "false", "n_nights = 3 is not different from 3"),
        ("abs(gal_b) > 15", "true", "abs(gal_b) = 20 is above 15"),
        ("mag - n_nights > gal_b", "true", "mag - n_nights = 16.31 is above gal_b (-20)"),
        ("band in ('r', 'i')", "false", "band = 'g' is not one of 'r', 'i'"),
        ("n_nights between 2 and 4", "true", "n_nights = 3 is between 2 and 4"),
        ("rise_rate_g > 0.3", "null", "rise_rate_g is not known (doc of rise_rate_g)"),
        ("rise_rate_g is null", "true", "rise_rate_g is not known"),
        ("mag is null", "false", "mag = 19.31 is known"),
        ("is_dipole", "false", "is_dipole is not true"),
        ("mag / (n_nights - 3) > 1", "null", "it has no value here, as a division by zero has none"),
        ("in_cone(10, 5, 2*arcsec)", "true", "in_cone(10, 5, 2 * arcsec) is true"),
        ("dia_source_id = 1152921504606846977", "true",
         "dia_source_id = 1152921504606846977 is equal to 1152921504606846977"),
        ("personal_anomaly('alice') > 0.5", "null", "no forest was named 'alice'"),
    ],
)  # fmt: skip
def test_a_clause_says_why(text: str, outcome: str, why: str) -> None:
    found = explained(text)
    assert (found.outcome, found.why) == (outcome, why)


def test_the_tree_is_the_owner_s_in_words_and_order() -> None:
    found = explained("n_nights >= 2 and not (mag < 19 or RISE_RATE_G > 0.3) and band = 'g'")
    assert found.outcome == "null"
    assert [part.text for part in found.parts] == [
        "n_nights >= 2", "not (mag < 19 or RISE_RATE_G > 0.3)", "band = 'g'",
    ]  # fmt: skip
    either = found.parts[1].parts[0]
    assert [(part.text, part.outcome) for part in either.parts] == [
        ("mag < 19", "false"), ("RISE_RATE_G > 0.3", "null"),
    ]  # fmt: skip
    assert found.why == ""
    assert found.parts[0].columns == {"n_nights": 3.0}
    assert found.to_json()["parts"][1]["parts"][0]["parts"][1]["columns"] == {"rise_rate_g": None}


def test_a_name_s_value_is_shown() -> None:
    class Half:
        reads = ("mag",)

        def __call__(self, memo: Any, /, *columns: Any) -> Any:
            return np.full(1, 0.5)

    found = explained("personal_anomaly('alice') > 0.9", {FOREST: {"alice": Half()}})
    assert found.why == "personal_anomaly('alice') = 0.5 is not above 0.9"


def test_a_column_that_the_row_lacks_is_told() -> None:
    specs = SPECS | {"newer": ColumnSpec("newer", "", "of a later version")}
    found = explain_filter("newer > 1 or mag > 19", TABLE, specs)
    assert found.outcome == "null", "or cannot be worked out: the program refuses such a row too"
    assert "newer" in found.parts[0].why
    assert found.parts[1].outcome == "true"


def test_a_text_is_refused_as_ever() -> None:
    with pytest.raises(FilterError, match="magg"):
        explained("magg < 19")


@pytest.mark.parametrize(
    "text",
    [
        "mag < 20 and n_nights in (1, 3) and not is_dipole",
        "mag < 19 or rise_rate_g > 1 or band <> 'r'",
        "not (rise_rate_g > 1 and mag < 19)",
        "case when mag < 19 then n_nights > 5 else band = 'g' end",
        "coalesce(rise_rate_g, 1) > 0.5 and last_days(30) >= 0",
        "rise_rate_g > 1",
    ],
)
def test_the_whole_is_what_the_program_says(text: str) -> None:
    passed = evaluate([compile_filter(text, SPECS)], TABLE).masks[0, 0]
    assert (explained(text).outcome == "true") == bool(passed)


def test_it_works_on_rows_of_the_archive() -> None:
    table = rows_of(6).table
    specs = {name: column.spec for name, column in table.items()}
    for row in range(6):
        one = table.take(np.array([row]))
        found = explain_filter("mag < 20 or band = 'g'", one, specs)
        assert (found.outcome == "true") == bool(
            evaluate([compile_filter("mag < 20 or band = 'g'", specs)], one).masks[0, 0]
        )
