"""Anything may be written to `control`: the fold never fails, and no state it gives makes a thing fail."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker import control
from broker.api import create_app
from broker.budget_keeper import BudgetKeeper
from broker.catalog import StoredCatalog
from broker.columns import filter_columns
from broker.config import load
from broker.context.lists import ListSet, list_set
from broker.context.stored import LIST_KINDS, StoredList, blob_records
from broker.control import MAX_UNREADABLE, ControlState
from broker.data.schema_ids import schema_id
from broker.features.catalog import FEATURE_SPECS
from broker.feedback import Mark, StoredForest, StoredTrees
from broker.filter import Filter
from broker.filters import store
from broker.filters.live import compile_set
from broker.heartbeats import Heartbeat
from broker.list_store import watchlist
from broker.models import ModelSet, model_set
from broker.near import CatalogSet, catalog_set
from broker.personal import ForestSet, forest_set
from broker.pipeline import shipped_or_chosen_models
from broker.promotion import BundleName, Promotion, Shadow, StoredBundle
from broker.scores.catalog import SCORE_SPECS
from broker.table import ColumnSpec
from tests.unit.api.test_app import NOWHERE

AT = "2026-01-01T00:00:00Z"
SCORER = shipped_or_chosen_models(load(NOWHERE, env={})).default
COLUMNS = filter_columns(FEATURE_SPECS, SCORE_SPECS)
_PACKED = watchlist("name,ra,dec\nfirst,10,0\n").packed
_SHA256, _PARTS = blob_records(_PACKED)
_TREES = b"trees"
_TEXT = '{"type": "string"}'
GOOD: list[tuple[bytes, bytes]] = [
    control.filter_record(
        Filter("ann", "bright", 1, "mag < 19", description="a", created_at=AT, changed_at=AT),
    ),
    control.filter_record(Filter("ann", "bright", 2, "mag < 18", state="draft", select="mag as m")),
    control.schema_record(schema_id(_TEXT), _TEXT),
    control.bundle_record(StoredBundle(BundleName("a", "1"), "0" * 64, b"no bundle", AT, "ann")),
    control.promotion_record(Promotion("ztf", 1, BundleName("a", "1"), 0, False, AT, "ann", "why")),
    control.shadow_record(Shadow("ztf", BundleName("a", "1"), AT, "ann", "why")),
    control.mark_record(Mark("ann", "ztf", 12, "ZTF1", "boring", "note", {"f": 1.0}, False, AT, "ann")),
    control.trees_record(StoredTrees("ztf", 1, _TREES, 5, AT)),
    control.forest_record(StoredForest("ann", "ztf", 1, 1, _TREES, (1,), (2,), 5, AT)),
    control.catalog_record(
        StoredCatalog("c", 1, "1" * 64, 5, (ColumnSpec("z", "", "doc"),), "active", "words", AT, "ann")
    ),
    (
        b"watchlist/w/1",
        json.dumps(
            StoredList(
                "watchlist",
                "w",
                1,
                "ann",
                "positions",
                _SHA256,
                len(_PACKED),
                len(_PARTS),
                1,
                "words",
                2.0,
                {"90": 1.0},
                ("a note",),
                at=AT,
                by="ann",
            ).to_json()
        ).encode(),
    ),
    *_PARTS,
]

NASTY: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    2**31,
    2**62,
    2**63,
    2**64,
    10**300,
    -(10**300),
    1e308,
    "",
    "a",
    "\ud83d",
    "\udc80x",
    "\x00",
    "\x1b[2J",
    "9" * 5000,
    "9" * 4000,
    "x" * 100_000,
    "nan",
    "inf",
    "-inf",
    [],
    {},
    [[[]]],
    {"a": {"b": "\ud800"}},
    ["\ud800"],
    "(" * 3000,
    "0001-01-01",
    "9999-12-31T23:59:59",
    "2025-01-01",
    "not a time",
    "mag < " + "1+" * 2000 + "1",
    "not " * 3000 + "true",
    float("nan"),
    float("inf"),
    "../../etc/passwd",
    "١",
    "ｔ",
    ["a"] * 10_000,
]


class _Follower:
    problem = ""

    def __init__(self) -> None:
        self.state: ControlState | None = None

    def wait_until(self, *_: Any) -> bool:
        return True


@pytest.fixture(scope="module")
def client() -> Iterator[tuple[TestClient, _Follower]]:
    app = create_app(load(NOWHERE, env={}))
    follower = _Follower()
    object.__setattr__(app.state.context, "follower", follower)
    yield TestClient(app, base_url="http://127.0.0.1"), follower
    app.state.context.redis.close()


PATHS = [
    "/api/v1/filters",
    "/api/v1/filters?removed=true",
    "/api/v1/models",
    "/api/v1/catalogs",
    "/api/v1/watchlists",
    "/api/v1/regions",
    "/api/v1/feedback/ann",
    "/subjects",
    f"/schemas/ids/{schema_id(_TEXT)}",
    "/schemas",
    "/ready",
    "/api/v1/filters/ann/bright",
    "/api/v1/filters/ann/bright/versions",
    "/api/v1/watchlists/w",
]


def views(state: ControlState, folder: Path) -> None:
    """All that the worker and the command line do with a state."""
    state.names(), state.members(), state.live_lists(), state.live_promotions(), state.filter_addresses()
    for item in state.filters.values():
        json.dumps(item.to_json(), allow_nan=False).encode()
        json.dumps(store.as_json(item), ensure_ascii=False, allow_nan=False).encode()
        item.topic.encode(), item.mark, item.label.encode()
    for mark in state.marks_of("ann"):
        json.dumps(mark.summary(), ensure_ascii=False, allow_nan=False).encode()
    for kept in (*state.live_lists().values(), *state.live_catalogs().values()):
        json.dumps(kept.to_json(), ensure_ascii=False, allow_nan=False).encode()
    forests, lists = forest_set(ForestSet(), state), list_set(ListSet(), state)
    catalogs = catalog_set(CatalogSet(), state, lambda: folder)
    models = model_set(ModelSet(SCORER), state)
    named = {**forests.named, **catalogs.named, **lists.named}
    compiled = compile_set(
        state.epoch, state.active_filters(), state.filter_addresses(), COLUMNS, named, None, state.members()
    )
    BudgetKeeper(load(NOWHERE, env={})).serve(state)
    beat = Heartbeat("s", state.epoch, True, 1, models=models.names(), shadows=models.shadow_names())
    assert beat
    assert compiled.epoch == state.epoch
    for note in state.unreadable:
        assert str(note).encode()
        assert len(str(note)) < 600
        assert str(note).isprintable()


def folded(*records: tuple[bytes | None, bytes | None]) -> ControlState:
    state = ControlState()
    for offset, (key, value) in enumerate(records):
        state = control.apply(state, offset, key, value)
        assert state.epoch == offset
    return state


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield from _places(part, (*path, key))


def _with(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    changed = copy.deepcopy(value)
    target = changed
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = new
    return changed


def _poisons(record: tuple[bytes, bytes]) -> Iterator[tuple[bytes, bytes]]:
    """A good record with each of its values, one after the other, made into each nasty one."""
    key, value = record
    content = json.loads(value)
    for path in _places(content):
        for nasty in NASTY:
            yield key, json.dumps(_with(content, path, nasty)).encode()


def test_the_good_records_are_all_applied(client: tuple[TestClient, _Follower], tmp_path: Path) -> None:
    state = folded(*GOOD)
    assert state.unreadable == ()
    assert state.unreadable_more == 0
    views(state, tmp_path)
    browser, follower = client
    follower.state = state
    assert {browser.get(path).status_code for path in PATHS} <= {200, 404, 503}


@pytest.mark.parametrize("number", range(len(GOOD)))
def test_no_value_of_a_record_can_do_harm(
    number: int, client: tuple[TestClient, _Follower], tmp_path: Path
) -> None:
    """Every value of every record, made into every nasty one; a sample of the states is looked at whole."""
    before, (browser, follower) = folded(*GOOD), client
    for count, (key, value) in enumerate(_poisons(GOOD[number])):
        state = control.apply(before, len(GOOD), key, value)
        assert state.epoch == len(GOOD)
        if state.unreadable:
            assert state.filters == before.filters
            assert state.lists == before.lists
        elif count % 43 == 0:
            views(state, tmp_path)
            follower.state = state
            for path in PATHS:
                assert browser.get(path).status_code in (200, 404, 503), (path, value[:300])


TEXTS: dict[str, bytes] = {
    "a number without end": b'{"id":1e999}',
    "brackets": b"[" * 100_000,
    "braces": b'{"a":' * 100_000,
    "closed brackets": b"[" * 900 + b"]" * 900,
    "many digits": b'{"id":' + b"9" * 1_000_000 + b"}",
    "NaN": b'{"id":NaN,"schema":NaN}',
    "half a pair": rb'{"id":1,"schema":"\ud800"}',
    "raw half a pair": b'{"id":1,"schema":"\xed\xa0\x80"}',
    "not UTF-8": b"\xff\xfe\x00",
    "UTF-16": '{"id":1}'.encode("utf-16"),
    "nothing": b"",
    "NUL": b"\x00" * 1000,
    "a long error": b'{"kind":"' + b"x" * 1_000_000 + b'"}',
    "deep under a field": b'{"id":1,"schema":"a","more":' + b"[" * 990 + b"]" * 990 + b"}",
}
KEYS = [
    b"schema/1/1",
    b"filter/a.b/1",
    b"blob/x/0",
    b"blob/" + b"a" * 64 + b"/0",
    b"\xff\xfe",
    b"",
    b"/" * 9,
    b"k" * 1_000_000,
    "wätchlist/\udc80".encode("utf-8", "surrogateescape"),
    b"blob/" + b"a" * 64 + b"/" + b"9" * 5000,
]


@pytest.mark.parametrize("name", TEXTS)
def test_known_poison(name: str, tmp_path: Path) -> None:
    for key in (*KEYS, *(f"{kind}/x/1".encode() for kind in ("model", "bundle", "feedback", *LIST_KINDS))):
        views(folded(*GOOD, (key, TEXTS[name])), tmp_path)


def test_null_keys_and_values_are_no_matter(tmp_path: Path) -> None:
    views(folded((None, None), (None, b"{}"), (b"a", None), *GOOD), tmp_path)


def test_contents_that_are_poison_fail_their_list_alone(tmp_path: Path) -> None:
    for value in (*TEXTS.values(), b"7", b'"purged"', b"[]", b'{"bytes":7}', b'{"bytes":"\xc3\xa4"}'):
        packed = hashlib.sha256(b"").hexdigest()
        views(
            folded(*GOOD, (f"blob/{_SHA256}/0".encode(), value), (f"blob/{packed}/0".encode(), value)),
            tmp_path,
        )


def test_it_is_shown_until_a_record_of_its_key_can_be_applied() -> None:
    key, value = GOOD[0]
    state = folded(GOOD[1], (key, b"{"), (b"other", b"["))
    assert [item.offset for item in state.unreadable] == [1, 2]
    assert "filter/ann.bright/1" in str(state.unreadable[0])
    again = control.apply(state, 3, key, b"[")
    assert [item.offset for item in again.unreadable] == [2, 3]
    mended = control.apply(again, 4, key, value)
    assert [item.offset for item in mended.unreadable] == [2]
    assert ("ann.bright", 1) in mended.filters
    assert control.apply(mended, 5, b"other", None).unreadable == ()


def test_the_list_of_them_is_bounded() -> None:
    state = folded(*((f"riddle/{k}/1".encode(), b"x" * 1000) for k in range(3 * MAX_UNREADABLE)))
    assert len(state.unreadable) == MAX_UNREADABLE
    assert state.unreadable_more == 2 * MAX_UNREADABLE
    assert state.unreadable[-1].offset == 3 * MAX_UNREADABLE - 1


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_FIELDS = sorted({name for _, value in GOOD for name in json.loads(value)})


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    key=st.sampled_from([key for key, _ in GOOD]) | st.binary(max_size=30) | st.none(),
    value=st.binary(max_size=60)
    | st.none()
    | st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=8).map(lambda it: json.dumps(it).encode()),
    seed=st.integers(0, 2**32),
    fields=st.lists(_JSON, max_size=3),
)
def test_anything(key: bytes | None, value: bytes | None, seed: int, fields: list[Any]) -> None:
    rng = random.Random(seed)
    good_key, good = rng.choice(GOOD)
    content = json.loads(good)
    for new in fields:
        content = _with(content, rng.choice(list(_places(content))), new)
    state = folded(*GOOD[:1], (key, value), (good_key, json.dumps(content).encode()))
    state.names(), state.members(), state.filter_addresses()
    for item in (*state.filters.values(), *state.live_lists().values(), *state.live_catalogs().values()):
        json.dumps(item.to_json(), ensure_ascii=False, allow_nan=False).encode()
    assert all(str(note).encode() for note in state.unreadable)
