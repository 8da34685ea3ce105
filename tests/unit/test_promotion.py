"""Promotions as a history: what is live, what a rollback comes to, and what the fold makes of it."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from broker import control
from broker.promotion import ALL, BundleName, Promotion, StoredBundle, candidates, promoted, rolled_back

A, B, C = (BundleName("ztf", version) for version in "abc")


def record(bundle: BundleName | None = None, group: str = ALL) -> Promotion:
    return Promotion(group, 1, bundle, 0, False, "2025-01-31T12:00:00Z", "ann", "because")


def after(*steps: BundleName | str) -> dict[int, Promotion]:
    """The history of a group in which bundles were promoted, and 'back' was said."""
    history: dict[int, Promotion] = {}
    for step in steps:
        new = rolled_back(history, record()) if step == "back" else promoted(history, record(step))  # type: ignore[arg-type]
        if new is not None:
            history[new.revision] = new
    return history


@pytest.mark.parametrize(
    ("steps", "live"),
    [
        ((), []),
        ((A,), [A]),
        ((A, B), [B, A]),
        ((A, "back"), []),
        ((A, B, "back"), [A]),
        ((A, B, C, "back", "back"), [A]),
        ((A, B, "back", C), [C, A]),
        ((A, B, "back", C, "back"), [A]),
        ((A, "back", "back"), []),
        ((A, "back", B), [B]),
        ((A, B, A, "back"), [B, A]),
    ],
)
def test_what_is_live_and_what_lies_below(
    steps: tuple[BundleName | str, ...], live: list[BundleName]
) -> None:
    assert candidates(after(*steps)) == live


def test_nothing_is_ever_taken_out_of_the_history() -> None:
    history = after(A, B, "back", "back", C)
    assert list(history) == [1, 2, 3, 4, 5]
    assert [item.bundle for item in history.values()] == [A, B, A, None, C]
    assert [item.rollback for item in history.values()] == [False, False, True, True, False]


def fold(*records: tuple[bytes, bytes]) -> control.ControlState:
    state = control.ControlState()
    for offset, (key, value) in enumerate(records):
        state = control.apply(state, offset, key, value)
    return state


def stored(name: BundleName) -> StoredBundle:
    return StoredBundle(name, "0" * 64, b"\x00\xffarchive", "2025-01-31T12:00:00Z", "ann")


def test_the_fold_keeps_bundles_and_each_groups_history() -> None:
    history = [*after(A, B, "back").values()]
    own = promoted({}, record(B, "lsst"))
    state = fold(
        *(control.bundle_record(stored(name)) for name in (A, B)),
        *(control.promotion_record(item) for item in [*history, own]),
    )
    assert state.epoch == 5
    assert state.unreadable == ()
    assert state.bundles == {A: stored(A), B: stored(B)}
    assert state.promotions[ALL] == {item.revision: item for item in history}
    assert {group: item.bundle for group, item in state.live_promotions().items()} == {ALL: A, "lsst": B}


def test_every_record_has_a_key_of_its_own_so_that_compaction_keeps_it() -> None:
    records = [control.promotion_record(item) for item in after(A, B, "back", "back").values()]
    records += [control.bundle_record(stored(name)) for name in (A, B)]
    records += [control.promotion_record(promoted({}, record(B, "lsst")))]
    keys = [key for key, _ in records]
    assert len(set(keys)) == len(keys)
    for one, other in pairwise(records):  # and a reader that sees only what is left sees the same
        assert fold(one, other).unreadable == ()


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("model", {"below": 1}),
        ("model", {"below": -1}),
        ("model", {"revision": "1"}),
        ("model", {"group": "a/b"}),
        ("model", {"bundle": {"id": "../up", "version": "1"}}),
        ("model", {"bundle": "ztf:1"}),
        ("bundle", {"id": ""}),
        ("bundle", {"version": 2}),
        ("bundle", {"archive": "not base64!"}),
        ("bundle", {"sha256": "short"}),
        ("bundle", {"sha256": None}),
    ],
)
def test_malformed_records_move_the_epoch_and_harm_nothing(kind: str, change: dict[str, object]) -> None:
    good = stored(A).to_json() if kind == "bundle" else record(A).to_json()
    state = fold((f"{kind}/x/1".encode(), json.dumps(good | change).encode()))
    assert (state.epoch, len(state.unreadable)) == (0, 1)
    assert (state.bundles, state.promotions) == ({}, {})
