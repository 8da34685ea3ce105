"""The control topic as a fold: versions, states, epochs, and records nobody can read."""

from __future__ import annotations

import json

from broker import control
from broker.data.schema_ids import schema_id
from broker.filter import Filter


def rule(version: int = 1, state: str = "active", where: str = "mag < 19") -> Filter:
    return Filter("ann", "bright", version, where, state=state)  # type: ignore[arg-type]


def fold(*records: tuple[bytes | None, bytes | None]) -> control.ControlState:
    state = control.ControlState()
    for offset, (key, value) in enumerate(records):
        state = control.apply(state, offset, key, value)
    return state


def test_the_newest_version_judges_and_the_old_ones_stay_addressable() -> None:
    state = fold(control.filter_record(rule(1)), control.filter_record(rule(2, where="mag < 18")))
    assert [item.where for item in state.active_filters()] == ["mag < 18"]
    assert state.filters[("ann.bright", 1)].where == "mag < 19"
    assert state.filter_epochs == {("ann.bright", 1): 0, ("ann.bright", 2): 1}
    assert state.epoch == 1


def test_a_draft_waits_beside_the_version_in_force() -> None:
    records = [control.filter_record(rule(1)), control.filter_record(rule(2, "draft", "mag < 18"))]
    state = fold(*records)
    assert [item.version for item in state.active_filters()] == [1]
    assert state.latest_filters()["ann.bright"].version == 2
    assert state.filters_in_force()["ann.bright"].version == 1
    assert rule(2).mark in state.filter_addresses()

    paused = fold(*records, control.filter_record(rule(1, "paused")))
    assert paused.active_filters() == []
    assert paused.filter_addresses() == {}

    enabled = fold(*records, control.filter_record(rule(2, "active", "mag < 18")))
    assert [item.where for item in enabled.active_filters()] == ["mag < 18"]


def test_a_filter_that_is_only_a_draft_stands_as_one_and_judges_nothing() -> None:
    state = fold(control.filter_record(rule(1, "draft")), control.filter_record(rule(2, "draft")))
    assert state.filters_in_force() == {}
    assert state.active_filters() == []
    assert state.current_filters()["ann.bright"].version == 2


def test_removal_is_a_state() -> None:
    state = fold(control.filter_record(rule(1)), control.filter_record(rule(1, "removed")))
    assert state.active_filters() == []
    assert state.latest_filters()["ann.bright"].state == "removed"


def test_schemas_are_found_by_id() -> None:
    text = '{"type": "string"}'
    good, bad = control.schema_record(schema_id(text), text), control.schema_record(schema_id(text), '"long"')
    assert fold(good).schemas == {schema_id(text): text}
    state = fold(good, bad)
    assert state.schemas == {schema_id(text): text}, "no other text can take a schema's place"
    assert "is not the id of this schema" in str(state.unreadable[0])


def test_a_record_nobody_can_read_moves_the_epoch_and_harms_nothing() -> None:
    bad = [
        (b"filter/x/1", b"{"),
        (None, b"{}"),
        (b"key", None),
        (b"riddle/x/1", b"{}"),
        (b"filter/x/1", b"[]"),
    ]
    wrong_name = json.dumps(rule().to_json() | {"name": "Not Allowed"}).encode()
    state = fold(control.filter_record(rule()), *bad, (b"filter/y/1", wrong_name))
    assert state.epoch == 6
    assert [item.offset for item in state.unreadable] == [2, 3, 4, 5, 6], "of each key the last"
    assert len(state.active_filters()) == 1


def test_states_are_never_changed_in_place() -> None:
    before = fold(control.filter_record(rule()))
    control.apply(before, 1, *control.filter_record(rule(2)))
    assert list(before.filters) == [("ann.bright", 1)]
