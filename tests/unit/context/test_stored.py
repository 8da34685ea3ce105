"""Watchlists and regions as records of the control topic."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from broker import control
from broker.context import stored
from broker.context.stored import (
    StoredList,
    blob_records,
    content_of,
    list_record,
    pack_arrays,
    unpack_arrays,
)
from broker.control import ControlState
from broker.errors import FilterError, ListError

CONTENT = bytes(range(256)) * 40
SHA256, PARTS = blob_records(CONTENT)
ITEM = StoredList(
    "watchlist", "targets", 1, "alice", "positions", SHA256, len(CONTENT), len(PARTS), 3, radius_arcsec=1.5
)


def fold(*records: tuple[bytes, bytes]) -> ControlState:
    state = ControlState()
    for offset, record in enumerate(records):
        state = control.apply(state, offset, *record)
    return state


def test_contents_travel_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "PART_BYTES", 1000)
    name, parts = blob_records(CONTENT)
    assert name == SHA256
    assert [key.decode() for key, _ in parts][:2] == [f"blob/{name}/0", f"blob/{name}/1"]
    assert len(parts) == 11
    item = replace(ITEM, parts=11)
    state = fold(*reversed(parts), list_record(item))
    assert content_of(state.lists["watchlist", "targets"][1], state.blobs) == CONTENT
    with pytest.raises(ListError, match="1 of its 11 parts are not in the control topic"):
        content_of(item, fold(*parts[1:]).blobs)
    wrong = fold(*parts[1:], (parts[0][0], parts[1][1]))
    with pytest.raises(ListError, match="SHA-256 differs"):
        content_of(item, wrong.blobs)
    for value in (b"", b"{}", b'{"bytes": 5}', b'{"bytes": "*"}', b"[]"):
        with pytest.raises(ListError, match="cannot be read"):
            content_of(item, fold(*parts[1:], (parts[0][0], value)).blobs)
    monkeypatch.setattr(stored, "MAX_PARTS", 10)
    with pytest.raises(ListError, match="at most 10,000 can be stored"):
        blob_records(CONTENT)


def test_an_upload_that_broke_off_names_nothing() -> None:
    state = fold(*PARTS)
    assert state.epoch == len(PARTS) - 1
    assert state.live_lists() == {}
    assert state.names()["watchlist"] == set()
    assert state.unreadable == ()


def test_a_head_reads_back_as_itself() -> None:
    region = StoredList(
        "region", "gw", 4, "bob", "sky map", SHA256, 9, 1, 3, "an event", None, {"0.5": 12.5}, ("a note",),
        at="2025-01-01T00:00:00Z", by="test",
    )  # fmt: skip
    for item in (ITEM, region, replace(region, state="removed")):
        assert StoredList.from_json(json.loads(list_record(item)[1])) == item
    assert list_record(region)[0] == b"region/gw/4"
    old = {
        "kind": "region",
        "name": "x",
        "revision": 1,
        "owner": "bob",
        "form": "moc",
        "sha256": "",
        "size": 0,
    }
    assert StoredList.from_json(old | {"parts": 0, "rows": 0, "state": "removed", "later": 1}).notes == ()


def test_revisions_stay_and_the_newest_counts() -> None:
    second = replace(ITEM, revision=2, rows=4)
    third = replace(ITEM, revision=3, state="removed", sha256="", parts=0)
    state = fold(*(list_record(item) for item in (second, ITEM)))
    assert state.live_lists() == {("watchlist", "targets"): second}
    assert state.names()["watchlist"] == {"targets"}
    gone = control.apply(state, 2, *list_record(third))
    assert gone.live_lists() == {}
    assert gone.names()["watchlist"] == set()
    assert sorted(gone.lists["watchlist", "targets"]) == [1, 2, 3]


@pytest.mark.parametrize(
    "changed",
    [{"kind": "map"}, {"state": "lost"}, {"revision": 0}, {"description": "x" * 2001}, {"parts": 33}],
)
def test_a_head_that_means_nothing_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(ListError):
        replace(ITEM, **changed)  # type: ignore[arg-type]
    record = ITEM.to_json() | changed
    key = f"{record['kind']}/targets/1".encode()
    assert len(fold((key, json.dumps(record).encode())).unreadable) == 1


@pytest.mark.parametrize("name", ["", "Mine", "a b", "x" * 49, "a/b"])
def test_names_are_those_that_filters_may_have(name: str) -> None:
    with pytest.raises(FilterError, match="watchlist name"):
        replace(ITEM, name=name)


def test_arrays_read_back_as_themselves() -> None:
    arrays = {"a": np.array([1.5, np.nan, -0.0]), "b": np.array([], dtype=np.uint8), "c": np.arange(5)}
    found = unpack_arrays(pack_arrays(arrays), ("a", "b", "c"))
    for name, item in arrays.items():
        assert found[name].tobytes() == item.tobytes()
        assert found[name].dtype == item.dtype
    with pytest.raises(ListError, match="have no 'd'"):
        unpack_arrays(pack_arrays(arrays), ("a", "d"))


def test_arrays_that_were_made_up_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pack_arrays({"a": np.arange(1000)})
    for content in (b"", b"x", whole[:-5], whole[:20]):
        with pytest.raises(ListError, match="cannot be unpacked"):
            unpack_arrays(content, ("a",))
    monkeypatch.setattr(stored, "MAX_UNPACKED_BYTES", 100)
    with pytest.raises(ListError, match="larger than a list may be"):
        unpack_arrays(whole, ("a",))
