"""All durable state, as a fold over the `control` topic: filters, schemas, bundles and their promotions.

A record's key is `<kind>/<name>/<version>`, its value JSON. Removal is a state, never a tombstone, so an old
version stays addressable. The offset of the last record applied is the *epoch*: two processes at one epoch
hold the same state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from broker.errors import FilterError
from broker.filter import Filter
from broker.promotion import BundleName, Promotion, StoredBundle

FILTER = "filter"
SCHEMA = "schema"
BUNDLE = "bundle"
MODEL = "model"


@dataclass(frozen=True)
class ControlState:
    """What the control topic says up to `epoch`; a new object for each change, so it may be shared.

    filters : every version of every filter, by (owner.name, version)
    filter_epochs : the offset at which each of those versions took its present state
    schemas : Avro schema text by id
    bundles : every bundle that was ever promoted
    promotions : every promotion by revision, of each group of surveys
    unreadable : (offset, why) of records that this version of the code could not read
    """

    epoch: int = -1
    filters: Mapping[tuple[str, int], Filter] = field(default_factory=dict)
    filter_epochs: Mapping[tuple[str, int], int] = field(default_factory=dict)
    schemas: Mapping[int, str] = field(default_factory=dict)
    bundles: Mapping[BundleName, StoredBundle] = field(default_factory=dict)
    promotions: Mapping[str, Mapping[int, Promotion]] = field(default_factory=dict)
    unreadable: tuple[tuple[int, str], ...] = ()

    def latest_filters(self) -> dict[str, Filter]:
        """The newest version of each filter by `owner.name`, removed ones included."""
        latest: dict[str, Filter] = {}
        for (name, version), item in self.filters.items():
            if name not in latest or version > latest[name].version:
                latest[name] = item
        return latest

    def active_filters(self) -> list[Filter]:
        """The filters that judge alerts at this epoch, in a stable order."""
        latest = self.latest_filters()
        return [latest[name] for name in sorted(latest) if latest[name].state == "active"]

    def live_promotions(self) -> dict[str, Promotion]:
        """The newest promotion of each group, rollbacks to nothing included."""
        return {group: history[max(history)] for group, history in sorted(self.promotions.items())}

    def filter_addresses(self) -> dict[bytes, Filter]:
        """Every version of every filter whose topic may be written to, by its mark (Filter.mark)."""
        latest = self.latest_filters()
        return {item.mark: item for (name, _), item in self.filters.items() if latest[name].state != "paused"}


def apply(state: ControlState, offset: int, key: bytes | None, value: bytes | None) -> ControlState:
    """The state after one more control record; a record we cannot read is noted, never fatal."""
    try:
        kind, content = _parse(key, value)
        if kind == FILTER:
            return _with_filter(state, offset, Filter.from_json(content))
        if kind == SCHEMA:
            schemas = {**state.schemas, int(content["id"]): str(content["schema"])}
            return replace(state, epoch=offset, schemas=schemas)
        if kind == BUNDLE:
            stored = StoredBundle.from_json(content)
            return replace(state, epoch=offset, bundles={**state.bundles, stored.name: stored})
        if kind == MODEL:
            return _with_promotion(state, offset, Promotion.from_json(content))
        raise ValueError(f"unknown kind {kind!r}")
    except (ValueError, KeyError, TypeError, FilterError) as error:
        return replace(state, epoch=offset, unreadable=(*state.unreadable, (offset, str(error))))


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


def bundle_record(item: StoredBundle) -> tuple[bytes, bytes]:
    """Key and value of a bundle's control record."""
    return f"{BUNDLE}/{item.name.id}/{item.name.version}".encode(), json.dumps(item.to_json()).encode()


def promotion_record(item: Promotion) -> tuple[bytes, bytes]:
    """Key and value of a promotion's control record."""
    return f"{MODEL}/{item.group}/{item.revision}".encode(), json.dumps(item.to_json()).encode()


def schema_record(schema_id: int, schema: str) -> tuple[bytes, bytes]:
    """Key and value of a schema's control record."""
    return f"{SCHEMA}/{schema_id}/1".encode(), json.dumps({"id": schema_id, "schema": schema}).encode()


def filter_record(item: Filter) -> tuple[bytes, bytes]:
    """Key and value of a filter version's control record."""
    return item.control_key.encode(), json.dumps(item.to_json()).encode()


def _parse(key: bytes | None, value: bytes | None) -> tuple[str, dict[str, Any]]:
    if key is None or value is None:
        raise ValueError("a control record needs a key and a value")
    content = json.loads(value)
    if not isinstance(content, dict):
        raise ValueError("a control record's value is a JSON object")
    return key.decode().split("/", 1)[0], content
