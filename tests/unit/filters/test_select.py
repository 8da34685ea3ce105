"""What filters select: statements taken apart, lists refused with their place, values where a filter hits."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import fastavro
import numpy as np
import pytest

from broker.client import selected as by_name
from broker.errors import FilterError
from broker.filter import Filter
from broker.filters.functions import CATALOG
from broker.filters.live import FilterSet, compile_set
from broker.filters.parse import MAX_SELECTED, split_statement
from broker.filters.select import CompiledSelect, compile_select, evaluate_select
from broker.filters.store import Wanted, checked
from broker.publish import records
from broker.publish.selected import encode_selected
from broker.table import ColumnSpec, Table

Specs = Mapping[str, ColumnSpec]


@pytest.mark.parametrize(
    ("text", "listed", "condition"),
    [
        ("mag < 19", "", "mag < 19"),
        ("select mag where mag < 19", "mag", "mag < 19"),
        ("SELECT mag, ra AS x\n FROM alerts\tWHERE mag < 19", "mag, ra AS x", "mag < 19"),
        ("select abs(mag) as where_ where band = ' where '", "abs(mag) as where_", "band = ' where '"),
    ],
)
def test_a_statement_is_taken_apart_and_places_stay(text: str, listed: str, condition: str) -> None:
    parts = split_statement(text)
    assert [part.strip() for part in parts] == [listed, condition]
    for part in parts:
        assert all(sign in (" ", text[place]) for place, sign in enumerate(part))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("select mag", "a statement without WHERE at 7"),
        ("select mag from objects where mag < 19", "FROM something at 11; every filter reads alerts"),
        ("select mag from alerts, other where mag < 19", "FROM something at 11"),
        ("select mag where (select 1) > 0 where mag < 3", "unexpected 'select' at 18"),
        ("select mag; drop where mag < 3", "unexpected ';' at 10"),
        ("select mag -- x\n where mag < 3", "comments are not part of the language"),
        ("select mag where", "the filter is empty"),
    ],
)
def test_statements_that_are_no_filter_are_refused(text: str, words: str, specs: Specs) -> None:
    with pytest.raises(FilterError, match=words):
        checked(Wanted(text), specs)


def test_a_list_is_given_once(specs: Specs) -> None:
    apart = checked(Wanted("mag < 19", select=" mag "), specs)
    together = checked(Wanted("select mag where mag < 19"), specs)
    assert apart == together == Wanted("mag < 19", select="mag")
    with pytest.raises(FilterError, match="two select lists"):
        checked(Wanted("select mag where mag < 19", select="mag"), specs)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mag - 3", "an expression without a name at 0; write it as mag - 5 as distance"),
        ("mag, ra as MAG", "name 'MAG' at 11; use 1 to 48 of a-z"),
        ("mag as x, ra as x", "a second 'ra' at 10|a second 'x' at 10"),
        ("mag, MAG", "a second 'mag' at 5"),
        ("mag as " + "a" * 49, "name 'aaa"),
        ("mag as 'x'", "name \"'x'\" at 7"),
        ("null as x", "'null' is always NULL at 0"),
        ("mag as x, psf_flx as y", "unknown column 'psf_flx' at 10; did you mean 'psf_flux'"),
        ("mag as x, band + 1 as y", "expected a number, found a string: 'band' at 10"),
        ("mag,", "nothing between commas at 4"),
        ("mag,, ra", "nothing before ',' at 4"),
        ("", "the filter is empty"),
        ("mag as x, (select 1) as y", "unexpected 'select' at 11"),
        ("read_csv('/etc/passwd') as x", "unknown function 'read_csv' at 0"),
        ("mag.__class__ as x", "unknown column 'mag.__class__' at 0"),
        ("mag like 'a' as x", "unexpected 'like' at 4"),
        (", ".join(f"mag + {k} as x{k}" for k in range(MAX_SELECTED + 1)), "more than 32 expressions"),
        ("(" * 30 + "mag" + ")" * 30 + " as x", "nested deeper"),
    ],
)
def test_lists_are_refused_with_the_place_of_the_fault(text: str, words: str, specs: Specs) -> None:
    with pytest.raises(FilterError, match=words):
        compile_select(text, specs)


def chosen(table: Table, text: str, mask: list[bool], specs: Specs) -> dict[str, list[Any]]:
    found = evaluate_select([None, compile_select(text, specs)], np.array([mask, mask]), table)
    assert found.failures == {}
    return dict(found.values[1])


def test_values_are_those_of_the_rows_that_hit(table: Table, specs: Specs) -> None:
    text = "mag, mag - 17 as above, band, dia_object_id, is_dipole as d, mag < 19 as bright, 5 as five"
    found = chosen(table, text, [True, False, True, False, False, True], specs)
    assert found == {
        "mag": [17.0, 19.0, None],
        "above": [0.0, 2.0, None],
        "band": ["g", "g", None],
        "dia_object_id": [2**53, 2**62 + 1, None],
        "d": [True, True, None],
        "bright": [True, False, None],
        "five": [5, 5, 5],
    }


def test_nothing_is_worked_out_where_nothing_hits(table: Table, specs: Specs) -> None:
    assert (
        evaluate_select([compile_select("mag", specs)], np.zeros((1, 6), dtype=np.bool_), table).values == {}
    )


def test_an_expression_that_fails_is_null_and_named_and_the_others_go_on(table: Table, specs: Specs) -> None:
    gone = specs | {"gone": ColumnSpec("gone", "", "a column that a model took with it")}
    select = compile_select("mag, gone + 1 as lost", gone)
    found = evaluate_select([select], np.array([[True] + [False] * 5]), table)
    assert dict(found.values[0]) == {"mag": [17.0], "lost": [None]}
    assert found.failures == {
        (0, "lost"): "column 'gone' is not in this batch; was a model or catalogue removed?"
    }


def test_standard_avro_reads_what_is_selected() -> None:
    values = [1.5, None, True, "é", -(2**60), 0, False, ""]
    names = [f"n{k}" for k in range(len(values))]
    (datum,) = encode_selected([(name, [value]) for name, value in zip(names, values, strict=True)])
    array = records.filter_fields()[0]["type"]["fields"][-1]["type"]
    found: Any = fastavro.schemaless_reader(io.BytesIO(datum), fastavro.parse_schema(array), None)
    assert by_name({"filter": {"selected": found}}) == dict(zip(names, values, strict=True))
    assert found[4] == {"name": "n4", "number": None, "integer": -(2**60), "text": None, "truth": None}


def test_a_list_is_compiled_once_for_all_epochs(specs: Specs) -> None:
    rules = [Filter("jo", name, 1, "mag < 19", select="mag - 1 as x") for name in ("one", "two")]
    wrong = Filter("jo", "wrong", 1, "mag < 19", select="psf_flx")
    first = compile_set(1, [*rules, wrong], {}, specs)
    assert [name for name, _ in first.refused] == ["jo.wrong"]
    second = compile_set(2, [rules[1], Filter("jo", "plain", 1, "mag < 19")], {}, specs, before=first)
    assert _lists(second)[0] is not None
    assert _lists(second)[1] is None
    assert second.listed["mag - 1 as x"] is first.listed["mag - 1 as x"]


def _lists(filters: FilterSet) -> tuple[CompiledSelect | None, ...]:
    return filters.selects


def test_a_match_of_a_catalogue_can_be_selected_before_its_columns_are_known(specs: Specs) -> None:
    text = "near('desi', 5*arcsec).z as z, near('desi', 5 * arcsec).spectype as kind"
    found = compile_select(text, specs)
    assert found.names == ("z", "kind")
    members = {
        CATALOG: {"desi": {"z": ColumnSpec("z", "", ""), "spectype": ColumnSpec("k", "", "", "string")}}
    }
    assert compile_select(text, specs, members).names == found.names
    with pytest.raises(FilterError, match="zz"):
        compile_select("near('desi', 5*arcsec).zz as z", specs, members)
