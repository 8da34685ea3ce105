"""All durable state, as a fold over the `control` topic: filters, schemas, bundles and their promotions, and
what people said of alerts.

A record's key is `<kind>/<name>/<version>`, its value JSON. Removal is a state, never a tombstone, so an old
version stays addressable. The offset of the last record applied is the *epoch*: two processes at one epoch
hold the same state.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from broker.catalog import StoredCatalog
from broker.context.stored import BLOB, LIST_KINDS, ListKind, Parts, StoredList, blob_place
from broker.data.schema_ids import schema_id
from broker.errors import BrokerError
from broker.feedback import Mark, StoredForest, StoredTrees
from broker.filter import Filter
from broker.promotion import BundleName, Promotion, Shadow, StoredBundle
from broker.table import ColumnSpec
from broker.text import fault_of_json, printable, whole_number

FILTER = "filter"
SCHEMA = "schema"
BUNDLE = "bundle"
MODEL = "model"
FEEDBACK = "feedback"
TREES = "trees"
FOREST = "forest"
SHADOW = "shadow"
CATALOG = "catalog"
NEAR = "catalogue"
"""What a filter's function calls the kind of state that a catalogue is."""
_BLOB_PREFIX = f"{BLOB}/".encode()


MAX_UNREADABLE = 100
"""Records that could not be applied and are listed."""
_LONGEST_WHY = 300


@dataclass(frozen=True)
class Unreadable:
    """A record that could not be applied, and so changed nothing.

    key : in letters that can be shown, cut;  place : tells keys apart, None for a record without one
    """

    offset: int
    key: str
    why: str
    place: bytes | None = None

    def __str__(self) -> str:
        return f"control record {self.offset} ({self.key or 'without a key'}) is not applied: {self.why}"


