"""The filters of all users, kept in the `control` topic: add, find, enable, disable, remove.

Three promises. A filter's topic exists before its record is written, because a missing topic inside a
transaction stalls a worker. Two writers never give one version number to two rules: writing happens under a
lock in Redis. And a call returns once every live worker judges by the new state, or says how many do.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import redis

from broker import control
from broker.config import Settings
from broker.control import ControlState
from broker.control_lock import alone, redis_client
from broker.control_topic import ControlTail, ControlWriter
from broker.errors import BrokerError, FilterError
from broker.filter import Filter, Payload, State
from broker.filters.builtin import BUILTIN_FILTERS
from broker.filters.compile import CompiledFilter, compile_filter, has_members, require_names
from broker.heartbeats import wait_for_epoch
from broker.kafka import admin, create_topics
from broker.table import ColumnSpec
from broker.topics import filter_spec

DEFAULT_OWNER = "local"
BUILTIN_OWNER = "broker"
ACKNOWLEDGE_S = 10.0
"""How long a call waits for the workers: twice the time after which a silent one no longer counts as live."""


class ReservedOwner(FilterError):
    """The owner `broker` is for the filters that come with the code."""


class UnknownFilter(BrokerError):
    """No filter, or no such version of it, has this name."""


@dataclass(frozen=True)
class Added:
    """What a change came to.

    written : False if the filter was so already;  epoch : control offset from which it holds
    reached of live : workers that judge by it;  seconds : from the write to their acknowledgement
    """

    filter: Filter
    written: bool
    epoch: int
    reached: int
    live: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As the API and `--json` show it."""
        return {
            "filter": as_json(self.filter),
            "written": self.written,
            "epoch": self.epoch,
            "reached": self.reached,
            "live": self.live,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class _Stored:
    """A filter as `control` has it now, and the offset since which it has it."""

    filter: Filter
    epoch: int
    written: bool


def as_json(item: Filter) -> dict[str, Any]:
    """A filter as the API and `--json` show it: as stored, and where its hits go."""
    return {**item.to_json(), "topic": item.topic}


def full_name(name: str, owner: str | None = None) -> tuple[str, str]:
    """(owner, name) of `owner.name`, or of `name` and an owner given apart (else DEFAULT_OWNER)."""
    before, dot, after = name.partition(".")
    if not dot:
        return owner or DEFAULT_OWNER, name
    if owner not in {None, before}:
        raise FilterError(f"{name!r} names the owner {before!r}, but the owner given is {owner!r}; give one")
    return before, after


def read(settings: Settings) -> ControlState:
    """The control state as it is now.  Raises BrokerError."""
    with ControlTail(settings.kafka) as tail:
        return tail.catch_up()


def newest(state: ControlState, *, removed: bool = False) -> list[Filter]:
    """The newest version of each filter, by name; those that are removed only if asked for."""
    latest = state.latest_filters()
    return [latest[name] for name in sorted(latest) if removed or latest[name].state != "removed"]


def versions(state: ControlState, owner: str, name: str) -> list[Filter]:
    """Every version of a filter, oldest first.  Raises UnknownFilter if there is none."""
    wanted = f"{owner}.{name}"
    found = [item for (key, _), item in sorted(state.filters.items()) if key == wanted]
    if not found:
        raise UnknownFilter(f"there is no filter {wanted}; `broker filters list` shows those there are")
    return found


def find(state: ControlState, owner: str, name: str, version: int | None = None) -> Filter:
    """One version of a filter, the newest by default.  Raises UnknownFilter."""
    known = versions(state, owner, name)
    if version is None:
        return known[-1]
    for item in known:
        if item.version == version:
            return item
    have = ", ".join(str(item.version) for item in known)
    raise UnknownFilter(f"filter {owner}.{name} has no version {version}; it has {have}")


def add(
    settings: Settings,
    name: str,
    where: str,
    *,
    columns: Mapping[str, ColumnSpec],
    owner: str | None = None,
    payload: Payload = "light",
    description: str | None = None,
    timeout_s: float = ACKNOWLEDGE_S,
) -> Added:
    """Store a filter, or the next version of it, and wait until the workers judge by it.

    columns : what a filter may name;  description : None keeps that of the version before.
    An active filter that is given again unchanged gets no new version. Nothing is written unless the text
    compiles and all that it names is there. Raises FilterError, ReservedOwner, or BrokerError if a server
    does not answer.
    """
    owner, name = full_name(name, owner)
    if owner == BUILTIN_OWNER:
        raise ReservedOwner(f"the owner {BUILTIN_OWNER!r} is reserved for built-in filters; choose another")
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    wanted = Filter(owner, name, 1, where, payload, "active", description or "", now)
    compiled = compile_filter(where, columns)
    with redis_client(settings) as client:
        with alone(client):
            stored = _store(settings, wanted, compiled, columns, keep_description=description is None)
        return _acknowledged(settings, client, stored, timeout_s)


def remove(
    settings: Settings, name: str, *, owner: str | None = None, timeout_s: float = ACKNOWLEDGE_S
) -> Added:
    """Stop a filter for good; its versions stay readable, its topic and messages are kept."""
    return _change_state(settings, full_name(name, owner), "removed", timeout_s)


def disable(
    settings: Settings, name: str, *, owner: str | None = None, timeout_s: float = ACKNOWLEDGE_S
) -> Added:
    """Pause a filter: it judges nothing until it is enabled."""
    return _change_state(settings, full_name(name, owner), "paused", timeout_s)


def enable(
    settings: Settings, name: str, *, owner: str | None = None, timeout_s: float = ACKNOWLEDGE_S
) -> Added:
    """Resume a paused filter in the version it has; its topic is made anew if it is gone."""
    return _change_state(settings, full_name(name, owner), "active", timeout_s)


def install_builtin(settings: Settings, builtin: Sequence[Filter] = BUILTIN_FILTERS) -> list[Filter]:
    """Store the built-in filters that are missing or whose rule changed, and create their topics.

    One that a person removed or paused stays so until its rule changes. Returns what was written.
    """
    with redis_client(settings) as client, alone(client):
        latest = read(settings).latest_filters()
        new = [_next_builtin(item, latest.get(f"{item.owner}.{item.name}")) for item in builtin]
        written = [item for item in new if item is not None]
        held = {f"{item.owner}.{item.name}": item for item in [*latest.values(), *written]}
        active = [item for item in held.values() if item.owner == BUILTIN_OWNER and item.state == "active"]
        specs = [filter_spec(item.owner, item.name, settings.topics) for item in active]
        create_topics(admin(settings.kafka), specs)
        if written:
            _write(ControlWriter(settings.kafka), written)
    return written


def _next_builtin(item: Filter, before: Filter | None) -> Filter | None:
    """The version to write for a built-in filter, None if the stored one will do."""
    if before is None:
        return item
    same_rule = (before.where, before.payload) == (item.where, item.payload)
    if same_rule and (before.state != "active" or before.description == item.description):
        return None
    return replace(item, version=before.version + 1)


def _store(
    settings: Settings,
    wanted: Filter,
    compiled: CompiledFilter,
    columns: Mapping[str, ColumnSpec],
    *,
    keep_description: bool,
) -> _Stored:
    """Write a filter as the next version of its name, unless the active one does the same already."""
    writer = ControlWriter(settings.kafka)  # takes half a second to be ready, so it comes first
    state = read(settings)
    require_names(compiled, state.names())
    if has_members(compiled):
        compile_filter(wanted.where, columns, state.members())
    new, before = wanted, state.latest_filters().get(f"{wanted.owner}.{wanted.name}")
    if before is not None:
        description = before.description if keep_description else wanted.description
        new = replace(wanted, version=before.version + 1, description=description)
    create_topics(admin(settings.kafka), [filter_spec(new.owner, new.name, settings.topics)])
    if before is not None and _same_rule(before, new):
        return _as_it_was(state, before)
    return _Stored(new, _write(writer, [new]), written=True)


def _same_rule(before: Filter, new: Filter) -> bool:
    """Whether a stored filter already does what is asked for."""
    return before == replace(new, version=before.version, created_at=before.created_at)


def _change_state(settings: Settings, whose: tuple[str, str], state: State, timeout_s: float) -> Added:
    with redis_client(settings) as client:
        with alone(client):
            stored = _store_state(settings, *whose, state)
        return _acknowledged(settings, client, stored, timeout_s)


def _store_state(settings: Settings, owner: str, name: str, state: State) -> _Stored:
    writer = ControlWriter(settings.kafka)
    known = read(settings)
    item = find(known, owner, name)
    if item.state == "removed":
        raise UnknownFilter(f"filter {owner}.{name} is removed; `broker filters add` brings it back")
    if state == "active":
        create_topics(admin(settings.kafka), [filter_spec(owner, name, settings.topics)])
    if item.state == state:
        return _as_it_was(known, item)
    changed = replace(item, state=state)
    return _Stored(changed, _write(writer, [changed]), written=True)


def _as_it_was(state: ControlState, item: Filter) -> _Stored:
    return _Stored(item, state.filter_epochs[(f"{item.owner}.{item.name}", item.version)], written=False)


def _write(writer: ControlWriter, items: Sequence[Filter]) -> int:
    """Append the records of some filters; the offset of the last."""
    return [writer.write(*control.filter_record(item)) for item in items][-1]


def _acknowledged(settings: Settings, client: redis.Redis, stored: _Stored, timeout_s: float) -> Added:
    """Wait for the workers; a filter that is stored stays stored, whatever happens here."""
    item, start = stored.filter, time.monotonic()
    try:
        reached, live = wait_for_epoch(client, settings.run.group, stored.epoch, timeout_s)
    except redis.RedisError as error:
        raise BrokerError(
            f"filter {item.owner}.{item.name} version {item.version} is stored as {item.state}, but Redis "
            f"does not answer ({error}): it is unknown which workers have it"
        ) from error
    return Added(item, stored.written, stored.epoch, reached, live, time.monotonic() - start)
