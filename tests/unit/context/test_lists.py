"""What names of watchlists and regions stand for at an epoch, and how filters use them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from broker import control, list_store
from broker.clauses import explain_filter
from broker.context.lists import Failed, ListSet, list_set, named_at, without_loaded
from broker.context.stored import ListKind, StoredList, blob_records, content_of, list_record
from broker.control import ControlState
from broker.errors import FilterError, ListError
from broker.filter import Filter
from broker.filters.compile import bind, compile_filter, require_names
from broker.filters.evaluate import evaluate
from broker.filters.expression import Evaluator
from broker.filters.live import compile_set
from broker.filters.select import bind_select, compile_select, evaluate_select
from broker.filters.tree import Call
from broker.list_store import Contents, region, watchlist
from broker.table import Column, ColumnSpec, Table

SPECS = {name: ColumnSpec(name, "", "") for name in ("ra", "dec", "mag")}
TARGETS = watchlist("name,ra,dec\nfirst,10,0\nsecond,20,0\n")
OTHERS = watchlist("name,ra,dec\nthird,30,0\n")
NORTH = region(b"0/0-3")
ARCSEC = 1 / 3600
Record = tuple[bytes, bytes]


def head(contents: Contents, name: str, revision: int = 1, **changed: Any) -> StoredList:
    sha256, parts = blob_records(contents.packed)
    item = StoredList(
        contents.kind, name, revision, "alice", contents.form, sha256, len(contents.packed), len(parts),
        contents.rows, radius_arcsec=contents.radius_arcsec,
    )  # fmt: skip
    return replace(item, **changed)


def records(contents: Contents, name: str, revision: int = 1) -> list[Record]:
    return [*blob_records(contents.packed)[1], list_record(head(contents, name, revision))]


def removal(kind: ListKind, name: str, revision: int) -> list[Record]:
    item = head(TARGETS, name, revision)
    return [list_record(replace(item, kind=kind, state="removed", sha256="", parts=0))]


def after(state: ControlState, *more: Record) -> ControlState:
    for record in more:
        state = control.apply(state, state.epoch + 1, *record)
    assert state.unreadable == ()
    return state


def table(*ra: float, dec: float = 0.0) -> Table:
    columns = {"ra": np.array(ra), "dec": np.full(len(ra), dec), "mag": np.arange(float(len(ra)))}
    return Table([Column(SPECS[name], values) for name, values in columns.items()], len(ra))


def values(text: str, named: Mapping[str, Mapping[str, Any]], rows: Table) -> list[bool | None]:
    """What a condition is worth on every row."""
    forms = [bind(compile_filter(it, SPECS), named) for it in (text, f"({text}) is null")]
    found = evaluate(forms, rows)
    assert found.failures == {}
    return [None if null else bool(true) for true, null in found.masks.T]


def test_functions_of_lists_follow_the_state() -> None:
    state = after(ControlState(), *records(TARGETS, "t"), *records(NORTH, "north"))
    named = named_at(state, {})
    rows = table(10, 20.001, 25, np.nan)
    assert values("in_watchlist('t')", named, rows) == [True, False, False, None]
    assert values("in_watchlist('t', 10*arcsec)", named, rows) == [True, True, False, None]
    assert values("in_watchlist('t', mag * 10*arcsec)", named, rows) == [True, True, False, None]
    assert values("not in_watchlist('t', 10*arcsec)", named, rows) == [False, False, True, None]
    assert values("watchlist_entry('t', 10*arcsec) = 'second'", named, rows) == [False, True, None, None]
    assert values("watchlist_entry('t') in ('first', 'x')", named, rows) == [True, None, None, None]
    assert values("in_region('north')", named, table(10, np.nan, dec=80)) == [True, None]
    assert values("in_region('north', 0.1)", named, table(10, 20, dec=-80)) == [False, False]
    assert values("in_region('north', mag)", named, table(10, 20, 30, dec=80)) == [True, True, None]
    assert values("in_watchlist('u')", named, rows) == [None] * 4
    assert values("watchlist_entry('u') = 'first'", named, rows) == [None] * 4


def test_the_entry_and_the_region_can_be_part_of_a_message() -> None:
    state = after(ControlState(), *records(TARGETS, "t"), *records(NORTH, "north"))
    text = (
        "watchlist_entry('t', 10*arcsec) as entry, in_region('north') as northern, in_region('gone') as gone"
    )
    select = bind_select(compile_select(text, SPECS), named_at(state, {}))
    found = evaluate_select([select], np.array([[True, True, False, True]]), table(10, 20.001, 25, 30))
    assert found.values[0] == (
        ("entry", ["first", "second", None]),
        ("northern", [False, False, False]),
        ("gone", [None, None, None]),
    )
    assert found.failures == {}


WHY = "1 of its 1 parts are not in the control topic"


def reasons(text: str, named: Mapping[str, Mapping[str, Any]], rows: Table) -> list[str] | None:
    """Why a call has no answer on any row."""
    form = bind(compile_filter(text, SPECS), named)
    assert isinstance(form.expression, Call)
    found = Evaluator(rows, form.bound).failures(form.expression)
    return None if found is None else [found.categories[code] for code in found.codes]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("in_watchlist()", "in_watchlist with 0 arguments at 0; write in_watchlist(name[, radius])"),
        ("in_watchlist('t', 1, 2)", "in_watchlist with 3 arguments"),
        ("in_watchlist('t', 2)", "radius must be in 0..1"),
        ("in_watchlist('t', - arcsec)", "radius must be in 0..1"),
        ("in_watchlist(t)", "unknown column 't'"),
        ("in_watchlist(mag)", "takes a name in single quotes"),
        ("in_watchlist('t', 'x')", "expected a number, found a string"),
        ("watchlist_entry('t')", "a filter must be true or false"),
        ("watchlist_entry('t') = 1", "does not fit a string"),
        ("in_region('gw', 90)", "level must be in 0..1"),
    ],
)
def test_a_wrong_call_is_refused(text: str, why: str) -> None:
    with pytest.raises(FilterError, match=re.escape(why)):
        compile_filter(text, SPECS)


def test_a_name_that_is_not_there_is_refused_with_what_to_do() -> None:
    state = after(ControlState(), *records(TARGETS, "targets"), *records(NORTH, "north"))
    require_names(compile_filter("in_watchlist('targets') and in_region('north')", SPECS), state.names())
    with pytest.raises(FilterError, match=r"no watchlist is named 'target' at 13; did you mean 'targets'\?"):
        require_names(compile_filter("in_watchlist('target')", SPECS), state.names())
    with pytest.raises(FilterError, match=r"no region is named 'targets'.*broker catalogs add NAME FILE"):
        require_names(compile_filter("in_region('targets')", SPECS), state.names())


def test_each_epoch_has_what_was_there_then() -> None:
    states = [ControlState()]
    for more in (records(TARGETS, "t"), records(OTHERS, "t", 2), removal("watchlist", "t", 3)):
        states.append(after(states[-1], *more))
    held: dict[Any, Any] = {}
    newest = states[-1].blobs
    found = [
        values("in_watchlist('t')", named_at(state, held, newest), table(10, 30))
        for state in (*states, states[1])
    ]
    assert found == [[None, None], [True, False], [False, True], [None, None], [True, False]]
    assert len(held) == 2
    assert named_at(states[1], held)["watchlist"]["t"] is named_at(states[1], held)["watchlist"]["t"]


def test_contents_that_cannot_be_read_fail_alone_and_may_come() -> None:
    (part, its_head), good = records(TARGETS, "t"), records(OTHERS, "o")
    state = after(ControlState(), its_head, *good)
    lists = list_set(ListSet(), state)
    rows = table(10, 30)
    assert values("in_watchlist('t')", lists.named, rows) == [None, None]
    assert values("watchlist_entry('t') = 'first'", lists.named, rows) == [None, None]
    assert reasons("in_watchlist('t', 1*arcsec)", lists.named, rows) == [WHY, WHY]
    assert reasons("in_watchlist('o')", lists.named, rows) is None
    clause = explain_filter("in_watchlist('t')", table(10), SPECS, lists.named)
    assert (clause.outcome, clause.why) == ("null", f"watchlist t failed: {WHY}")
    assert values("in_watchlist('o')", lists.named, rows) == [False, True]
    assert lists.failed == {"watchlist t revision 1": WHY}
    assert lists.owners == {"watchlist t revision 1": "alice"}
    again = list_set(lists, after(state, *records(NORTH, "north")))
    assert again.named["watchlist"]["t"] is lists.named["watchlist"]["t"]  # nothing to compile anew
    came = list_set(again, after(state, part))
    assert values("in_watchlist('t')", came.named, rows) == [True, False]
    assert came.failed == {}


def test_a_list_of_another_kind_fails_and_harms_nobody() -> None:
    sha256 = blob_records(NORTH.packed)[0]
    wrong = replace(head(TARGETS, "t"), sha256=sha256)
    state = after(ControlState(), *records(NORTH, "north"), list_record(wrong))
    bound = named_at(state, {})["watchlist"]["t"]
    assert isinstance(bound, Failed)
    assert "have no 'ra'" in bound.failure


def test_what_stays_is_kept_and_what_goes_is_let_go() -> None:
    state = after(ControlState(), *records(TARGETS, "t"), *records(NORTH, "north"))
    first = list_set(ListSet(), state)
    second = list_set(first, after(state, *records(OTHERS, "t", 2)))
    assert second.named["region"]["north"] is first.named["region"]["north"]
    assert second.named["watchlist"]["t"] is not first.named["watchlist"]["t"]
    assert len(second.held) == 2
    assert list_set(second, after(state, *removal("region", "north", 2))).named["region"] == {}


def test_a_worker_lets_go_of_contents_it_has_loaded() -> None:
    upload = blob_records(watchlist("ra,dec\n50,0\n").packed)[1]
    half = head(TARGETS, "half", sha256=blob_records(b"xyz")[0], parts=2)
    kept = blob_records(b"xyz")[1]
    state = after(ControlState(), *records(TARGETS, "t"), *upload, *kept, list_record(half))
    lists = list_set(ListSet(), state)
    small = without_loaded(state, lists)
    assert small.blobs.keys() == state.blobs.keys() - {head(TARGETS, "t").sha256}
    assert (small.epoch, small.lists) == (state.epoch, state.lists)
    assert without_loaded(small, lists) is small
    back = after(small, *removal("watchlist", "t", 2), *records(TARGETS, "t", 3))
    again = list_set(list_set(lists, after(small, *removal("watchlist", "t", 2))), back)
    assert values("in_watchlist('t')", again.named, table(10)) == [True]


def test_purging_empties_what_nothing_live_stands_for() -> None:
    state = after(ControlState(), *records(TARGETS, "t"), *records(OTHERS, "t", 2), *records(TARGETS, "u"))
    third = head(watchlist("ra,dec\n50,0\n"), "t", 3)
    gone = list_store.purged_records(state, third)
    assert [key for key, _ in gone] == [key for key, _ in blob_records(OTHERS.packed)[1]]
    late = after(state, *removal("watchlist", "u", 2))
    assert (
        len(list_store.purged_records(late, head(TARGETS, "t", 3))) == 1
    )  # it is back to what it was at first
    both = list_store.purged_records(late, third)
    assert len(both) == 2
    after_all = after(late, *both)
    with pytest.raises(ListError, match="its contents were purged"):
        content_of(state.lists["watchlist", "t"][1], after_all.blobs)


def test_an_epoch_that_changes_no_list_keeps_the_program() -> None:
    item = Filter("alice", "f", 1, "in_watchlist('t')")
    state = after(ControlState(), *records(TARGETS, "t"))
    lists = list_set(ListSet(), state)
    first = compile_set(0, [item], {}, SPECS, lists.named)
    later = list_set(lists, after(state, *records(OTHERS, "o")))
    second = compile_set(1, [item], {}, SPECS, later.named, first)
    assert second.program is first.program
    changed = list_set(later, after(state, *records(OTHERS, "t", 2)))
    third = compile_set(2, [item], {}, SPECS, changed.named, second)
    assert third.program is not first.program
    assert third.program.evaluate(table(10, 30)).masks.tolist() == [[False, True]]