@dataclass(frozen=True)
class ControlState:
    """What the control topic says up to `epoch`; a new object for each change, so it may be shared.

    filters : every version of every filter, by (owner.name, version)
    filter_epochs : the offset at which each of those versions took its present state
    schemas : Avro schema text by id
    bundles : every bundle that was ever promoted
    promotions : every promotion by revision, of each group of surveys
    marks : what was said of alerts, by (owner, survey, alert), removed marks included
    trees : trees of each survey, by revision
    forests : forests of each (owner, survey), by revision;  forest_epochs : the offset of each of those
    shadows : the newest shadow of each group, those that were turned off included
    catalogs : every revision of each catalogue, removals included
    lists : every revision of every watchlist and region, by (kind, name), removals included
    blobs : the contents of these, as they came, by SHA-256: nothing is read of them here
    unreadable : the newest records that could not be applied, of each key the last, until one of that key can
    unreadable_more : how many older ones are not listed any more
    """

    epoch: int = -1
    filters: Mapping[tuple[str, int], Filter] = field(default_factory=dict)
    filter_epochs: Mapping[tuple[str, int], int] = field(default_factory=dict)
    schemas: Mapping[int, str] = field(default_factory=dict)
    bundles: Mapping[BundleName, StoredBundle] = field(default_factory=dict)
    promotions: Mapping[str, Mapping[int, Promotion]] = field(default_factory=dict)
    marks: Mapping[tuple[str, str, int], Mark] = field(default_factory=dict)
    trees: Mapping[str, Mapping[int, StoredTrees]] = field(default_factory=dict)
    forests: Mapping[tuple[str, str], Mapping[int, StoredForest]] = field(default_factory=dict)
    forest_epochs: Mapping[str, int] = field(default_factory=dict)
    shadows: Mapping[str, Shadow] = field(default_factory=dict)
    catalogs: Mapping[str, Mapping[int, StoredCatalog]] = field(default_factory=dict)
    unreadable: tuple[Unreadable, ...] = ()
    unreadable_more: int = 0
    lists: Mapping[tuple[ListKind, str], Mapping[int, StoredList]] = field(default_factory=dict)
    blobs: Mapping[str, Parts] = field(default_factory=dict, repr=False)

    def latest_filters(self) -> dict[str, Filter]:
        """The newest version of each filter by `owner.name`, drafts and removed ones included."""
        return _newest(self.filters.values())

    def filters_in_force(self) -> dict[str, Filter]:
        """Of each filter the newest version that is no draft: its state is the filter's.

        A draft waits beside it until it is enabled. Older versions judge nothing, whatever their records say.
        """
        return _newest(item for item in self.filters.values() if item.state != "draft")

    def current_filters(self) -> dict[str, Filter]:
        """Each filter as it stands: the version in force, or the newest draft where nothing ever was."""
        return self.latest_filters() | self.filters_in_force()

    def active_filters(self) -> list[Filter]:
        """The filters that judge alerts at this epoch, in a stable order."""
        found = self.filters_in_force()
        return [found[name] for name in sorted(found) if found[name].state == "active"]

    def live_promotions(self) -> dict[str, Promotion]:
        """The newest promotion of each group, rollbacks to nothing included."""
        return {group: history[max(history)] for group, history in sorted(self.promotions.items())}

    def marks_of(self, owner: str, survey: str | None = None) -> list[Mark]:
        """The marks of an owner that count, by survey and alert."""
        mine = (mark for key, mark in sorted(self.marks.items()) if key[0] == owner and not mark.removed)
        return [mark for mark in mine if survey in {None, mark.survey}]

    def live_lists(self) -> dict[tuple[ListKind, str], StoredList]:
        """The newest revision of each watchlist and region that is not removed."""
        newest = {name: revisions[max(revisions)] for name, revisions in sorted(self.lists.items())}
        return {name: item for name, item in newest.items() if item.state == "active"}

    def names(self) -> dict[str, set[str]]:
        """What a filter may name, by kind of state."""
        live = self.live_lists()
        lists: dict[str, set[str]] = {
            kind: {name for other, name in live if other == kind} for kind in LIST_KINDS
        }
        return {FOREST: {owner for owner, _ in self.forests}, NEAR: set(self.live_catalogs()), **lists}

    def live_catalogs(self) -> dict[str, StoredCatalog]:
        """The newest revision of each catalogue that is not removed, by name."""
        newest = {name: revisions[max(revisions)] for name, revisions in sorted(self.catalogs.items())}
        return {name: item for name, item in newest.items() if item.state == "active"}

    def members(self) -> dict[str, dict[str, dict[str, ColumnSpec]]]:
        """The columns of all that a filter may name and that has some, by kind of state and name."""
        live = self.live_catalogs()
        return {NEAR: {name: {it.name: it for it in item.columns} for name, item in live.items()}}

    def filter_addresses(self) -> dict[bytes, Filter]:
        """Every version of every filter whose topic may be written to, by its mark (Filter.mark)."""
        paused = {name for name, item in self.filters_in_force().items() if item.state == "paused"}
        return {item.mark: item for (name, _), item in self.filters.items() if name not in paused}


def _newest(filters: Iterable[Filter]) -> dict[str, Filter]:
    """The highest version of each filter by `owner.name`."""
    newest: dict[str, Filter] = {}
    for item in filters:
        held = newest.get(item.full_name)
        if held is None or item.version > held.version:
            newest[item.full_name] = item
    return newest


def apply(state: ControlState, offset: int, key: bytes | None, value: bytes | None) -> ControlState:
    """The state after one more control record; one that cannot be applied is noted, never fatal.

    Whatever its bytes are, they change nothing then. A later record of its key takes the note away, one
    without a value too.
    """
    before = _forgiven(state, key)
    if value is None and before is not state:
        return replace(before, epoch=offset)
    try:
        return _applied(before, offset, key, value)
    except MemoryError:
        raise  # a fault of this machine, not of the record
    except Exception as error:  # anybody may have written anything
        return _noted(before, offset, key, error)


