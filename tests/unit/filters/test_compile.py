"""Names, and one normal form for what means the same."""

from __future__ import annotations

import pytest

from broker.errors import FilterError
from broker.filters import compile_filter
from broker.table import ColumnSpec

Specs = dict[str, ColumnSpec]


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("19>MAG", "mag < 19"),
        ("not mag < 19", "mag >= 19"),
        ("NOT (mag < 19 AND band = 'g')", "band <> 'g' or mag >= 19"),
        ("mag < 19 and (band = 'g' and mag < 19.0)", "band = 'g' and mag < 19"),
        ("mag < 2*3 + 1", "mag < 7"),
        ("mag < 1/0", "mag < null"),
        ("mag - (ra - dec) > 0", "mag - (ra - dec) > 0"),
        ("(mag - ra) - dec > 0", "mag - ra - dec > 0"),
        ("- (mag + 1) < -1", "- (mag + 1) < -1"),
        ("band in ('r', 'g', 'r')", "band in ('g', 'r')"),
        ("band in ('g')", "band = 'g'"),
        ("not mag is null", "not mag is null"),
        ("mag is not null", "not mag is null"),
        ("not not is_dipole", "is_dipole"),
        ("survey = 'it''s'", "survey = 'it''s'"),
        ("in_cone(187.7, 12.39, 30 * arcmin)", "in_cone(187.7, 12.39, 0.5)"),
        ("mag between 1 and 2 or is_dipole and mag > 3", "is_dipole and mag > 3 or mag between 1 and 2"),
        ("case when is_dipole then 1 end = 1", "case when is_dipole then 1 else null end = 1"),
        ("mag != -5", "mag <> -5"),
    ],
)
def test_normal_form(text: str, normalised: str, specs: Specs) -> None:
    assert compile_filter(text, specs).normalised == normalised
    assert compile_filter(normalised, specs).normalised == normalised


def test_precedence_is_that_of_sql(specs: Specs) -> None:
    for loose, strict in [
        ("is_dipole or mag < 1 and mag > 0", "is_dipole or (mag < 1 and mag > 0)"),
        ("not mag = 1 or is_dipole", "(not (mag = 1)) or is_dipole"),
        ("mag + ra * 2 % 3 > 1", "(mag + ((ra * 2) % 3)) > 1"),
        ("mag between 1 and 2 and is_dipole", "(mag between 1 and 2) and is_dipole"),
        ("mag between 1 + 1 and 2 * 2", "mag between (1 + 1) and (2 * 2)"),
        ("not mag is null", "not (mag is null)"),
        ("- mag + 1 > 0", "((- mag) + 1) > 0"),
        ("not is_dipole is true", "not (is_dipole is true)"),
        ("mag - 1 in (1, 2)", "(mag - 1) in (1, 2)"),
        ("mag not in (1, 2)", "not (mag in (1, 2))"),
    ]:
        assert compile_filter(loose, specs).normalised == compile_filter(strict, specs).normalised


def test_columns_are_those_named_and_those_that_functions_read(specs: Specs) -> None:
    compiled = compile_filter("Band = 'g' and in_cone(1, 2, 3)", specs)
    assert compiled.columns == {"band", "ra", "dec"}
    assert compile_filter("true", specs).columns == frozenset()


def test_exact_name_wins_and_ambiguous_case_is_refused() -> None:
    specs = {name: ColumnSpec(name, "", "") for name in ("Mag", "mag", "ra")}
    assert compile_filter("mag > 1", specs).columns == {"mag"}
    assert compile_filter("RA > 1", specs).columns == {"ra"}
    with pytest.raises(FilterError, match="unknown column 'MAG' at 0"):
        compile_filter("MAG > 1", specs)


def test_a_function_needs_the_columns_it_reads() -> None:
    with pytest.raises(FilterError, match="needs the column 'dec'"):
        compile_filter("in_cone(1, 2, 3)", {"ra": ColumnSpec("ra", "deg", "")})


def test_nesting_cannot_blow_up_the_normal_form(specs: Specs) -> None:
    text = "mag"
    for level in range(22):
        text = f"nullif({text}, {level})" if level % 2 else f"coalesce({text}, ra)"
    assert len(compile_filter(f"{text} between 1 and 2", specs).normalised) < 500
