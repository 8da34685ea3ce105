"""Three-valued logic on columns, exact ids, sharing and isolation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from broker.filters import compile_filter, evaluate
from broker.filters.compile import CompiledFilter
from broker.filters.functions import FUNCTION_BY_NAME
from broker.table import Column, ColumnSpec, Table

Specs = Mapping[str, ColumnSpec]
TRUTHS = {"true": 1.0, "false": 0.0, "null": np.nan}
NOT = {"true": "false", "false": "true", "null": "null"}


def rows(text: str, table: Table) -> list[int]:
    """Rows where a filter passes."""
    specs = {name: column.spec for name, column in table.items()}
    evaluation = evaluate([compile_filter(text, specs)], table)
    assert evaluation.failures == {}
    return np.flatnonzero(evaluation.masks[0]).tolist()


def verdict(text: str, table: Table) -> list[str]:
    """true, false or null on every row, found out by asking three filters."""
    true, false = rows(text, table), rows(f"not ({text})", table)
    assert sorted([*true, *false, *rows(f"({text}) is null", table)]) == list(range(table.length))
    return ["true" if row in true else "false" if row in false else "null" for row in range(table.length)]


def logic_and(a: str, b: str) -> str:
    return "false" if "false" in (a, b) else "null" if "null" in (a, b) else "true"


def test_truth_tables_of_columns_and_of_constants() -> None:
    pairs = [(a, b) for a in TRUTHS for b in TRUTHS]
    columns = [
        Column(ColumnSpec("p", "", "", "bool"), np.array([TRUTHS[a] for a, _ in pairs])),
        Column(ColumnSpec("q", "", "", "bool"), np.array([TRUTHS[b] for _, b in pairs])),
    ]
    table = Table(columns, 9)
    expected = {
        "p and q": [logic_and(a, b) for a, b in pairs],
        "p or q": [NOT[logic_and(NOT[a], NOT[b])] for a, b in pairs],
        "not p": [NOT[a] for a, _ in pairs],
        "p = q": ["null" if "null" in pair else str(pair[0] == pair[1]).lower() for pair in pairs],
        "p <> q": ["null" if "null" in pair else str(pair[0] != pair[1]).lower() for pair in pairs],
        "p is null": [str(a == "null").lower() for a, _ in pairs],
        "p is true": [str(a == "true").lower() for a, _ in pairs],
        "p is not false": [str(a != "false").lower() for a, _ in pairs],
        "coalesce(p, q)": [b if a == "null" else a for a, b in pairs],
        "case when p then q end": [b if a == "true" else "null" for a, b in pairs],
        "p in (q)": ["null" if "null" in pair else str(pair[0] == pair[1]).lower() for pair in pairs],
    }
    for text, answer in expected.items():
        assert verdict(text, table) == answer, text
    for row, (a, b) in enumerate(pairs):
        for text in ("p and q", "p or q", "not p", "p = q"):
            constant = text.replace("p", a, 1).replace("q", b)
            assert verdict(constant, table) == [expected[text][row]] * 9, constant


@pytest.mark.parametrize(
    ("text", "passing"),
    [
        ("mag < 19", [0, 1]),
        ("not mag < 19", [2, 3, 4]),
        ("mag <> 19", [0, 1, 3, 4]),
        ("mag is null", [5]),
        ("mag = null", []),
        ("mag <> null", []),
        ("null", []),
        ("null = null", []),
        ("null between null and null or null in (null)", []),
        ("coalesce(coalesce(null, null), is_dipole)", [0, 2]),
        ("case when is_dipole then nullif(null, null) else mag > 18 end", [3, 4]),
        ("case when mag < 18 then case when is_dipole then null end else is_dipole end", [2]),
        ("coalesce(case when is_dipole then null end, band) = 'g'", [0, 2]),
        ("coalesce(null, null) is null and abs(coalesce(null, null)) is null", [0, 1, 2, 3, 4, 5]),
        ("true", [0, 1, 2, 3, 4, 5]),
        ("mag in (17, 21, null)", [0, 4]),
        ("mag not in (17, 21, null)", []),
        ("mag not in (17, 21)", [1, 2, 3]),
        ("mag between 18 and 20", [1, 2, 3]),
        ("mag not between 18 and 20", [0, 4]),
        ("mag between null and 18", []),
        ("not mag between null and 18", [2, 3, 4]),
        ("1 / psf_flux > 0", [0, 3, 4]),
        ("(1 / psf_flux) is null", [2, 5]),
        ("psf_flux % 0 is null", [0, 1, 2, 3, 4, 5]),
        ("log10(psf_flux) is null", [1, 2, 5]),
        ("exp(psf_flux) is null", [3, 5]),
        ("power(mag, 0) = 1", [0, 1, 2, 3, 4]),
        ("1e308 * 10 > 1", []),
        ("band = 'g'", [0, 2]),
        ("band <> 'g'", [1, 3, 4]),
        ("band in ('g', 'r')", [0, 1, 2]),
        ("band not in ('g', 'q')", [1, 3, 4]),
        ("band < 'u'", [0, 1, 2]),
        ("band between 'g' and 'r'", [0, 1, 2]),
        ("band = survey", [2]),
        ("band <> survey", [0, 1, 3, 4]),
        ("survey = 'it''s'", [4]),
        ("coalesce(band, survey, 'x') = 'x'", [5]),
        ("nullif(band, 'g') is null", [0, 2, 5]),
        ("solar_system.associated", [1, 4]),
        ("not solar_system.associated", [0, 3]),
        ("solar_system.associated is not true", [0, 2, 3, 5]),
        ("is_dipole = true", [0, 2]),
        ("case when mag < 18 then 'a' when mag < 20 then band end = 'g'", [2]),
        ("case when mag < 19 then 1 else psf_flux end = 1", [0, 1, 4]),
        ("greatest(prob_SNIa, 0.5) = 0.5", [1, 2, 4, 5]),
        ("least(prob_SNIa, 0.5, mag) = 0.5", [0, 2, 3, 5]),
        ("in_cone(187.7, 12.39, 1*arcsec)", [1]),
        ("in_cone(187.7, 12.39, 0.1)", [1, 2]),
        ("color('g', 'r') > 0.2", [0, 3]),
        ("color('r', 'g') > 0.2", [1]),
        ("color('r', 'r') = 0", [0, 1, 2, 3]),
        ("color('g', 'r') is null", [4, 5]),
        ("in_cone(0, 0, 7*arcmin)", [0, 3]),
        ("not in_cone(0, 0, 1*degree)", [1, 2, 4, 5]),
        ("in_cone(0, mag * 10, 1) is null", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_rows_that_pass(text: str, passing: list[int], table: Table) -> None:
    assert rows(text, table) == passing


@pytest.mark.parametrize(
    ("text", "passing"),
    [
        (f"dia_object_id = {2**53}", [0]),
        (f"dia_object_id = {2**53 + 1}", [1]),
        (f"dia_object_id in ({2**53 + 1}, {2**62 + 1})", [1, 2]),
        (f"dia_object_id in ({2**62})", []),
        (f"dia_object_id not in ({2**62})", [0, 1, 2, 3, 4]),
        (f"dia_object_id > {2**62}", [2]),
        (f"dia_object_id between {2**53 + 1} and {2**62}", [1]),
        ("dia_object_id = ss_object_id", [0, 3]),
        ("ss_object_id is null", [2, 5]),
        (f"coalesce(ss_object_id, dia_object_id) = {2**62 + 1}", [2]),
        (f"case when is_dipole then dia_object_id else ss_object_id end = {2**62 + 1}", [2]),
        (f"- dia_object_id = -{2**62 + 1}", [2]),
        ("dia_object_id % 10 = 3", [1]),
        ("dia_object_id % 0 is null", [0, 1, 2, 3, 4, 5]),
        ("dia_object_id = 0", []),
        ("dia_object_id < 7.5", [3]),
    ],
)
def test_ids_beyond_2_to_53_are_exact(text: str, passing: list[int], table: Table) -> None:
    assert rows(text, table) == passing


def test_an_infinite_value_is_null(specs: Specs) -> None:
    table = Table([Column(specs["mag"], np.array([np.inf, -np.inf, 1.0]))], 3)
    assert rows("mag > 0", table) == [2]
    assert rows("mag is null", table) == [0, 1]


def test_shared_parts_are_worked_out_once(
    table: Table, specs: Specs, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counting(values: np.ndarray) -> np.ndarray:
        calls.append(len(values))
        return np.log10(values)

    log10 = FUNCTION_BY_NAME["log10"]
    monkeypatch.setitem(FUNCTION_BY_NAME, "log10", replace(log10, implementation=counting))
    texts = [f"mag < {k} and LOG10( psf_flux ) > 1" for k in range(50)]
    texts += [f"not (log10(psf_flux) <= 1) or mag > {k}" for k in range(50)]
    evaluate([compile_filter(text, specs) for text in texts], table)
    assert calls == [6]


def test_a_failing_filter_harms_no_other(table: Table, specs: Specs, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(values: np.ndarray) -> np.ndarray:
        raise MemoryError("no room")

    exp = FUNCTION_BY_NAME["exp"]
    monkeypatch.setitem(FUNCTION_BY_NAME, "exp", replace(exp, implementation=exhausted))
    lost = {**specs, "prob_Gone": ColumnSpec("prob_Gone", "", "")}
    texts = ["mag < 19", "mag < 19 or exp(mag) > 1", "prob_Gone > 0.5", "mag < 19"]
    evaluation = evaluate([compile_filter(text, lost) for text in texts], table)
    assert evaluation.masks.sum(axis=1).tolist() == [2, 0, 0, 2]
    assert evaluation.failures == {
        1: "MemoryError: no room",
        2: "column 'prob_Gone' is not in this batch; was a model or catalogue removed?",
    }


def test_empty_batches_and_no_filters(table: Table, specs: Specs) -> None:
    none: list[CompiledFilter] = []
    assert evaluate(none, table).masks.shape == (0, 6)
    empty = Table(
        [Column(specs["mag"], np.array([])), Column(specs["band"], np.array([], dtype=np.int32))], 0
    )
    filters = [compile_filter("mag < 19 and band in ('g', 'r')", specs), compile_filter("true", specs)]
    evaluation = evaluate(filters, empty)
    assert evaluation.masks.shape == (2, 0)
    assert evaluation.failures == {}