def _forgiven(state: ControlState, key: bytes | None) -> ControlState:
    """The state without the note of a record of this key."""
    if key is None or not state.unreadable:
        return state
    place = _place(key)
    left = tuple(item for item in state.unreadable if item.place != place)
    return state if len(left) == len(state.unreadable) else replace(state, unreadable=left)


def _noted(state: ControlState, offset: int, key: bytes | None, error: Exception) -> ControlState:
    shown = printable((key or b"")[:200].decode("utf-8", "backslashreplace"), 100)
    kind = "" if isinstance(error, BrokerError) else f"{type(error).__name__}: "
    why = printable(kind + str(error), _LONGEST_WHY)
    item = Unreadable(offset, shown, why, None if key is None else _place(key))
    listed = (*state.unreadable, item)
    more = state.unreadable_more + max(0, len(listed) - MAX_UNREADABLE)
    return replace(state, epoch=offset, unreadable=listed[-MAX_UNREADABLE:], unreadable_more=more)


def _place(key: bytes) -> bytes:
    """What tells a key from others, however long it is."""
    return hashlib.blake2b(key, digest_size=16).digest()


def _applied(state: ControlState, offset: int, key: bytes | None, value: bytes | None) -> ControlState:
    if key is not None and value is not None and key.startswith(_BLOB_PREFIX):
        return _with_part(state, offset, *blob_place(key), value)
    kind, content = _parse(key, value)
    if kind == FILTER:
        return _with_filter(state, offset, Filter.from_json(content))
    if kind == SCHEMA:
        return replace(state, epoch=offset, schemas={**state.schemas, **_schema(content)})
    if kind == BUNDLE:
        stored = StoredBundle.from_json(content)
        return replace(state, epoch=offset, bundles={**state.bundles, stored.name: stored})
    if kind == MODEL:
        return _with_promotion(state, offset, Promotion.from_json(content))
    if kind == FEEDBACK:
        mark = Mark.from_json(content)
        return replace(state, epoch=offset, marks={**state.marks, mark.key: mark})
    if kind == TREES:
        return _with_trees(state, offset, StoredTrees.from_json(content))
    if kind == FOREST:
        return _with_forest(state, offset, StoredForest.from_json(content))
    if kind == SHADOW:
        item = Shadow.from_json(content, offset)
        return replace(state, epoch=offset, shadows={**state.shadows, item.group: item})
    if kind == CATALOG:
        return _with_catalog(state, offset, StoredCatalog.from_json(content, offset))
    if kind in LIST_KINDS:
        return _with_list(state, offset, StoredList.from_json(content))
    raise ValueError(f"unknown kind {kind!r}")


def _schema(content: Mapping[str, Any]) -> dict[int, str]:
    """A schema by its id.  Raises ValueError, KeyError or TypeError.

    The id is made of the text: a record with another text would make all messages with that id unreadable.
    """
    identifier, text = content["id"], content["schema"]
    if type(identifier) is not int or not isinstance(text, str):
        raise ValueError("a schema has a whole number as id, and a text")
    if schema_id(text) != identifier:
        raise ValueError(f"{identifier} is not the id of this schema, which is {schema_id(text)}")
    return {identifier: text}


def _with_filter(state: ControlState, offset: int, item: Filter) -> ControlState:
    version = (f"{item.owner}.{item.name}", item.version)
    return replace(
        state,
        epoch=offset,
        filters={**state.filters, version: item},
        filter_epochs={**state.filter_epochs, version: offset},
    )


def _with_promotion(state: ControlState, offset: int, item: Promotion) -> ControlState:
    history = {**state.promotions.get(item.group, {}), item.revision: item}
    return replace(state, epoch=offset, promotions={**state.promotions, item.group: history})


