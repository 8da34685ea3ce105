"""Marks, trees and forests as records of the control topic, and the set of forests that serves."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from broker import control
from broker.errors import FeedbackError, FilterError
from broker.feedback import MAX_ARCHIVE_BYTES, MAX_NOTE, Mark, StoredForest, StoredTrees
from broker.feedback_store import describe
from broker.filters.compile import bind, compile_filter, names_in, require_names
from broker.filters.evaluate import evaluate
from broker.filters.functions import FOREST
from broker.filters.live import compile_set
from broker.filters.store import Filter
from broker.personal import ForestSet, forest_set
from broker.scores.aad import grow, personal_forest
from broker.scores.personal import PersonalForest, Trees, pack_forest, pack_trees
from broker.table import Column, ColumnSpec, Table

INPUTS = ("slope_g", "slope_r", "amplitude")
RECENT = np.random.default_rng(1).normal(size=(300, len(INPUTS)))
SPECS = {name: ColumnSpec(name, "", "") for name in INPUTS} | {
    "survey": ColumnSpec("survey", "", "", "string")
}
AT = "2025-01-01T00:00:00Z"
MARK = Mark("alice", "ztf", 2**60 + 1, "ZTF25a", "interesting", "odd", {"slope_g": 0.5}, False, AT, "me")


def stored_trees(survey: str = "ztf", revision: int = 1) -> StoredTrees:
    trees = grow(RECENT, INPUTS, seed=revision)
    return StoredTrees(survey, revision, pack_trees(trees), len(RECENT), AT)


def fitted(revision: int = 1) -> PersonalForest:
    marked = RECENT[revision : revision + 4]
    return personal_forest(grow(RECENT, INPUTS, seed=1), marked, np.array([True, True, False, False]), RECENT)


def stored_forest(owner: str = "alice", revision: int = 1, **changed: Any) -> StoredForest:
    item = StoredForest(owner, "ztf", revision, 1, pack_forest(fitted(revision)), (7,), (8, 9), 300, AT)
    return replace(item, **changed)


def fold(*records: tuple[bytes, bytes]) -> control.ControlState:
    state = control.ControlState()
    for offset, record in enumerate(records):
        state = control.apply(state, offset, *record)
    return state


def table(survey: str = "ztf", rows: int = 300) -> Table:
    columns = [Column(SPECS[name], RECENT[:rows, k].copy()) for k, name in enumerate(INPUTS)]
    return Table([Column(SPECS["survey"], np.zeros(rows, dtype=np.int32), (survey,)), *columns], rows)


def test_a_later_mark_takes_the_place_of_an_earlier_and_removal_is_a_state() -> None:
    other = replace(MARK, verdict="boring")
    state = fold(control.mark_record(MARK), control.mark_record(other))
    assert [mark.verdict for mark in state.marks_of("alice")] == ["boring"]
    state = fold(control.mark_record(MARK), control.mark_record(replace(MARK, removed=True)))
    assert state.marks_of("alice") == []
    assert state.marks[MARK.key].features == {"slope_g": 0.5}


def test_records_come_back_as_they_were() -> None:
    assert Mark.from_json(json.loads(json.dumps(MARK.to_json()))) == MARK
    for item in (stored_trees(), stored_forest()):
        assert type(item).from_json(json.loads(json.dumps(item.to_json()))) == item
    assert MARK.to_json()["alert"] == str(2**60 + 1)


def test_forests_have_epochs_and_old_ones_stay() -> None:
    records = [control.trees_record(stored_trees())]
    records += [control.forest_record(stored_forest(revision=number)) for number in (1, 2)]
    state = fold(*records, control.mark_record(MARK))
    assert sorted(state.forests["alice", "ztf"]) == [1, 2]
    found = describe(state, "alice")
    assert [(item["revision"], item["epoch"]) for item in found["forests"]] == [(1, 1), (2, 2)]
    assert [item["alert"] for item in found["marks"]] == [str(MARK.alert)]
    assert describe(state, "bob") == {"owner": "bob", "marks": [], "forests": []}
    assert state.names()[FOREST] == {"alice"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"owner": "Not Allowed"},
        {"verdict": "wonderful"},
        {"features": {"slope_g": float("inf")}},
        {"features": {"slope_g": "steep"}},
        {"features": {str(number): 1.0 for number in range(5000)}},
        {"features": [1.0]},
        {"note": "x" * (MAX_NOTE + 1)},
        {"alert": "seven"},
        {"survey": "../ztf"},
    ],
)
def test_a_mark_nobody_can_read_is_noted(wrong: dict[str, Any]) -> None:
    key, _ = control.mark_record(MARK)
    state = fold((key, json.dumps(MARK.to_json() | wrong).encode()))
    assert (state.epoch, len(state.unreadable), state.marks) == (0, 1, {})


@pytest.mark.parametrize(
    "wrong",
    [
        {"archive": "not base64!"},
        {"archive": "AAAA"},
        {"archive": "A" * (4 * MAX_ARCHIVE_BYTES)},
        {"archive": 5},
        {"sha256": "0" * 64},
        {"revision": 0},
        {"revision": "two"},
        {"owner": "Not Allowed"},
        {"interesting": ["x"]},
        {"trees": None},
    ],
)
def test_a_forest_nobody_can_read_is_noted(wrong: dict[str, Any]) -> None:
    key, _ = control.forest_record(stored_forest())
    state = fold((key, json.dumps(stored_forest().to_json() | wrong).encode()))
    assert (state.epoch, len(state.unreadable), state.forests) == (0, 1, {})


def test_what_is_too_large_is_not_stored() -> None:
    with pytest.raises(FeedbackError):
        stored_forest(archive=bytes(MAX_ARCHIVE_BYTES + 1))


def test_the_newest_forest_that_can_be_used_serves() -> None:
    good = [control.trees_record(stored_trees()), control.forest_record(stored_forest())]
    other_trees = replace(stored_trees(revision=2), archive=b"of another kind")
    bad = [
        stored_forest(revision=2, archive=b"of another kind"),
        stored_forest(revision=3, trees=9),
        stored_forest(revision=4, trees=2),
    ]
    state = fold(*good, control.trees_record(other_trees), *map(control.forest_record, bad))
    loaded = forest_set(ForestSet(), state)
    assert loaded.loaded["alice", "ztf"][0] == 1
    assert sorted(loaded.refused) == ["alice/ztf/2", "alice/ztf/3", "alice/ztf/4"]
    assert "not in the control topic" in loaded.refused["alice/ztf/3"]


def test_trees_over_features_of_another_version_are_refused() -> None:
    trees = grow(RECENT, ("slope_g", "slope_r", "of_tomorrow"), seed=1)
    item = StoredTrees("ztf", 1, pack_trees(trees), 300, AT)
    state = fold(control.trees_record(item), control.forest_record(stored_forest()))
    loaded = forest_set(ForestSet(), state)
    assert loaded.named == {FOREST: {}}
    assert "of_tomorrow" in loaded.refused["alice/ztf/1"]


def test_what_is_loaded_stays_loaded_and_trees_are_shared() -> None:
    records = [
        control.trees_record(stored_trees()),
        control.forest_record(stored_forest("alice")),
        control.forest_record(stored_forest("bob")),
    ]
    first = forest_set(ForestSet(), fold(*records))
    later = forest_set(first, fold(*records, control.forest_record(stored_forest("bob", 2))))
    assert later.loaded["alice", "ztf"][1] is first.loaded["alice", "ztf"][1]
    assert later.loaded["bob", "ztf"][1].trees is first.loaded["alice", "ztf"][1].trees
    assert later.loaded["bob", "ztf"][0] == 2
    assert list(later.trees) == [("ztf", 1)]


def test_a_filter_ranks_by_the_forest_of_its_epoch() -> None:
    state = fold(control.trees_record(stored_trees()), control.forest_record(stored_forest()))
    named = forest_set(ForestSet(), state).named
    text = "personal_anomaly('alice') > 0.9"
    rules = [
        Filter("alice", "mine", 1, text),
        Filter("bob", "hers", 1, f"not ({text})"),
        Filter("bob", "nobody", 1, "personal_anomaly('carol') is null"),
    ]
    live = compile_set(1, rules, {}, SPECS, named)
    assert live.refused == ()
    found = evaluate(live.compiled, table())
    assert found.failures == {}
    forest = fitted()
    rank = forest.rank(forest.trees.leaves(RECENT))
    assert found.masks[0].tolist() == (rank > 0.9).tolist()
    assert 0 < found.masks[0].sum() <= 30
    assert np.array_equal(found.masks[1], ~found.masks[0])
    assert found.masks[2].all()


def test_where_there_is_no_forest_it_is_null() -> None:
    state = fold(control.trees_record(stored_trees()), control.forest_record(stored_forest()))
    bound = bind(
        compile_filter("personal_anomaly('alice') is null", SPECS), forest_set(ForestSet(), state).named
    )
    assert evaluate([bound], table("lsst")).masks.all()
    assert not evaluate([bound], table("ztf")).masks.any()


def test_a_name_is_looked_for_when_a_filter_is_added_only() -> None:
    compiled = compile_filter("slope_g < 3 and personal_anomaly('alise') > 0.5", SPECS)
    (place,) = names_in(compiled)
    assert (place.state, place.name, place.position) == (FOREST, "alise", 33)
    with pytest.raises(FilterError, match=r"no forest is named 'alise' at 33; did you mean 'alice'\?"):
        require_names(compiled, {FOREST: {"alice"}})
    with pytest.raises(FilterError, match="broker feedback add"):
        require_names(compiled, {})
    require_names(compiled, {FOREST: {"alise"}})


def test_the_trees_are_walked_once_however_many_people_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    people = ("alice", "bob", "carol")
    records = [control.trees_record(stored_trees())]
    records += [control.forest_record(stored_forest(name, k + 1)) for k, name in enumerate(people)]
    named = forest_set(ForestSet(), fold(*records)).named
    rules = [bind(compile_filter(f"personal_anomaly('{name}') > 0.8", SPECS), named) for name in people]
    walked: list[int] = []
    walk = Trees.leaves

    def counted(self: Trees, columns: Any) -> Any:
        walked.append(len(columns))
        return walk(self, columns)

    monkeypatch.setattr(Trees, "leaves", counted)
    found = evaluate(rules, table())
    assert (walked, found.failures) == ([300], {})
    assert len({mask.tobytes() for mask in found.masks}) == 3
    evaluate(rules, table())
    assert walked == [300, 300]