def _with_trees(state: ControlState, offset: int, item: StoredTrees) -> ControlState:
    revisions = {**state.trees.get(item.survey, {}), item.revision: item}
    return replace(state, epoch=offset, trees={**state.trees, item.survey: revisions})


def _with_forest(state: ControlState, offset: int, item: StoredForest) -> ControlState:
    whose = (item.owner, item.survey)
    revisions = {**state.forests.get(whose, {}), item.revision: item}
    return replace(
        state,
        epoch=offset,
        forests={**state.forests, whose: revisions},
        forest_epochs={**state.forest_epochs, item.label: offset},
    )


def _with_catalog(state: ControlState, offset: int, item: StoredCatalog) -> ControlState:
    revisions = {**state.catalogs.get(item.name, {}), item.revision: item}
    return replace(state, epoch=offset, catalogs={**state.catalogs, item.name: revisions})


def catalog_record(item: StoredCatalog) -> tuple[bytes, bytes]:
    """Key and value of the control record of a catalogue's revision."""
    return f"{CATALOG}/{item.name}/{item.revision}".encode(), json.dumps(item.to_json()).encode()


def _with_list(state: ControlState, offset: int, item: StoredList) -> ControlState:
    name = (item.kind, item.name)
    revisions = {**state.lists.get(name, {}), item.revision: item}
    return replace(state, epoch=offset, lists={**state.lists, name: revisions})


def _with_part(state: ControlState, offset: int, sha256: str, part: int, value: bytes) -> ControlState:
    parts = {**state.blobs.get(sha256, {}), part: value}
    return replace(state, epoch=offset, blobs={**state.blobs, sha256: parts})


def mark_record(item: Mark) -> tuple[bytes, bytes]:
    """Key and value of a mark's control record."""
    return f"{FEEDBACK}/{item.owner}/{item.survey}:{item.alert}".encode(), json.dumps(item.to_json()).encode()


def trees_record(item: StoredTrees) -> tuple[bytes, bytes]:
    """Key and value of the control record of a survey's trees."""
    return f"{TREES}/{item.survey}/{item.revision}".encode(), json.dumps(item.to_json()).encode()


def forest_record(item: StoredForest) -> tuple[bytes, bytes]:
    """Key and value of a forest's control record."""
    return f"{FOREST}/{item.label}".encode(), json.dumps(item.to_json()).encode()


def bundle_record(item: StoredBundle) -> tuple[bytes, bytes]:
    """Key and value of a bundle's control record."""
    return f"{BUNDLE}/{item.name.id}/{item.name.version}".encode(), json.dumps(item.to_json()).encode()


def promotion_record(item: Promotion) -> tuple[bytes, bytes]:
    """Key and value of a promotion's control record."""
    return f"{MODEL}/{item.group}/{item.revision}".encode(), json.dumps(item.to_json()).encode()


def shadow_record(item: Shadow) -> tuple[bytes, bytes]:
    """Key and value of a shadow's control record."""
    return f"{SHADOW}/{item.group}/1".encode(), json.dumps(item.to_json()).encode()


def schema_record(identifier: int, schema: str) -> tuple[bytes, bytes]:
    """Key and value of a schema's control record."""
    return f"{SCHEMA}/{identifier}/1".encode(), json.dumps({"id": identifier, "schema": schema}).encode()


def filter_record(item: Filter) -> tuple[bytes, bytes]:
    """Key and value of a filter version's control record."""
    return item.control_key.encode(), json.dumps(item.to_json()).encode()


def _parse(key: bytes | None, value: bytes | None) -> tuple[str, dict[str, Any]]:
    if key is None or value is None:
        raise ValueError("a control record needs a key and a value")
    content = json.loads(value, parse_int=whole_number)
    if not isinstance(content, dict):
        raise ValueError("a control record's value is a JSON object")
    if fault := fault_of_json(content):
        raise ValueError(f"its value has {fault}")
    return key.decode().split("/", 1)[0], content
